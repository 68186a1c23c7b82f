//! Rule R2, and what a request with a live token may cost: one allocation more than a fixed header.
#![allow(clippy::unwrap_used)]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Empty, Full};
use tower::{BoxError, Layer, Service, service_fn};
use tower_http::auth::AddAuthorizationLayer;
use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenRequest};

#[derive(Clone)]
struct Nothing;

impl<B> Service<Request<B>> for Nothing {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        black_box(request);
        ready(Ok(Response::new(())))
    }
}

/// Says that it is longer than it is allowed to be.
#[derive(Clone)]
struct OverLimit;

impl Body for OverLimit {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        unreachable!("nobody reads it")
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(1 << 30)
    }
}

/// Allocations of one request through a service; the request itself is made before.
fn cost<S, B>(mut service: S, request: Request<B>) -> u64
where
    S: Service<Request<B>, Response = Response<()>>,
    S::Error: std::fmt::Debug,
{
    allocation_counter::measure(|| {
        let mut cx = Context::from_waker(futures::task::noop_waker_ref());
        assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        service.call(request).now_or_never().unwrap().unwrap();
    })
    .count_total
}

fn layer() -> SymblAuthLayer {
    let tokens = service_fn(|_: TokenRequest| async {
        let token = AccessToken::new("t".repeat(400), Duration::from_secs(86_400))?;
        Ok::<_, BoxError>(token)
    });
    let layer = SymblAuthLayer::builder(tokens).build();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(layer.token()).unwrap();
    layer
}

const URL: &str = "https://api.symbl.ai/v1/conversations/5815170693595136/messages";

fn post<B>(body: B) -> Request<B> {
    let request = Request::post(URL)
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .header("x-request-id", "8f2d0b5e-5c7c-4d53-9d5e-2e6f6f4f3b11");
    request.body(body).unwrap()
}

#[test]
fn a_request_costs_one_allocation_more_than_a_fixed_header() {
    let (ours, fixed) = (layer(), AddAuthorizationLayer::bearer(&"t".repeat(400)));
    let get = || Request::get(URL).body(Empty::<Bytes>::new()).unwrap();
    let json = || post(Full::new(Bytes::from(vec![b'x'; 512])));
    for _ in 0..10 {
        let (base, cost_of_get) = (
            cost(fixed.layer(Nothing), get()),
            cost(ours.layer(Nothing), get()),
        );
        assert!(cost_of_get <= base + 1, "GET: {cost_of_get} against {base}");
        let (base, cost_of_post) = (
            cost(fixed.layer(Nothing), json()),
            cost(ours.layer(Nothing), json()),
        );
        assert!(
            cost_of_post <= base + 1,
            "POST: {cost_of_post} against {base}"
        );
    }
}

#[test]
fn empty_in_memory_and_over_limit_bodies_allocate_nothing_for_their_sake() {
    let layer = layer();
    let with = |body| cost(layer.layer(Nothing), post(body));
    let empty = cost(layer.layer(Nothing), post(Empty::<Bytes>::new()));
    assert_eq!(with(Full::new(Bytes::from_static(b"static"))), empty);
    assert_eq!(with(Full::new(Bytes::from(vec![b'x'; 512]))), empty);
    assert_eq!(with(Full::new(Bytes::new())), empty);
    assert_eq!(cost(layer.layer(Nothing), post(OverLimit)), empty);
}
