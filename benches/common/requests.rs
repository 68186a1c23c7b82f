//! Requests of several shapes.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

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

pub const URL: &str = "https://api.symbl.ai/v1/conversations/5815170693595136/messages";
pub static HEADERS: [(&str, &str); 12] = [
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
