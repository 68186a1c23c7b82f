//! The requests, and the service that does nothing with them.

use std::{
    convert::Infallible,
    fmt::Debug,
    future::{Ready, ready},
    hint::black_box,
    marker::PhantomData,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Full;
use tower::{Service, ServiceExt};

pub const ORIGIN: &str = "https://api.symbl.ai";
pub const URL: &str = "https://api.symbl.ai/v1/conversations/5815170693595136/messages";
pub static BODY: [u8; 512] = [b'x'; 512];
pub static HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/json"),
    ("accept", "application/json"),
    ("x-request-id", "8f2d0b5e-5c7c-4d53-9d5e-2e6f6f4f3b11"),
];

#[derive(Clone, Copy)]
pub enum Shape {
    Get,
    Post,
}

pub const SHAPES: [Shape; 2] = [Shape::Get, Shape::Post];

impl Shape {
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET, no headers",
            Self::Post => "POST, 3 headers, 512 bytes",
        }
    }

    pub fn request(self) -> Request<Full<Bytes>> {
        let built = match self {
            Self::Get => Request::get(URL).body(Full::default()),
            Self::Post => HEADERS
                .iter()
                .fold(Request::post(URL), |request, (name, value)| {
                    request.header(*name, HeaderValue::from_static(value))
                })
                .body(Full::new(Bytes::from_static(&BODY))),
        };
        built.expect("it is a valid request")
    }
}

/// A token as long as a recorded one, with a number that it can be told by.
pub fn token(number: usize) -> String {
    format!("{number:0>400}")
}

/// The number of the token that a request is stamped with.
pub fn number_of(headers: &HeaderMap) -> usize {
    let value = headers.get("authorization").expect("it is stamped");
    let value = value.to_str().expect("it is ASCII");
    let digits = value.trim_start_matches("Bearer ");
    digits.parse().expect("the token is a number")
}

/// Answers 200 at once, and fails with whatever type the peer asks for.
pub struct Nothing<E = Infallible>(pub PhantomData<fn() -> E>);

impl<E> Clone for Nothing<E> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<E, B> Service<Request<B>> for Nothing<E> {
    type Response = Response<()>;
    type Error = E;
    type Future = Ready<Result<Response<()>, E>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::new(())))
    }
}

/// The status that a request ends with; zero if it fails.
pub async fn send<S, B, R>(service: &mut S, request: Request<B>) -> u16
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Debug,
{
    let Ok(ready) = service.ready().await else {
        return 0;
    };
    let answer = ready.call(request).await;
    black_box(answer).map_or(0, |response| response.status().as_u16())
}
