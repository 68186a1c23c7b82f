//! A process of its own for one token request, since the environment belongs to all of a process.

use std::{env, process::Command, time::Duration};

use tokio::{runtime::Runtime, task::spawn_blocking};
use tower::ServiceExt;
use tower_symbl_auth::{Credentials, FetchReason, FetchToken, TokenRequest};

const ENDPOINT: &str = "TEST_ENDPOINT";
const OUTCOME: &str = "outcome: ";

/// What comes of one attempt at that endpoint, with a timeout of 3 s, in a process with those variables:
/// `token`, or the error.
pub async fn fetch(endpoint: &str, variables: &[(&str, &str)]) -> String {
    run("child::one_attempt", endpoint, variables).await
}

/// What that test tells when it is run in a process of its own.
pub async fn run(test: &str, endpoint: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", test]);
    for name in ["HTTPS", "HTTP", "ALL", "NO"] {
        command.env_remove(format!("{name}_PROXY"));
        command.env_remove(format!("{name}_PROXY").to_lowercase());
    }
    command
        .env_remove("SSL_CERT_FILE")
        .env_remove("SSL_CERT_DIR");
    command.env_remove("REQUEST_METHOD");
    command
        .env(ENDPOINT, endpoint)
        .envs(variables.iter().copied());
    let output = spawn_blocking(move || command.output().unwrap()).await;
    let told = String::from_utf8(output.unwrap().stdout).unwrap();
    let outcome = told.split_once(OUTCOME);
    let (_, outcome) = outcome.unwrap_or_else(|| panic!("it told nothing: {told}"));
    outcome.lines().next().unwrap().to_owned()
}

pub fn tell(outcome: impl std::fmt::Display) {
    println!("\n{OUTCOME}{outcome}");
}

/// The attempt itself, in a runtime of its own.
pub fn attempt() -> String {
    let endpoint = env::var(ENDPOINT).unwrap().parse().unwrap();
    let fetch = FetchToken::new(Credentials::new("id", "app-s3cr3t"));
    let fetch = fetch.endpoint(endpoint).unwrap();
    let fetch = fetch.attempts(1).timeout(Duration::from_secs(3));
    let request = TokenRequest::new(FetchReason::First);
    match Runtime::new().unwrap().block_on(fetch.oneshot(request)) {
        Ok(token) => token.expose_secret().to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn one_attempt() {
    tell(attempt());
}
