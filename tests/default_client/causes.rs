//! S1 to S3: why a request failed, in the error, in `NotRetried`, and as a source.

use std::{
    error::Error,
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_symbl_auth::{
    AccessToken, Credentials, FetchReason, FetchToken, NotRetried, SymblAuthLayer, TokenError,
    TokenErrorKind, TokenRequest,
};

use crate::{
    child,
    servers::{Endpoint, TOKEN, silent},
};

fn fetch(endpoint: &str) -> FetchToken {
    let fetch = FetchToken::new(Credentials::new("id", "app-s3cr3t"));
    let fetch = fetch.endpoint(endpoint.parse().unwrap()).unwrap();
    fetch.timeout(Duration::from_secs(5))
}

async fn token(fetch: FetchToken) -> Result<AccessToken, TokenError> {
    fetch.oneshot(TokenRequest::new(FetchReason::First)).await
}

/// What this system says to whoever connects there.
fn refused() -> String {
    TcpStream::connect(silent()).unwrap_err().to_string()
}

fn sources(error: &TokenError) -> Vec<String> {
    let first = error.source();
    let all = std::iter::successors(first, |&error| error.source());
    all.map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_refused_connection_is_told_with_its_sources() {
    let endpoint = format!("http://{}/", silent());
    let error = token(fetch(&endpoint)).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Unavailable);
    let refused = refused();
    assert_eq!(
        error.to_string(),
        format!("token endpoint unavailable: {refused}")
    );
    assert!(sources(&error).len() > 1, "{error:?}");
    assert_eq!(sources(&error).last(), Some(&refused));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told() {
    let error = token(fetch("https://endpoint.invalid/")).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Unavailable);
    let unknown = ("endpoint.invalid", 443).to_socket_addrs().unwrap_err();
    assert!(error.to_string().contains(&unknown.to_string()), "{error}");
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told() {
    let (endpoint, _) = Endpoint::tls().await;
    let (_, other_root) = Endpoint::tls().await;
    let variables = [("SSL_CERT_FILE", other_root.path())];
    let told = child::fetch(&endpoint.url("https", "localhost"), &variables).await;
    let why = "token endpoint unavailable: invalid peer certificate: ";
    assert!(told.starts_with(why), "{told}");
}

/// Should there be no roots: that is told, once TLS is needed, and `http` on loopback works without.
#[tokio::test]
async fn roots_that_do_not_load_are_told() {
    let (endpoint, _) = Endpoint::tls().await;
    let none = [("SSL_CERT_FILE", "/nonexistent")];
    let told = child::fetch(&endpoint.url("https", "localhost"), &none).await;
    assert!(told.starts_with("internal error: "), "{told}");
    assert!(told.contains("root certificates did not load"), "{told}");
    let plain = Endpoint::plain(&[]).await;
    let told = child::fetch(&plain.url("http", "127.0.0.1"), &none).await;
    assert_eq!(told, "t0ken");
}

#[tokio::test]
async fn a_rejected_request_is_handed_back_with_the_cause() {
    let good = Endpoint::plain(&[]).await;
    let broken = fetch(&format!("http://{}/", silent()));
    let served = fetch(&good.url("http", "127.0.0.1"));
    let service = service_fn(move |request: TokenRequest| {
        let first = request.reason() == FetchReason::First;
        if first {
            served.clone()
        } else {
            broken.clone()
        }
        .oneshot(request)
    });
    let api = service_fn(|_| async {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        Ok::<_, BoxError>(response)
    });
    let request = Request::get("https://api.symbl.ai/v1/job/1");
    let request = request
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let layer = SymblAuthLayer::builder(service).build();
    let response = layer.layer(api).oneshot(request).await.unwrap();
    let why = response.extensions().get::<NotRetried>().unwrap();
    assert!(matches!(why, NotRetried::Token(_)), "{why}");
    assert!(why.to_string().contains(&refused()), "{why}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_and_a_408_are_tried_again() {
    let (head, _) = TOKEN.split_once("content-length").unwrap();
    let broken = format!("{head}content-length: 999\r\n\r\n{{\"accessToken\":\"t0k");
    let late = "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n";
    for reply in [&*broken, late] {
        let endpoint = Endpoint::plain(&[reply, reply]).await;
        let url = endpoint.url("http", "127.0.0.1");
        let error = token(fetch(&url).attempts(1)).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Unavailable, "{error}");
        assert!(!error.to_string().contains("t0k"), "{error}");
        token(fetch(&url)).await.unwrap();
        assert_eq!(endpoint.connections(), 3);
    }
}

#[tokio::test]
async fn what_stands_between_is_named() {
    for (reply, why) in [
        (
            "HTTP/1.1 302 Found\r\nlocation: https://login.example/?a\r\ncontent-length: 0\r\n\r\n",
            "redirects to login.example,",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 6\r\n\r\n<html>",
            "HTML or XML",
        ),
    ] {
        let endpoint = Endpoint::plain(&[reply]).await;
        let error = token(fetch(&endpoint.url("http", "127.0.0.1")))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(endpoint.connections(), 1);
    }
}
