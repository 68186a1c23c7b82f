//! WebSockets: the handshake is stamped by `authorize`, and healed by the loop of `examples/streaming.rs`,
//! which these tests run.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode, Uri, header::SEC_WEBSOCKET_PROTOCOL};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tokio_tungstenite::{
    accept_hdr_async, connect_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        handshake::server::{ErrorResponse, Request as Handshake, Response},
    },
};
use tower::ServiceExt;
use tower_symbl_auth::{Origin, Placement, SymblAuthLayer, mock::MockSymbl};

#[path = "../examples/streaming.rs"]
#[allow(dead_code)]
mod example;

use example::{connect, say};

fn layer(symbl: &MockSymbl, origin: Origin, placement: Placement) -> SymblAuthLayer {
    SymblAuthLayer::builder(symbl.fetch_token())
        .origins([origin])
        .placement(placement)
        .build()
}

fn ws(symbl: &MockSymbl, path: &str) -> Uri {
    let uri = symbl.url(path).to_string();
    uri.replacen("http", "ws", 1).parse().unwrap()
}

/// A server that remembers the handshakes it was sent, and refuses them all or none.
async fn recorder(refuse: bool) -> (Uri, Arc<Mutex<Vec<Handshake>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!(
        "ws://{}/v1/streaming/1?record=true",
        listener.local_addr().unwrap()
    );
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handshakes = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            #[allow(clippy::result_large_err)] // the trait's own
            let record = |request: &Handshake, response: Response| {
                handshakes.lock().unwrap().push(request.clone());
                if refuse {
                    let mut refused = ErrorResponse::new(None);
                    *refused.status_mut() = StatusCode::UNAUTHORIZED;
                    return Err(refused);
                }
                Ok(response)
            };
            let _ = accept_hdr_async(stream, record).await;
        }
    });
    (uri.parse().unwrap(), seen)
}

fn origin_of(uri: &Uri) -> Origin {
    format!("http://{}", uri.authority().unwrap())
        .parse()
        .unwrap()
}

fn status(error: tower::BoxError) -> StatusCode {
    match *error.downcast::<Error>().unwrap() {
        Error::Http(answer) => answer.status(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn both_placements_are_accepted_on_all_endpoints() {
    let symbl = MockSymbl::start().await.unwrap();
    for placement in [Placement::Bearer, Placement::ApiKey] {
        for path in [
            "/v1/streaming/1",
            "/v1/subscribe/1",
            "/v1/realtime/insights/1",
            "/session/subscribe/1",
        ] {
            let layer = layer(&symbl, symbl.origin(), placement);
            let mut socket = connect(&layer, &ws(&symbl, path)).await.unwrap();
            let answer = say(&mut socket, "hi").await.unwrap();
            assert_eq!(
                (&answer["type"], &answer["message"]["text"]),
                (&"message".into(), &"hi".into())
            );
        }
    }
    assert_eq!((symbl.api_requests(), symbl.rejections()), (8, 0));
}

/// Symbl's JavaScript SDK, `@symblai/symbl-js` 1.4.10: `new w3cwebsocket(url, token, null, { "X-API-KEY": token })`,
/// where the headers are dropped by a browser, and a WebSocket without the subprotocol is given up.
#[tokio::test]
async fn a_token_as_subprotocol_is_taken_and_named_in_the_answer() {
    let symbl = MockSymbl::start().await.unwrap();
    let token = symbl.layer().token().await.unwrap();
    let token = token.expose_secret();
    let uri = ws(&symbl, "/v1/realtime/insights/1?source=js_sdk");
    for (offered, in_node) in [
        (token.to_owned(), true),
        (token.to_owned(), false),
        (format!("chat, {token}"), false),
    ] {
        let mut handshake = (&uri).into_client_request().unwrap();
        let headers = handshake.headers_mut();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
        if in_node {
            headers.insert("x-api-key", token.parse().unwrap());
        }
        let (mut socket, answer) = connect_async(handshake).await.unwrap();
        assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], token);
        socket.send(Message::text("__PING__")).await.unwrap();
        let pong = socket.next().await.unwrap().unwrap();
        assert_eq!(pong, Message::text("__PONG__"));
    }
    symbl.revoke_tokens();
    let mut handshake = uri.into_client_request().unwrap();
    let headers = handshake.headers_mut();
    headers.insert(SEC_WEBSOCKET_PROTOCOL, token.parse().unwrap());
    let refused = connect_async(handshake).await.unwrap_err();
    assert_eq!(status(refused.into()), StatusCode::UNAUTHORIZED);
    assert_eq!((symbl.api_requests(), symbl.rejections()), (4, 1));
}

#[tokio::test]
async fn the_token_goes_into_one_header_and_never_into_the_url() {
    let symbl = MockSymbl::start().await.unwrap();
    for (placement, header, other) in [
        (Placement::Bearer, "authorization", "x-api-key"),
        (Placement::ApiKey, "x-api-key", "authorization"),
    ] {
        let (uri, seen) = recorder(false).await;
        let layer = layer(&symbl, origin_of(&uri), placement);
        connect(&layer, &uri).await.unwrap();
        let token = layer.token().await.unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].uri(), "/v1/streaming/1?record=true");
        let value = seen[0].headers()[header].to_str().unwrap();
        assert_eq!(
            value.strip_prefix("Bearer ").unwrap_or(value),
            token.expose_secret()
        );
        assert!(!seen[0].headers().contains_key(other));
    }
}

#[tokio::test]
async fn a_token_in_the_query_is_refused_and_so_is_none() {
    let symbl = MockSymbl::start().await.unwrap();
    let token = symbl.layer().token().await.unwrap();
    let path = format!("/v1/streaming/1?access_token={}", token.expose_secret());
    for path in [&*path, "/v1/streaming/1"] {
        let refused = connect_async(ws(&symbl, path)).await.unwrap_err();
        assert_eq!(status(refused.into()), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(symbl.rejections(), 2);
}

#[tokio::test]
async fn every_revocation_is_healed_with_one_more_fetch() {
    let symbl = MockSymbl::start().await.unwrap();
    let layer = layer(&symbl, symbl.origin(), Placement::ApiKey);
    let uri = ws(&symbl, "/v1/streaming/1");
    connect(&layer, &uri).await.unwrap();
    for revocations in 1..=3 {
        symbl.revoke_tokens();
        let mut socket = connect(&layer, &uri).await.unwrap();
        assert_eq!(
            say(&mut socket, "on").await.unwrap()["message"]["text"],
            "on"
        );
        assert_eq!(symbl.token_requests(), 1 + revocations);
        assert_eq!(symbl.rejections(), revocations);
    }
}

/// New tokens are tried less and less often, though nobody says "accepted".
#[tokio::test]
async fn handshakes_that_no_token_helps_cost_few_fetches() {
    let symbl = MockSymbl::start().await.unwrap();
    symbl.cache_tokens(false);
    let (uri, seen) = recorder(true).await;
    let layer = layer(&symbl, origin_of(&uri), Placement::Bearer);
    for _ in 0..20 {
        let refused = connect(&layer, &uri).await.unwrap_err();
        assert_eq!(status(refused), StatusCode::UNAUTHORIZED);
    }
    // The first, its replacement, one after a second, and on a slow machine one after ten more.
    let fetches = symbl.token_requests();
    assert!((2..=4).contains(&fetches), "{fetches}");
    assert!((20..=40).contains(&seen.lock().unwrap().len()));
}

#[tokio::test]
async fn a_handshake_refused_twice_is_not_sent_a_third_time() {
    let symbl = MockSymbl::start().await.unwrap();
    symbl.cache_tokens(false);
    let (uri, seen) = recorder(true).await;
    let layer = layer(&symbl, origin_of(&uri), Placement::Bearer);
    let refused = connect(&layer, &uri).await.unwrap_err();
    assert_eq!(status(refused), StatusCode::UNAUTHORIZED);
    let seen = seen.lock().unwrap();
    assert_eq!((seen.len(), symbl.token_requests()), (2, 2));
    assert_ne!(
        seen[0].headers()["authorization"],
        seen[1].headers()["authorization"]
    );
}

#[tokio::test]
async fn a_foreign_origin_is_not_stamped_and_costs_no_fetch() {
    let symbl = MockSymbl::start().await.unwrap();
    let (uri, seen) = recorder(true).await;
    let layer = layer(&symbl, symbl.origin(), Placement::Bearer);
    let refused = connect(&layer, &uri).await.unwrap_err();
    assert_eq!(status(refused), StatusCode::UNAUTHORIZED);
    let seen = seen.lock().unwrap();
    assert_eq!((seen.len(), symbl.token_requests()), (1, 0));
    assert!(!seen[0].headers().contains_key("authorization"));
}

#[tokio::test]
async fn wss_counts_as_https_and_ws_does_not() {
    let symbl = MockSymbl::start().await.unwrap();
    let origin = "https://api.symbl.ai".parse().unwrap();
    let layer = layer(&symbl, origin, Placement::ApiKey);
    for (uri, stamped) in [
        ("wss://api.symbl.ai/v1/streaming/1", true),
        ("wss://api.symbl.ai:443/v1/streaming/1", true),
        ("ws://api.symbl.ai/v1/streaming/1", false),
        ("wss://api.symbl.ai:8443/v1/streaming/1", false),
        ("wss://api-labs.symbl.ai/v1/streaming/1", false),
    ] {
        let mut request = uri.into_client_request().unwrap();
        let token = layer.authorize(&mut request).await.unwrap();
        assert_eq!(token.is_some(), stamped, "{uri}");
        assert_eq!(
            request.headers().contains_key("x-api-key"),
            stamped,
            "{uri}"
        );
    }
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_told_so() {
    let symbl = MockSymbl::start().await.unwrap();
    for h2 in [false, true] {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(h2)
            .build_http();
        let client = tower::Layer::layer(&symbl.layer(), client);
        let request = Request::get(symbl.url("/v1/streaming/1"));
        let answer = client
            .oneshot(request.body(Empty::<Bytes>::new()).unwrap())
            .await;
        assert_eq!(answer.unwrap().status(), StatusCode::UPGRADE_REQUIRED);
    }
}
