//! Frames, as they pass and as they are kept.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use tower::BoxError;

/// What polling a body to readiness yields.
pub(super) type Polled = Option<Result<Frame<Bytes>, BoxError>>;

/// Polls a body for a frame of a known kind; what is neither data nor trailers is skipped.
#[inline]
pub(super) fn poll_known<B>(body: &mut B, cx: &mut Context<'_>) -> Poll<Polled>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    loop {
        let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => frame,
        };
        let frame = match frame.into_data() {
            Ok(mut data) => {
                // Of `Bytes` this counts no reference; any other buffer is copied, once.
                let data = data.copy_to_bytes(data.remaining());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Err(frame) => frame,
        };
        if let Ok(trailers) = frame.into_trailers() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
    }
}

/// A frame that is kept. Its data is counted a reference on.
pub(super) enum Part {
    Data(Bytes),
    /// Boxed, for they are rare and large.
    Trailers(Box<HeaderMap>),
}

impl Part {
    #[inline]
    pub(super) fn of(frame: &Frame<Bytes>) -> Option<Self> {
        match frame.data_ref() {
            Some(data) => Some(Self::Data(data.clone())),
            None => frame
                .trailers_ref()
                .map(|trailers| Self::Trailers(Box::new(trailers.clone()))),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }

    pub(super) fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(*trailers),
        }
    }
}

/// What is kept of a body, in order. The first part takes no allocation: a body in memory has no more.
#[derive(Default)]
pub(super) struct Kept {
    first: Option<Part>,
    rest: Vec<Part>,
}

impl Kept {
    #[inline]
    pub(super) fn push(&mut self, part: Part) {
        if self.first.is_none() {
            self.first = Some(part);
        } else {
            if self.rest.is_empty() {
                // A few frames are many.
                self.rest.reserve(16);
            }
            self.rest.push(part);
        }
    }

    /// There will be no more: from now on they are popped.
    pub(super) fn turn(&mut self) {
        self.rest.reverse();
    }

    /// The oldest, after [`turn`](Self::turn).
    pub(super) fn pop(&mut self) -> Option<Part> {
        self.first.take().or_else(|| self.rest.pop())
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
