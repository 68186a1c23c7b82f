//! The token service of `examples/client_credentials` against a real OAuth server: oidc-provider, which
//! `.ci/test` installs from npm; without it they are left out. It also introspects and revokes tokens, for the API here.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    http::HeaderMap,
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::net::TcpListener;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_symbl_auth::{AccessToken, FetchReason, SymblAuthLayer, TokenErrorKind, TokenRequest};

#[path = "servers/mod.rs"]
mod servers;
#[path = "../examples/client_credentials/token_service.rs"]
mod token_service;

use servers::left_out;
use token_service::ClientCredentials;

// Those in oauth_server.mjs: both need escapes in Basic authentication (RFC 6749 section 2.3.1).
const ID: &str = "calls app";
const SECRET: &str = "s3cr3t+with/odd:characters%&=";
const BASIC: &str = "calls+app:s3cr3t%2Bwith%2Fodd%3Acharacters%25%26%3D";
const SCOPE: &str = "calls:read";

/// Where `.ci/servers` installs the server.
const FOLDER: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/oidc-provider");

/// Whether the server is not installed, so that a test that needs it is left out.
fn is_missing() -> bool {
    left_out(&["node", "oidc-provider"])
}

/// The server's origin. It runs until this process ends, and with it the server's standard input.
fn server() -> &'static str {
    static SERVER: OnceLock<(String, Child, ChildStdin)> = OnceLock::new();
    let (origin, ..) = SERVER.get_or_init(|| {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut child = Command::new("sh")
            .arg(format!("{root}/tests/oauth_server.sh"))
            .arg(FOLDER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let mut origin = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut origin).unwrap();
        assert!(
            origin.starts_with("http://"),
            "tests/oauth_server.sh: {origin}"
        );
        let stdin = child.stdin.take().unwrap();
        (origin.trim().to_owned(), child, stdin)
    });
    origin
}

fn tokens(secret: &str, scope: &str) -> ClientCredentials {
    ClientCredentials::new(&format!("{}/token", server()), ID, secret, scope).unwrap()
}

/// `introspection` or `revocation` of a token (RFC 7662, RFC 7009).
async fn ask(what: &str, token: &str) -> Value {
    let request = Request::post(format!("{}/token/{what}", server()))
        .header(
            "authorization",
            format!("Basic {}", BASE64_STANDARD.encode(BASIC)),
        )
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::<Bytes>::from(format!("token={token}")))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap_or_default()
}

/// An API that takes what the server vouches for, and counts what it refuses.
async fn api() -> (String, Arc<AtomicUsize>) {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let calls = move |headers: HeaderMap| async move {
        let given = headers["authorization"].to_str().unwrap();
        let token = ask("introspection", given.strip_prefix("Bearer ").unwrap()).await;
        if token["active"] == true && token["scope"] == SCOPE {
            return StatusCode::OK;
        }
        count.fetch_add(1, Ordering::Relaxed);
        StatusCode::UNAUTHORIZED
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let api = Router::new().route("/calls", get(calls));
    tokio::spawn(async move { axum::serve(listener, api).await });
    (origin, refused)
}

#[tokio::test]
async fn tokens_of_a_real_server_are_accepted_and_revocations_healed_at_one_fetch_each() {
    if is_missing() {
        return;
    }
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetches);
    let counted = ServiceBuilder::new()
        .map_request(move |request: TokenRequest| {
            count.fetch_add(1, Ordering::Relaxed);
            request
        })
        .service(tokens(SECRET, SCOPE));
    let (origin, refused) = api().await;
    let layer = SymblAuthLayer::builder(counted)
        .origins([origin.parse().unwrap()])
        .build();
    let client = layer.layer(Client::builder(TokioExecutor::new()).build_http());
    for revocations in 0..3 {
        if revocations > 0 {
            let token = layer.token().await.unwrap();
            ask("revocation", token.expose_secret()).await;
        }
        let requests = (0..50).map(|_| {
            let request = Request::get(format!("{origin}/calls"));
            client
                .clone()
                .oneshot(request.body(Full::<Bytes>::default()).unwrap())
        });
        for answer in join_all(requests).await {
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        }
        assert_eq!(fetches.load(Ordering::Relaxed), 1 + revocations);
        assert_eq!(refused.load(Ordering::Relaxed) > 0, revocations > 0);
    }
}

#[tokio::test]
async fn the_lifetime_is_the_servers() {
    if is_missing() {
        return;
    }
    let token = fetch(tokens(SECRET, SCOPE)).await.unwrap();
    let lifetime = token.expires_in().as_secs();
    assert!((590..=600).contains(&lifetime), "{lifetime}");
}

#[tokio::test]
async fn a_wrong_secret_and_a_wrong_scope_are_trouble_with_the_credentials() {
    if is_missing() {
        return;
    }
    for (secret, scope, error) in [
        ("wrong", SCOPE, "invalid_client"),
        (SECRET, "calls:write", "invalid_scope"),
    ] {
        let failed = fetch(tokens(secret, scope)).await.unwrap_err();
        assert_eq!(failed.kind(), TokenErrorKind::Credentials, "{failed}");
        assert!(failed.to_string().contains(error), "{failed}");
        assert!(!format!("{failed:?}").contains(SECRET));
    }
}

#[tokio::test]
async fn what_is_no_token_server_is_told_by_its_kind() {
    let busy = || async {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            [("retry-after", "7")],
            "<html>",
        )
    };
    let odd = Router::new()
        .route("/busy", post(busy))
        .route("/html", post(|| async { "<html>s3cr3t-token" }))
        .route("/json", post(|| async { Json("s3cr3t-token") }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, odd).await });
    let gone = "http://127.0.0.1:1".to_owned();
    for (url, kind, delay) in [
        (
            origin.clone() + "/busy",
            TokenErrorKind::Unavailable,
            Some(Duration::from_secs(7)),
        ),
        (
            origin.clone() + "/html",
            TokenErrorKind::InvalidResponse,
            None,
        ),
        (origin + "/json", TokenErrorKind::InvalidResponse, None),
        (gone, TokenErrorKind::Unavailable, None),
    ] {
        let service = ClientCredentials::new(&url, ID, SECRET, SCOPE).unwrap();
        let failed = fetch(service).await.unwrap_err();
        assert_eq!(
            (failed.kind(), failed.retry_after()),
            (kind, delay),
            "{failed}"
        );
        assert!(!format!("{failed:?}").contains("s3cr3t"), "{failed:?}");
    }
}

async fn fetch(tokens: ClientCredentials) -> Result<AccessToken, tower_symbl_auth::TokenError> {
    tokens.oneshot(TokenRequest::new(FetchReason::First)).await
}
