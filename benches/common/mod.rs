//! What the benchmarks measure: requests of several shapes through several stacks, all around a service
//! that does nothing.
#![allow(unreachable_pub)]
#![allow(
    dead_code,
    unused_imports,
    reason = "each benchmark uses its own part of it"
)]

use std::{
    cell::RefCell,
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tower::{BoxError, Service, service_fn};
use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenRequest};

pub use requests::{Frames, HEADERS, SHAPES, Shape, URL, request};
pub use stacks::{STACKS, Stack, future_size, send, sender};

pub mod bars;
pub mod careful;
pub mod instructions;
pub mod on_401;
pub mod requests;
pub mod stacks;
pub mod tokens;

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
