//! The app of `examples/axum_proxy`: uploads that stream through it while the token is revoked, what it
//! hands on and where to, and what it answers when it has no token.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, extract, routing::any, serve::Listener};
use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream};
use http::{HeaderMap, Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tower_symbl_auth::mock::{MockSymbl, TokenReply};

#[path = "../examples/axum_proxy/app.rs"]
mod app;

async fn serve(app: Router) -> SocketAddr {
    let listener = app::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn proxy(symbl: &MockSymbl) -> SocketAddr {
    serve(app::app(&symbl.layer(), symbl.origin())).await
}

fn caller(h2: bool) -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new())
        .http2_only(h2)
        .build_http()
}

async fn json_of(response: Response<Incoming>) -> Value {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// An upload whose second half waits for the gate.
fn upload(proxy: SocketAddr, length: usize, mut gate: watch::Receiver<bool>) -> Request<Body> {
    let half = length / 2;
    let first = stream::once(async move { Bytes::from(vec![1; half]) });
    let second = stream::once(async move {
        gate.wait_for(|open| *open).await.unwrap();
        Bytes::from(vec![2; length - half])
    });
    Request::post(format!("http://{proxy}/v1/process/audio?name=call"))
        .header("content-length", length)
        .body(Body::from_stream(
            first.chain(second).map(Ok::<_, Infallible>),
        ))
        .unwrap()
}

/// Waits until the API has let in so many requests in all.
async fn accepted(symbl: &MockSymbl, requests: usize) {
    let all = async {
        while symbl.api_requests() - symbl.rejections() < requests {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let all = tokio::time::timeout(Duration::from_secs(20), all).await;
    all.unwrap_or_else(|_| panic!("{requests} requests were to be accepted: {symbl:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_concurrent_uploads_survive_two_revocations_at_three_fetches() {
    let symbl = MockSymbl::start().await.unwrap();
    let proxy = proxy(&symbl).await;
    // Over one connection: the sockets of this process are few enough as it is.
    let caller = caller(true);
    let (open, gate) = watch::channel(false);
    let mut uploads = Vec::new();
    for (lookups, wave) in [0..100, 100..150, 150..200_usize].into_iter().enumerate() {
        if wave.start > 0 {
            // As no upload has been answered, another answer has to say that the token was good.
            let lookup = Request::get(format!("http://{proxy}/texts/1"));
            let lookup = lookup.body(Body::empty()).unwrap();
            let answer = caller.request(lookup).await.unwrap();
            assert_eq!(answer.status(), StatusCode::NOT_FOUND);
            symbl.revoke_tokens();
        }
        let all = wave.end;
        for number in wave {
            let (caller, gate) = (caller.clone(), gate.clone());
            uploads.push(tokio::spawn(async move {
                let length = 200_000 + number;
                let answer = caller.request(upload(proxy, length, gate)).await.unwrap();
                (length, answer)
            }));
        }
        accepted(&symbl, all + lookups).await; // and none of them has ended, for the gate is closed
    }
    open.send(true).unwrap();
    for upload in join_all(uploads).await {
        let (length, answer) = upload.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        let conversation = json_of(answer).await["conversationId"]
            .as_str()
            .unwrap()
            .to_owned();
        let texts = Request::get(format!("http://{proxy}/texts/{conversation}"));
        let texts = caller
            .request(texts.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(
            json_of(texts).await,
            json!({ "texts": [format!("{length} bytes")] })
        );
    }
    assert_eq!(symbl.token_requests(), 3);
    assert!(symbl.rejections() >= 2, "{symbl:?}");
}

#[tokio::test]
async fn token_trouble_is_answered_with_retry_after_in_whole_seconds_rounded_up() {
    for (reply, status, delays) in [
        (
            TokenReply::RetryAfter(StatusCode::TOO_MANY_REQUESTS, Duration::from_secs(7)),
            StatusCode::SERVICE_UNAVAILABLE,
            7..=7,
        ),
        (
            TokenReply::RetryAfter(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(9)),
            StatusCode::SERVICE_UNAVAILABLE,
            9..=9,
        ),
        // A cool-down of 5 s, less up to half of it.
        (
            TokenReply::Status(StatusCode::UNAUTHORIZED),
            StatusCode::BAD_GATEWAY,
            3..=5,
        ),
    ] {
        let symbl = MockSymbl::start().await.unwrap();
        symbl.next_token_responses([reply]);
        let proxy = proxy(&symbl).await;
        for path in ["/texts/1", "/v1/job/1"] {
            let request = Request::get(format!("http://{proxy}{path}"));
            let request = request.body(Body::empty()).unwrap();
            let answer = caller(false).request(request).await.unwrap();
            assert_eq!(answer.status(), status);
            let delay = answer.headers()[RETRY_AFTER].to_str().unwrap();
            assert!(
                delays.contains(&delay.parse::<u64>().unwrap()),
                "{path}: {delay}"
            );
        }
        assert_eq!((symbl.token_requests(), symbl.api_requests()), (1, 0));
    }
}

#[tokio::test]
async fn an_api_that_hangs_up_is_a_bad_gateway_and_its_errors_come_through_as_they_are() {
    let symbl = MockSymbl::start().await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let origin: tower_symbl_auth::Origin = origin.parse().unwrap();
    let layer = tower_symbl_auth::SymblAuthLayer::builder(symbl.fetch_token());
    let dead = serve(app::app(&layer.origins([origin.clone()]).build(), origin)).await;
    let alive = proxy(&symbl).await;
    for (proxy, status) in [
        (dead, StatusCode::BAD_GATEWAY),
        (alive, StatusCode::NOT_FOUND),
    ] {
        for path in ["/texts/1", "/v1/job/1"] {
            let request = Request::get(format!("http://{proxy}{path}"));
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(
                caller(false).request(request).await.unwrap().status(),
                status,
                "{path}"
            );
        }
    }
}

/// An API that remembers the headers it was sent, and says what it read.
async fn api() -> (SocketAddr, Arc<Mutex<HeaderMap>>) {
    let seen = Arc::new(Mutex::new(HeaderMap::new()));
    let headers = Arc::clone(&seen);
    let api = Router::new().fallback(any(move |request: extract::Request| async move {
        *headers.lock().unwrap() = request.headers().clone();
        let mut response = Response::new(request.into_body());
        let headers = response.headers_mut();
        headers.insert("connection", "x-private".parse().unwrap());
        headers.insert("x-private", "1".parse().unwrap());
        headers.insert("x-public", "1".parse().unwrap());
        response
    }));
    (serve(api).await, seen)
}

#[tokio::test]
async fn the_callers_credentials_and_hop_by_hop_headers_stay_behind() {
    let symbl = MockSymbl::start().await.unwrap();
    let (api, seen) = api().await;
    let origin: tower_symbl_auth::Origin = format!("http://{api}").parse().unwrap();
    let layer = tower_symbl_auth::SymblAuthLayer::builder(symbl.fetch_token())
        .origins([origin.clone()])
        .build();
    let proxy = serve(app::app(&layer, origin)).await;
    let request = Request::post(format!("http://{proxy}/v1/any?x=1"))
        .header("authorization", "Bearer the-callers")
        .header("x-api-key", "the-callers")
        .header("cookie", "the-callers")
        .header("connection", "x-hop, keep-alive")
        .header("x-hop", "1")
        .header("te", "trailers")
        .header("x-kept", "1")
        .body(Body::from("hello"))
        .unwrap();
    let answer = caller(false).request(request).await.unwrap();
    let token = layer.token().await.unwrap();
    let sent = seen.lock().unwrap().clone();
    assert_eq!(
        sent["authorization"],
        format!("Bearer {}", token.expose_secret())
    );
    assert_ne!(sent.get("host"), Some(&proxy.to_string().parse().unwrap()));
    assert_eq!(sent["content-length"], "5");
    assert_eq!(sent["x-kept"], "1");
    for name in [
        "x-api-key",
        "cookie",
        "connection",
        "x-hop",
        "te",
        "transfer-encoding",
    ] {
        assert!(!sent.contains_key(name), "{name}");
    }
    assert!(answer.headers().contains_key("x-public"));
    assert!(!answer.headers().contains_key("x-private"));
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "hello"
    );
}

/// Sends a request as it stands, and reads the answer's status.
async fn raw(address: SocketAddr, request: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer["HTTP/1.1 ".len()..][..3].parse().unwrap()
}

#[tokio::test]
async fn whatever_host_the_caller_names_only_the_api_is_called() {
    let symbl = MockSymbl::start().await.unwrap();
    let proxy = proxy(&symbl).await;
    // Another server, to be called by nobody.
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = elsewhere.local_addr().unwrap();
    let called = tokio::spawn(async move { elsewhere.accept().await });
    let requests = [
        format!("GET /v1/job/1 HTTP/1.1\r\nHost: {other}\r\n"),
        format!("GET http://{other}/v1/job/1 HTTP/1.1\r\nHost: {other}\r\n"),
        format!("GET http://{other}/v1/job/1 HTTP/1.1\r\nHost: {proxy}\r\n"),
        format!("GET http://user@{other}/v1/job/1?x=@{other} HTTP/1.1\r\nHost: {other}\r\n"),
        format!("GET //{other}/v1/job/1 HTTP/1.1\r\nHost: {proxy}\r\n"),
        format!("CONNECT {other} HTTP/1.1\r\nHost: {other}\r\n"),
        format!("OPTIONS * HTTP/1.1\r\nHost: {other}\r\n"),
        format!("GET /texts/1 HTTP/1.1\r\nHost: {other}\r\n"),
    ];
    for request in requests {
        let request = format!("{request}Connection: close\r\n\r\n");
        assert_eq!(raw(proxy, &request).await, 404, "{request}");
    }
    // The API has no such job. The paths that are not its own, the app has answered.
    assert_eq!((symbl.api_requests(), symbl.rejections()), (5, 0));
    assert!(!called.is_finished());
}

#[tokio::test]
async fn accepted_connections_do_without_nagles_algorithm() {
    let mut listener = app::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let caller = TcpStream::connect(address).await.unwrap();
    let (accepted, _) = listener.accept().await;
    assert!(accepted.nodelay().unwrap());
    drop(caller);
}

/// The API echoes a body that has not ended yet.
#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let symbl = MockSymbl::start().await.unwrap();
    let (api, _) = api().await;
    let origin: tower_symbl_auth::Origin = format!("http://{api}").parse().unwrap();
    let layer = tower_symbl_auth::SymblAuthLayer::builder(symbl.fetch_token())
        .origins([origin.clone()])
        .build();
    let proxy = serve(app::app(&layer, origin)).await;
    let (feed, frames) = futures::channel::mpsc::unbounded::<Frame<Bytes>>();
    let body = Body::new(http_body_util::StreamBody::new(
        frames.map(Ok::<_, Infallible>),
    ));
    let request = Request::post(format!("http://{proxy}/v1/echo"))
        .body(body)
        .unwrap();
    let head = tokio::time::timeout(Duration::from_secs(5), caller(false).request(request)).await;
    let mut echo = head.unwrap().unwrap().into_body();
    for word in ["one", "two", "three"] {
        feed.unbounded_send(Frame::data(word.into())).unwrap();
        let frame = tokio::time::timeout(Duration::from_secs(5), echo.frame()).await;
        assert_eq!(frame.unwrap().unwrap().unwrap().into_data().unwrap(), word);
    }
}
