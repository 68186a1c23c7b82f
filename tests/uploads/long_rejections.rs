//! Rule J7: what a rejection of 64 KiB holds while a token is fetched, it holds for a second.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::join_all};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    task::JoinHandle,
    time::{Instant, advance},
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_symbl_auth::{AccessToken, FetchReason, NotRetried, SymblAuthLayer, TokenRequest};

use crate::{
    clock::{self, until},
    server::{Connections, serve_counting},
};

const SECOND: Duration = Duration::from_secs(1);
const LONG: usize = 64 * 1024;

/// Answers `/bad` with 401, and all else with 200, at length.
async fn api() -> (SocketAddr, Arc<Connections>) {
    serve_counting(|request: Request<Incoming>| async move {
        let mut answer = Response::new(Full::from(vec![7; LONG]));
        if request.uri().path() == "/bad" {
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
        }
        answer
    })
    .await
}

/// A client whose second token never comes, and how many 401s have come to its layer.
fn client(
    api: SocketAddr,
    h2: bool,
) -> (
    impl Service<Request<Empty<Bytes>>, Response = Response<Incoming>, Error = BoxError, Future: Send>
    + Clone,
    Arc<AtomicUsize>,
) {
    let tokens = tower::service_fn(|request: TokenRequest| {
        let first = request.reason() == FetchReason::First;
        async move {
            if !first {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(AccessToken::new("token-1", 3600 * SECOND)?)
        }
    });
    let origin = format!("http://{api}").parse().unwrap();
    let layer = SymblAuthLayer::builder(tokens).origins([origin]).build();
    let rejections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&rejections);
    let client = ServiceBuilder::new()
        .layer(layer)
        .map_response(move |answer: Response<Incoming>| {
            if answer.status() == StatusCode::UNAUTHORIZED {
                count.fetch_add(1, Ordering::SeqCst);
            }
            answer
        })
        .service(
            Client::builder(TokioExecutor::new())
                .http2_only(h2)
                .build_http(),
        );
    (client, rejections)
}

fn get(api: SocketAddr, path: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("http://{api}{path}"));
    request.body(Empty::new()).unwrap()
}

/// Whether its 401 was handed back for want of a token. It is dropped unread, as callers do.
fn is_handed_back(answer: Result<Response<Incoming>, BoxError>) -> bool {
    let answer = answer.unwrap();
    matches!(answer.extensions().get(), Some(NotRetried::Token(_)))
}

/// A hundred of them are more than the window that hyper's client gives a connection.
#[tokio::test(start_paused = true)]
async fn a_hundred_long_rejections_hold_up_others_on_their_connection_for_a_second_at_most() {
    let _clock = clock::hold();
    let (api, connections) = api().await;
    let (client, rejections) = client(api, true);
    let good = || {
        let answer = client.clone().oneshot(get(api, "/good"));
        async move {
            let body = answer.await.unwrap().into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes().len(), LONG);
        }
    };
    good().await;
    let bad = (0..100).map(|_| client.clone().oneshot(get(api, "/bad")).map(is_handed_back));
    let bad: Vec<_> = bad.map(tokio::spawn).collect();
    until(|| rejections.load(Ordering::SeqCst) == 100).await;
    let others = tokio::spawn(join_all((0..10).map(|_| good())));

    advance(SECOND).await;
    until(|| others.is_finished()).await;
    others.await.unwrap();
    until(|| bad.iter().all(JoinHandle::is_finished)).await;
    for answer in bad {
        assert!(answer.await.unwrap());
    }
    assert_eq!(connections.all(), 1);
}

/// Over HTTP/1.1 each holds a connection: as many as the caller's own limit allows, and while they are being closed, as
/// many again.
#[tokio::test(start_paused = true)]
async fn with_a_limit_of_four_long_rejections_hold_four_connections_for_a_second() {
    let _clock = clock::hold();
    let (api, connections) = api().await;
    let (client, rejections) = client(api, false);
    let limited = ServiceBuilder::new().concurrency_limit(4).service(client);
    let begun = Instant::now();
    let bad = (0..40).map(|_| {
        limited
            .clone()
            .oneshot(get(api, "/bad"))
            .map(is_handed_back)
    });
    let bad: Vec<_> = bad.map(tokio::spawn).collect();
    for second in 1..=10 {
        until(|| rejections.load(Ordering::SeqCst) == 4 * second).await;
        until(|| connections.open() == 4).await; // those before have been closed
        advance(SECOND).await;
    }
    until(|| bad.iter().all(JoinHandle::is_finished)).await;
    for answer in bad {
        assert!(answer.await.unwrap());
    }
    assert_eq!(begun.elapsed(), 10 * SECOND);
    let most = connections.most();
    assert!((4..=8).contains(&most), "{most}");
}
