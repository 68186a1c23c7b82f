//! Section 2: no connection is kept; S1: what a token request needs of its runtime.

use std::time::Duration;

use futures::executor::block_on;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;
use tower_symbl_auth::{Credentials, FetchReason, FetchToken, TokenErrorKind, TokenRequest};

use crate::servers::Endpoint;

fn request() -> TokenRequest {
    TokenRequest::new(FetchReason::First)
}

#[test]
fn one_client_serves_runtimes_that_come_and_go_and_keeps_no_connection() {
    let server = Runtime::new().unwrap();
    let endpoint = server.block_on(Endpoint::plain(&[]));
    let url = endpoint.url("http", "127.0.0.1").parse().unwrap();
    let fetch = FetchToken::new(Credentials::new("id", "secret"));
    let fetch = fetch.endpoint(url).unwrap().attempts(1);
    for fetches in 1..=3 {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            fetch.clone().oneshot(request()).await.unwrap();
            // While the runtime that made it still runs.
            let closed = async {
                while endpoint.closed() < fetches {
                    tokio::task::yield_now().await;
                }
            };
            let patience = Duration::from_secs(10);
            tokio::time::timeout(patience, closed).await.unwrap();
        });
        assert_eq!(endpoint.connections(), fetches);
    }
}

#[test]
fn without_a_timer_a_request_fails_and_says_so() {
    let fetch = FetchToken::new(Credentials::new("id", "secret"));
    let no_timer = Builder::new_current_thread().enable_io().build().unwrap();
    let outside = block_on(fetch.clone().oneshot(request()));
    for outcome in [no_timer.block_on(fetch.oneshot(request())), outside] {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Internal);
        assert!(
            error.to_string().contains("a tokio runtime with a timer"),
            "{error}"
        );
    }
}
