//! What the benchmarks measure: requests of several shapes through several stacks, all around a service
//! that does nothing.
#![allow(unreachable_pub)]
#![allow(dead_code, reason = "each benchmark uses its own part of it")]

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Layer, Service, ServiceExt, retry::Policy, service_fn};
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

/// Reads the body to its end, and does nothing else.
#[derive(Clone, Copy)]
pub struct Reads;

impl<B> Service<Request<B>> for Reads
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
{
    type Response = Response<()>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        async move {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                let _ = black_box(frame.is_ok());
            }
            Ok(Response::new(()))
        }
        .boxed()
    }
}

// === requests ===

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Get,
    GetOneHeader,
    PostThreeHeaders,
    PostTwelveHeaders,
    Streamed,
    OverLimit,
}

pub const SHAPES: [Shape; 6] = [
    Shape::Get,
    Shape::GetOneHeader,
    Shape::PostThreeHeaders,
    Shape::PostTwelveHeaders,
    Shape::Streamed,
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
            Self::OverLimit => "POST, over the limit",
        }
    }
}

const URL: &str = "https://api.symbl.ai/v1/conversations/5815170693595136/messages";
static HEADERS: [(&str, &str); 12] = [
    ("content-type", "application/json"),
    ("accept", "application/json"),
    ("user-agent", "bench/1"),
    ("x-request-id", "8f2d0b5e-5c7c-4d53-9d5e-2e6f6f4f3b11"),
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
        Shape::Streamed | Shape::OverLimit => unreachable!("these have bodies of another type"),
    };
    head(method, headers)
        .body(Full::new(body))
        .expect("it is a valid request")
}

/// `frames` of one piece of memory, as of a file that is mapped.
pub struct Frames {
    frame: Bytes,
    left: usize,
    hint: Option<u64>,
}

pub fn streamed(frame: &Bytes, frames: usize, told: bool) -> Request<Frames> {
    let hint = told.then_some((frame.len() * frames) as u64);
    let body = Frames {
        frame: frame.clone(),
        left: frames,
        hint,
    };
    head("POST", 3).body(body).expect("it is a valid request")
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.frame.clone()))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.hint {
            Some(_) => SizeHint::with_exact((self.left * self.frame.len()) as u64),
            None => SizeHint::default(),
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

/// Sends a request through a service that never waits.
pub fn send<S, B>(service: &mut S, request: Request<B>)
where
    S: Service<Request<B>, Response = Response<()>>,
    S::Error: std::fmt::Debug,
{
    let ready = service.ready().now_or_never();
    let ready = ready.expect("it is ready").expect("it never fails");
    let response = ready.call(request).now_or_never();
    black_box(
        response
            .expect("it answers at once")
            .expect("it never fails"),
    );
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
        (Shape::Streamed | Shape::OverLimit, _) => {
            let (size, frames) = match shape {
                Shape::Streamed => (16 * 1024, 16),
                _ => (1024 * 1024, 2),
            };
            let told = shape == Shape::OverLimit;
            let frame = Bytes::from(vec![b'x'; size]);
            let make = move || streamed(&frame, frames, told);
            match stack {
                Stack::Bare => closure(Reads, make),
                Stack::AddAuthorization => closure(add.layer(Reads), make),
                // It cannot clone a stream: what a user would write here is no retry at all.
                Stack::HandWritten => closure(add.layer(Reads), make),
                Stack::Ours => closure(ours.layer(Reads), make),
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
