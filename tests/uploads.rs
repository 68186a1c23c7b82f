//! Rules R3, R5, R6, J7 and Q5 over real sockets, HTTP/1.1 and HTTP/2: uploads that are rejected before they
//! are read, in bounded memory; long streams; long rejections (`long_rejections.rs`); and upgrades.
//!
//! An HTTP/1.1 server that closes the connection on an upload it has not read is a matter for the connector: see
//! `early_response`.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{BoxError, Layer, ServiceExt};
use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenRequest};

mod clock;
#[path = "uploads/long_rejections.rs"]
mod long_rejections;
#[path = "uploads/server.rs"]
mod server;

use server::serve;

const MIB: usize = 1 << 20;

/// `token-1`, `token-2` and so on.
fn layer(address: SocketAddr, replay_limit: usize) -> SymblAuthLayer {
    let calls = Arc::new(AtomicUsize::new(1));
    let tokens = tower::service_fn(move |_: TokenRequest| {
        let token = format!("token-{}", calls.fetch_add(1, Ordering::Relaxed));
        async move { Ok::<_, BoxError>(AccessToken::new(token, Duration::from_secs(3600))?) }
    });
    SymblAuthLayer::builder(tokens)
        .origins([format!("http://{address}").parse().unwrap()])
        .replay_limit(replay_limit)
        .build()
}

fn is_first_token(headers: &HeaderMap) -> bool {
    headers["authorization"] == "Bearer token-1"
}

fn rejected<B: Default>() -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

/// Slices of one piece of memory, with the size hint of the whole.
struct Slices {
    rest: Bytes,
    frame: usize,
}

impl Body for Slices {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return std::task::Poll::Ready(None);
        }
        let length = self.frame.min(self.rest.len());
        std::task::Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// How the server treats the upload that it rejects.
#[derive(Clone, Copy, Debug)]
enum Unread {
    /// Never reads it, so that the first attempt is blocked on a full socket or window.
    Left,
    /// Reads it on after it has answered.
    Drained,
    /// Reads some of it first, then leaves it.
    Begun,
}

async fn upload(h2: bool, unread: Unread, content: Bytes) {
    let left = Arc::new(Mutex::new(Vec::new()));
    let expected = content.clone();
    let address = serve(move |request: Request<Incoming>| {
        let (left, expected) = (Arc::clone(&left), expected.clone());
        async move {
            let length = request.headers()["content-length"]
                .to_str()
                .unwrap()
                .to_owned();
            assert_eq!(length, expected.len().to_string());
            let first = is_first_token(request.headers());
            let mut body = request.into_body();
            if first {
                match unread {
                    Unread::Left => left.lock().unwrap().push(body),
                    Unread::Drained => {
                        // An upload that is taken over ends in an error, again and again.
                        tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
                    }
                    Unread::Begun => {
                        let mut read = 0;
                        while read < MIB {
                            let frame = body.frame().await.unwrap().unwrap();
                            read += frame.into_data().unwrap().len();
                        }
                        left.lock().unwrap().push(body);
                    }
                }
                return rejected::<Full<Bytes>>();
            }
            // Over HTTP/2 the two share a connection, and its flow-control window.
            left.lock().unwrap().clear();
            let mut read = 0;
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                assert_eq!(data, expected[read..read + data.len()], "in order");
                read += data.len();
            }
            assert_eq!(read, expected.len());
            Response::new(Full::default())
        }
    })
    .await;
    let client = Client::builder(TokioExecutor::new())
        .http2_only(h2)
        .build_http();
    let body = Slices {
        rest: content,
        frame: 16 * 1024,
    };
    let request = Request::post(format!("http://{address}/"))
        .body(body)
        .unwrap();
    let response = layer(address, 16 * MIB).layer(client).oneshot(request);
    let response = tokio::time::timeout(Duration::from_secs(30), response).await;
    assert_eq!(
        response.unwrap().unwrap().status(),
        StatusCode::OK,
        "{h2} {unread:?}"
    );
}

#[test]
fn sixteen_mebibytes_rejected_before_they_are_read_arrive_whole_in_bounded_memory() {
    let pattern = (0..16 * MIB as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8);
    let content = Bytes::from(pattern.collect::<Vec<_>>());
    assert_eq!(content.len(), 16_777_216);
    for h2 in [false, true] {
        for unread in [Unread::Left, Unread::Drained, Unread::Begun] {
            let allocated = allocation_counter::measure(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime
                    .unwrap()
                    .block_on(upload(h2, unread, content.clone()));
            });
            let peak = allocated.bytes_max;
            println!("h2: {h2}, {unread:?}: peak {peak} bytes");
            assert!(peak < 4 * MIB as u64, "h2: {h2}, {unread:?}: peak {peak}");
        }
    }
}

#[tokio::test]
async fn trailers_are_sent_again_with_the_body() {
    for h2 in [false, true] {
        let address = serve(|request: Request<Incoming>| async move {
            let first = is_first_token(request.headers());
            let body = request.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["x-sum"], "7");
            assert_eq!(body.to_bytes(), "onetwo");
            if first {
                rejected()
            } else {
                Response::new(Full::<Bytes>::default())
            }
        })
        .await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let frames = [
            Frame::data(Bytes::from("one")),
            Frame::data(Bytes::from("two")),
            Frame::trailers(trailers),
        ];
        let frames = futures::stream::iter(frames.map(Ok::<_, Infallible>));
        let request = Request::post(format!("http://{address}/")).header("trailer", "x-sum");
        let request = request.body(StreamBody::new(frames)).unwrap();
        let client = Client::builder(TokioExecutor::new())
            .http2_only(h2)
            .build_http();
        let response = layer(address, MIB)
            .layer(client)
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

/// Q5, R5
#[tokio::test]
async fn a_bidirectional_stream_runs_on_and_keeps_nothing() {
    let address =
        serve(|request: Request<Incoming>| async move { Response::new(request.into_body()) }).await;
    struct Owned(Vec<u8>, Arc<AtomicUsize>);
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Owned {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let alive = Arc::new(AtomicUsize::new(0));
    let (feed, frames) = futures::channel::mpsc::unbounded::<Frame<Bytes>>();
    let body = StreamBody::new(frames.map(Ok::<_, Infallible>));
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let request = Request::post(format!("http://{address}/"))
        .body(body)
        .unwrap();
    let response = layer(address, 1 << 30)
        .layer(client)
        .oneshot(request)
        .await
        .unwrap();
    let mut echo = response.into_body();
    for _ in 0..1000 {
        alive.fetch_add(1, Ordering::Relaxed);
        let frame = Bytes::from_owner(Owned(vec![7; 1024], Arc::clone(&alive)));
        feed.unbounded_send(Frame::data(frame)).unwrap();
        let mut read = 0;
        while read < 1024 {
            read += echo
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap()
                .len();
        }
        assert!(alive.load(Ordering::Relaxed) <= 2);
    }
}

/// Q5
#[tokio::test]
async fn an_upgrade_works_also_after_a_rejection() {
    let address = serve(|mut request: Request<Incoming>| async move {
        if is_first_token(request.headers()) {
            return rejected::<Empty<Bytes>>();
        }
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let mut stream = TokioIo::new(upgraded);
            let mut ping = [0; 4];
            stream.read_exact(&mut ping).await.unwrap();
            stream.write_all(b"pong").await.unwrap();
            pending::<()>().await;
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let response = response
            .header("connection", "upgrade")
            .header("upgrade", "ping");
        response.body(Empty::new()).unwrap()
    })
    .await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(format!("http://{address}/"))
        .header("connection", "upgrade")
        .header("upgrade", "ping")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = layer(address, MIB)
        .layer(client)
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    stream.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"pong");
}
