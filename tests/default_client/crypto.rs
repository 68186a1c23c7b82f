//! The crypto provider: the process's default, else a feature's; and what it leaves to others.

use rustls::{CipherSuite, ClientConfig, crypto::CryptoProvider, crypto::ring};
use tower_symbl_auth::DefaultClient;

use crate::{
    child::{self, attempt, run, tell},
    servers::Endpoint,
};

#[tokio::test]
async fn a_default_of_the_process_is_used() {
    let (endpoint, root) = Endpoint::tls().await;
    let (url, root) = (endpoint.url("https", "localhost"), root.path());
    let variables = [("SSL_CERT_FILE", root)];
    assert_eq!(child::fetch(&url, &variables).await, "t0ken");
    let told = run(
        "crypto::one_attempt_with_another_provider",
        &url,
        &variables,
    )
    .await;
    assert_eq!(told, "t0ken");
    let suites = endpoint.suites();
    assert_ne!(suites[0], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    assert_eq!(suites[1], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn one_attempt_with_another_provider() {
    let provider = CryptoProvider {
        cipher_suites: vec![ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256],
        ..ring::default_provider()
    };
    provider.install_default().unwrap();
    tell(attempt());
}

/// With both providers among rustls's features (as with all of this crate's), its own builder panics
/// unless somebody has decided.
#[tokio::test]
async fn rustls_own_builder_works_beside_the_client() {
    let told = run("crypto::a_configuration_of_the_users_own", "", &[]).await;
    assert_eq!(told, "built");
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn a_configuration_of_the_users_own() {
    drop(DefaultClient::default());
    drop(ClientConfig::builder());
    tell("built");
}
