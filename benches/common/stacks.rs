//! What a request goes through.

use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use http::{Request, Response};
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_symbl_auth::SymblAuthLayer;

use super::{
    Nothing, Reads,
    careful::CarefulLayer,
    on_401::On401,
    requests::{Frames, Shape, request},
    shared, token,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    Bare,
    AddAuthorization,
    /// Adds a fixed token, to whichever host.
    HandWritten,
    Careful,
    Ours,
}

pub const STACKS: [Stack; 5] = [
    Stack::Bare,
    Stack::AddAuthorization,
    Stack::HandWritten,
    Stack::Careful,
    Stack::Ours,
];

impl Stack {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::AddAuthorization => "AddAuthorization",
            Self::HandWritten => "naive hand-written",
            Self::Careful => "careful hand-written",
            Self::Ours => "ours",
        }
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
    let careful = CarefulLayer::new(&token());
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
                Stack::Careful => closure(careful.layer(reads), make),
                Stack::Ours => closure(ours.layer(reads), make),
            }
        }
        (shape, Stack::Bare) => closure(Nothing, move || request(shape)),
        (shape, Stack::AddAuthorization) => closure(add.layer(Nothing), move || request(shape)),
        (shape, Stack::HandWritten) => {
            closure(retry().layer(add.layer(Nothing)), move || request(shape))
        }
        (shape, Stack::Careful) => closure(retry().layer(careful.layer(Nothing)), move || {
            request(shape)
        }),
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
