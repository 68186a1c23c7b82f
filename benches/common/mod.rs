//! What the benchmarks measure: requests of several shapes through several stacks, all around a service
//! that does nothing.
#![allow(unreachable_pub)]
#![allow(dead_code, reason = "each benchmark uses its own part of it")]

use std::{
    cell::RefCell,
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Layer, Service, retry::Policy, service_fn};
use tower_http::auth::AddAuthorizationLayer;
use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenRequest};

pub mod bars;

/// As long as a recorded Symbl token is, about.
pub fn token() -> String {
    "t".repeat(400)
}

/// A layer that has a live token.
pub async fn layer_with_token() -> SymblAuthLayer {
    let fetch = service_fn(|_: TokenRequest| async {
        let token = AccessToken::new(token(), Duration::from_secs(86_400))?;
        Ok::<_, BoxError>(token)
    });
    let layer = SymblAuthLayer::builder(fetch).build();
    layer.token().await.expect("the token service never fails");
    layer
}

// === the service that does nothing ===

#[derive(Clone, Copy)]
pub struct Nothing;

impl<B> Service<Request<B>> for Nothing {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::new(())))
    }
}

/// Polls the body to its end.
#[derive(Clone, Copy)]
pub enum Reads {
    /// And does nothing else.
    Nothing,
    /// And copies it out, frame by frame.
    Copying,
}

thread_local! {
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<B> Service<Request<B>> for Reads
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Response = Response<()>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let copies = matches!(self, Self::Copying);
        async move {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                let frame = black_box(frame.ok());
                let data = frame.and_then(|frame| frame.into_data().ok());
                if let (true, Some(data)) = (copies, data) {
                    OUT.with_borrow_mut(|out| {
                        out.clear();
                        out.extend_from_slice(&data);
                        black_box(out);
                    });
                }
            }
            Ok(Response::new(()))
        }
        .boxed()
    }
}

/// So many bytes, of which clones and slices share the memory from the first on.
pub fn shared(length: usize) -> Bytes {
    let bytes = Bytes::from(vec![b'x'; length]);
    drop(bytes.clone());
    bytes
}

// === requests ===

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Get,
    GetOneHeader,
    PostThreeHeaders,
    PostTwelveHeaders,
    /// Each frame is copied out, as into a socket.
    Streamed,
    /// Nothing is done with the frames: all that takes time is handing them on.
    Unread,
    OverLimit,
}

pub const SHAPES: [Shape; 7] = [
    Shape::Get,
    Shape::GetOneHeader,
    Shape::PostThreeHeaders,
    Shape::PostTwelveHeaders,
    Shape::Streamed,
    Shape::Unread,
    Shape::OverLimit,
];

impl Shape {
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::GetOneHeader => "GET, 1 header",
            Self::PostThreeHeaders => "POST, 3 headers, 512 bytes",
            Self::PostTwelveHeaders => "POST, 12 headers, 512 bytes",
            Self::Streamed => "POST, 16 frames of 16 KiB",
            Self::Unread => "POST, 16 frames of 16 KiB, not read",
            Self::OverLimit => "POST, over the limit",
        }
    }
}

const URL: &str = "https://api.symbl.ai/v1/conversations/5815170693595136/messages";
static HEADERS: [(&str, &str); 12] = [
    ("content-type", "application/json"),
    ("accept", "application/json"),
    ("x-request-id", "8f2d0b5e-5c7c-4d53-9d5e-2e6f6f4f3b11"),
    ("user-agent", "bench/1"),
    ("accept-encoding", "gzip, br"),
    ("accept-language", "en"),
    ("cache-control", "no-cache"),
    (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    ("x-tenant", "acme"),
    ("x-feature", "trackers"),
    ("idempotency-key", "0b5e5c7c4d53"),
    ("prefer", "wait=10"),
];

fn head(method: &str, headers: usize) -> http::request::Builder {
    let mut request = Request::builder().method(method).uri(URL);
    for (name, value) in &HEADERS[..headers] {
        request = request.header(*name, HeaderValue::from_static(value));
    }
    request
}

pub fn request(shape: Shape) -> Request<Full<Bytes>> {
    static BODY: [u8; 512] = [b'x'; 512];
    let (method, headers, body) = match shape {
        Shape::Get => ("GET", 0, Bytes::new()),
        Shape::GetOneHeader => ("GET", 1, Bytes::new()),
        Shape::PostThreeHeaders => ("POST", 3, Bytes::from_static(&BODY)),
        Shape::PostTwelveHeaders => ("POST", 12, Bytes::from_static(&BODY)),
        Shape::Streamed | Shape::Unread | Shape::OverLimit => {
            unreachable!("these have bodies of another type")
        }
    };
    head(method, headers)
        .body(Full::new(body))
        .expect("it is a valid request")
}

/// What is in memory, frame by frame.
pub struct Frames {
    pub content: Bytes,
    pub frame: usize,
    /// Whether the length is told in advance.
    pub told: bool,
}

impl Frames {
    pub fn request(self) -> Request<Self> {
        head("POST", 3).body(self).expect("it is a valid request")
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.content.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.frame.min(self.content.len());
        let frame = self.content.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.told {
            true => SizeHint::with_exact(self.content.len() as u64),
            false => SizeHint::default(),
        }
    }
}

// === stacks ===

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    Bare,
    AddAuthorization,
    HandWritten,
    Ours,
}

pub const STACKS: [Stack; 4] = [
    Stack::Bare,
    Stack::AddAuthorization,
    Stack::HandWritten,
    Stack::Ours,
];

impl Stack {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::AddAuthorization => "AddAuthorization",
            Self::HandWritten => "hand-written",
            Self::Ours => "ours",
        }
    }
}

/// What a user would write: a retry on 401, for which each request is cloned.
#[derive(Clone)]
pub struct On401;

impl<B: Clone, R, E> Policy<Request<B>, Response<R>, E> for On401 {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _request: &mut Request<B>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<Ready<()>> {
        let rejected = |response: &Response<R>| response.status() == StatusCode::UNAUTHORIZED;
        result.as_ref().is_ok_and(rejected).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

/// Sends a request through a service that never waits. The future is polled where it is made, as when it
/// is awaited.
pub fn send<S, B>(service: &mut S, request: Request<B>)
where
    S: Service<Request<B>, Response = Response<()>>,
    S::Error: std::fmt::Debug,
{
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(ready) = service.poll_ready(&mut cx) else {
        unreachable!("it is ready");
    };
    ready.expect("it never fails");
    let response = pin!(service.call(request));
    let Poll::Ready(response) = response.poll(&mut cx) else {
        unreachable!("it answers at once");
    };
    black_box(response.expect("it never fails"));
}

/// The size of the future that a service answers with.
pub fn future_size<S: Service<R>, R>(_service: &S, _request: &R) -> usize {
    size_of::<S::Future>()
}

/// One request of that shape through that stack, as a closure to be called again and again; and the
/// size of the stack's future.
pub fn sender(stack: Stack, shape: Shape, ours: &SymblAuthLayer) -> (Box<dyn FnMut()>, usize) {
    let add = AddAuthorizationLayer::bearer(&token());
    let retry = || tower::retry::RetryLayer::new(On401);
    match (shape, stack) {
        (Shape::Streamed | Shape::Unread | Shape::OverLimit, _) => {
            let told = shape == Shape::OverLimit;
            let (length, frame) = if told {
                (2 << 20, 1 << 20)
            } else {
                (256 << 10, 16 << 10)
            };
            let content = shared(length);
            let make = move || {
                let content = content.clone();
                Frames {
                    content,
                    frame,
                    told,
                }
                .request()
            };
            let reads = match shape {
                Shape::Streamed => Reads::Copying,
                _ => Reads::Nothing,
            };
            match stack {
                Stack::Bare => closure(reads, make),
                Stack::AddAuthorization => closure(add.layer(reads), make),
                // It cannot clone a stream: what a user would write here is no retry at all.
                Stack::HandWritten => closure(add.layer(reads), make),
                Stack::Ours => closure(ours.layer(reads), make),
            }
        }
        (shape, Stack::Bare) => closure(Nothing, move || request(shape)),
        (shape, Stack::AddAuthorization) => closure(add.layer(Nothing), move || request(shape)),
        (shape, Stack::HandWritten) => {
            closure(retry().layer(add.layer(Nothing)), move || request(shape))
        }
        (shape, Stack::Ours) => closure(ours.layer(Nothing), move || request(shape)),
    }
}

fn closure<S, B>(
    mut service: S,
    make: impl Fn() -> Request<B> + 'static,
) -> (Box<dyn FnMut()>, usize)
where
    S: Service<Request<B>, Response = Response<()>> + 'static,
    S::Error: std::fmt::Debug,
    S::Future: Future,
    B: 'static,
{
    let size = future_size(&service, &make());
    (Box::new(move || send(&mut service, make())), size)
}
