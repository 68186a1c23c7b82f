//! Section 2's `ReqwestClient`, over real sockets: tokens by a `reqwest::Client`, and no redirect takes
//! the app secret anywhere.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::Method, response::IntoResponse};
use http::{
    HeaderMap, StatusCode,
    header::{HOST, LOCATION, PROXY_AUTHORIZATION},
};
use reqwest::{Client, Proxy, redirect::Policy};
use tokio::net::TcpListener;
use tower::ServiceExt;
use tower_symbl_auth::{
    AccessToken, Credentials, FetchReason, FetchToken, TokenError, TokenErrorKind, TokenRequest,
    integrations::ReqwestClient, mock::MockSymbl,
};

async fn token(
    credentials: Credentials,
    client: Client,
    endpoint: http::Uri,
) -> Result<AccessToken, TokenError> {
    let fetch = FetchToken::with_client(credentials, ReqwestClient(client));
    let fetch = fetch.endpoint(endpoint).unwrap();
    fetch.oneshot(TokenRequest::new(FetchReason::First)).await
}

/// A server that tells what it was sent, and answers with that.
async fn serve(answer: impl IntoResponse + Clone + Send + Sync + 'static) -> (String, Seen) {
    let seen = Seen::default();
    let router = Router::new()
        .fallback(
            move |State(seen): State<Seen>, method: Method, headers: HeaderMap, body: Bytes| {
                seen.lock().unwrap().push((method, headers, body));
                std::future::ready(answer)
            },
        )
        .with_state(Arc::clone(&seen));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await });
    (format!("http://{address}/"), seen)
}

type Seen = Arc<Mutex<Vec<(Method, HeaderMap, Bytes)>>>;

#[tokio::test]
async fn a_token_comes_by_the_users_own_client() {
    let symbl = MockSymbl::start().await.unwrap();
    let endpoint = symbl.token_endpoint();
    token(symbl.credentials(), Client::new(), endpoint)
        .await
        .unwrap();
    assert_eq!(symbl.token_requests(), 1);
}

#[tokio::test]
async fn the_request_tells_its_length_and_who_asks() {
    let (endpoint, seen) = serve(r#"{"accessToken":"token"}"#).await;
    let credentials = Credentials::new("id", "s3cr3t");
    token(credentials, Client::new(), endpoint.parse().unwrap())
        .await
        .unwrap();
    let (method, headers, body) = seen.lock().unwrap()[0].clone();
    assert_eq!(method, Method::POST);
    assert_eq!(headers["content-length"], body.len().to_string());
    assert!(
        headers["user-agent"]
            .to_str()
            .unwrap()
            .starts_with("tower-symbl-auth/")
    );
}

/// Of plain HTTP a proxy is sent the whole request, and this one answers it itself. For roots, client certificates and
/// tunnels reqwest needs a TLS feature, which would bring a second crypto provider, or panic without one: they are
/// tried with hyper's client, in `default_client/own_clients.rs`.
#[tokio::test]
async fn a_token_comes_through_the_users_own_proxy() {
    let (proxy, seen) = serve(r#"{"accessToken":"token"}"#).await;
    let proxy = Proxy::all(proxy).unwrap().basic_auth("user", "password");
    let client = Client::builder().proxy(proxy).build().unwrap();
    // Nobody listens there.
    let endpoint = http::Uri::from_static("http://127.0.0.1:1/");
    token(Credentials::new("id", "s3cr3t"), client, endpoint)
        .await
        .unwrap();
    let (method, headers, _) = seen.lock().unwrap()[0].clone();
    assert_eq!((method, seen.lock().unwrap().len()), (Method::POST, 1));
    assert_eq!(headers[HOST], "127.0.0.1:1");
    assert_eq!(headers[PROXY_AUTHORIZATION], "Basic dXNlcjpwYXNzd29yZA==");
}

#[tokio::test]
async fn no_redirect_takes_the_secret_elsewhere_nor_brings_a_token() {
    for status in [301, 302, 303, 307, 308] {
        for policy in [Policy::default(), Policy::none()] {
            let (elsewhere, seen) = serve(r#"{"accessToken":"planted"}"#).await;
            let status = StatusCode::from_u16(status).unwrap();
            let (endpoint, asked) = serve((status, [(LOCATION, elsewhere.clone())])).await;
            let client = Client::builder().redirect(policy).build().unwrap();
            let credentials = Credentials::new("id", "s3cr3t");
            let outcome = token(credentials, client, endpoint.parse().unwrap()).await;
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
            let host = elsewhere
                .strip_prefix("http://")
                .unwrap()
                .trim_end_matches('/');
            let named = format!("redirects to {host},");
            assert!(error.to_string().contains(&named), "{status}: {error}");
            assert_eq!(asked.lock().unwrap().len(), 1);
            let seen = seen.lock().unwrap();
            assert!(seen.iter().all(|(_, _, body)| body.is_empty()), "{status}");
        }
    }
}

#[tokio::test]
async fn a_failure_is_told_by_its_deepest_cause() {
    let endpoint = http::Uri::from_static("http://127.0.0.1:1/");
    let outcome = token(Credentials::new("id", "secret"), Client::new(), endpoint).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Unavailable);
    assert!(error.to_string().contains("onnection refused"), "{error}");
}
