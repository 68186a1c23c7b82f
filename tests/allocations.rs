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

/// Allocations of one request through a service; the request itself is made before. Of a few the least
/// counts: once in 100 ms a request looks at the wall clock, and puts down when it did.
fn cost<S, B>(mut service: S, request: impl Fn() -> Request<B>) -> u64
where
    S: Service<Request<B>, Response = Response<()>>,
    S::Error: std::fmt::Debug,
{
    let mut cx = Context::from_waker(futures::task::noop_waker_ref());
    let mut measure = || {
        let request = request();
        allocation_counter::measure(|| {
            assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
            service.call(request).now_or_never().unwrap().unwrap();
        })
    };
    let costs = (0..5).map(|_| measure().count_total);
    costs.min().unwrap()
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

/// What a request costs beyond one with a fixed header.
fn more<B>(request: impl Fn() -> Request<B>) -> u64
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin,
{
    let fixed = AddAuthorizationLayer::bearer(&"t".repeat(400));
    cost(layer().layer(Nothing), &request) - cost(fixed.layer(Nothing), &request)
}

#[test]
fn a_request_costs_one_allocation_more_than_a_fixed_header() {
    let get = || Request::get(URL).body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(more(get), 0);
    assert_eq!(more(|| post(Full::new(Bytes::from(vec![b'x'; 512])))), 1);
}

#[test]
fn whatever_the_body_is_there_is_no_second_allocation() {
    fn bare<B>(body: B) -> Request<B> {
        Request::post(URL).body(body).unwrap()
    }
    let memory = || Full::new(Bytes::from(vec![b'x'; 512]));
    let constant = || Full::new(Bytes::from_static(b"static"));

    assert_eq!(more(|| bare(Empty::<Bytes>::new())), 0);
    assert_eq!(more(|| bare(Full::new(Bytes::new()))), 0);
    assert_eq!(more(|| bare(memory())), 1);
    assert_eq!(more(|| bare(constant())), 1);
    assert_eq!(more(|| bare(OverLimit)), 1);

    // What of the headers has to be saved finds room in the same one.
    assert_eq!(more(|| post(Empty::<Bytes>::new())), 1);
    assert_eq!(more(|| post(memory())), 1);
    assert_eq!(more(|| post(constant())), 1);
    assert_eq!(more(|| post(OverLimit)), 1);
}
