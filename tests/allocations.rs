//! Rules R2 and R4, and what a request with a live token may cost: no allocation more than with a fixed header,
//! unless its body needs one.
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
use http_body_util::{BodyExt, Empty, Full};
use tower::{BoxError, Layer, Service, service_fn};
use tower_http::auth::AddAuthorizationLayer;
use tower_symbl_auth::{AccessToken, Builder, ReplayBody, SymblAuthLayer, TokenRequest};

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

/// Says that it is longer than it is allowed to be, and has nothing of it at hand.
#[derive(Clone)]
struct OverLimit;

impl Body for OverLimit {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
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
    layer_of(|builder| builder)
}

fn layer_of(settings: impl FnOnce(Builder) -> Builder) -> SymblAuthLayer {
    let tokens = service_fn(|_: TokenRequest| async {
        let token = AccessToken::new("t".repeat(400), Duration::from_secs(86_400))?;
        Ok::<_, BoxError>(token)
    });
    let layer = settings(SymblAuthLayer::builder(tokens)).build();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(layer.token()).unwrap();
    layer
}

/// The same, with a store for its token.
#[cfg(feature = "file-store")]
#[test]
fn a_store_costs_a_request_with_a_live_token_nothing() {
    use tower_symbl_auth::store::{FileStore, SealingKey};

    let folder = format!(
        "{}/allocations-{}",
        env!("CARGO_TARGET_TMPDIR"),
        std::process::id()
    );
    let store = FileStore::new(format!("{folder}/token"));
    let get = || Request::get(URL).body(Empty::<Bytes>::new()).unwrap();
    let with = layer_of(|builder| builder.store(store, SealingKey::new("secret", "app")));
    assert_eq!(
        cost(with.layer(Nothing), get),
        cost(layer().layer(Nothing), get)
    );
    assert!(
        std::fs::remove_dir_all(folder).is_ok(),
        "the store was not used"
    );
}

/// The roots of a platform are a hundred and more, which are read once a process. (Of other systems than Linux the
/// verifier asks the system itself.)
#[cfg(all(feature = "client", feature = "ring", target_os = "linux"))]
#[test]
fn a_thousand_layers_share_the_roots_that_the_first_has_read() {
    let layer = || SymblAuthLayer::new(tower_symbl_auth::Credentials::new("app-id", "app-secret"));
    let mut layers = Vec::with_capacity(1001);
    let first = allocation_counter::measure(|| layers.push(layer()));
    let others = allocation_counter::measure(|| layers.extend((0..1000).map(|_| layer())));
    assert!(first.bytes_total > 100_000, "there are no roots to read");
    assert!(others.bytes_total < 1000 * 4096, "{others:?}");
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
fn a_request_without_a_body_or_headers_allocates_nothing_beyond_a_fixed_header() {
    fn bare<B>(body: B) -> Request<B> {
        Request::post(URL).body(body).unwrap()
    }
    let constant = || Full::new(Bytes::from_static(b"static"));
    let boxed = || BodyExt::boxed(constant());
    let get = || Request::get(URL).body(Empty::<Bytes>::new()).unwrap();

    assert_eq!(more(get), 0);
    assert_eq!(more(|| bare(Empty::<Bytes>::new())), 0);
    assert_eq!(more(|| bare(Full::new(Bytes::new()))), 0);
    assert_eq!(more(|| bare(constant())), 0);
    assert_eq!(more(|| bare(boxed())), 0);
    // What has to be saved of the headers takes one.
    assert_eq!(more(|| post(Empty::<Bytes>::new())), 1);
    assert_eq!(more(|| post(constant())), 1);
    assert_eq!(more(|| post(boxed())), 1);
}

#[test]
fn whatever_the_body_is_there_is_one_allocation_at_most_and_one_for_headers() {
    fn bare<B>(body: B) -> Request<B> {
        Request::post(URL).body(body).unwrap()
    }
    // `Bytes` counts its references in an allocation of its own, from the second on.
    let memory = |length| Full::new(Bytes::from(vec![b'x'; length]));

    assert_eq!(more(|| bare(memory(512))), 1);
    assert_eq!(more(|| bare(memory(2 << 20))), 1);
    assert_eq!(more(|| bare(OverLimit)), 1);
    assert_eq!(more(|| post(memory(512))), 2);
    assert_eq!(more(|| post(OverLimit)), 1);
}

/// So many bytes, in frames of ten, each of which is a buffer of 8 KiB.
struct Tiny(usize);

impl Body for Tiny {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = (self.0 > 0).then(|| {
            self.0 -= 10;
            let mut buffer = Vec::with_capacity(8 * 1024);
            buffer.extend_from_slice(&[b'x'; 10]);
            Frame::data(buffer.into())
        });
        Poll::Ready(frame.map(Ok))
    }
}

/// R4
#[test]
fn frames_of_ten_bytes_in_large_buffers_hold_about_their_bytes() {
    const SENT: usize = 200_000;
    let inner = service_fn(|request: Request<ReplayBody<Tiny>>| async {
        let mut body = request.into_body();
        let held = allocation_counter::measure(|| {
            while let Some(Some(frame)) = body.frame().now_or_never() {
                drop(frame);
            }
        });
        println!("{held:?}");
        // As long as the request is not answered, what was sent is kept.
        let (most, now) = (held.bytes_max as usize, held.bytes_current as usize);
        assert!(now >= SENT, "all of it is kept");
        assert!(most < SENT * 3 / 2, "{most} bytes");
        Ok::<_, Infallible>(Response::new(()))
    });
    let mut service = layer().layer(inner);
    let request = Request::post(URL).body(Tiny(SENT)).unwrap();
    service.call(request).now_or_never().unwrap().unwrap();
}
