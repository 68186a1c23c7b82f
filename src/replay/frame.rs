//! What a body is polled for.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use tower::BoxError;

/// What a body is polled for, in little room: a [`Frame`] has room for trailers, and is three times as long to move.
pub(super) enum Item {
    Data(Bytes),
    /// Boxed, for they are rare and large.
    Trailers(Box<HeaderMap>),
    Error(BoxError),
    End,
}

impl Item {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            _ => 0,
        }
    }

    /// What polling a body to readiness yields.
    #[inline]
    pub(super) fn into_polled(self) -> Option<Result<Frame<Bytes>, BoxError>> {
        match self {
            Self::Data(data) => Some(Ok(Frame::data(data))),
            Self::Trailers(trailers) => Some(Ok(Frame::trailers(*trailers))),
            Self::Error(error) => Some(Err(error)),
            Self::End => None,
        }
    }
}

/// Polls a body; a frame that is neither data nor trailers is skipped.
#[inline]
pub(super) fn poll_item<B>(body: &mut B, cx: &mut Context<'_>) -> Poll<Item>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    loop {
        let mut frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(Item::End),
            Some(Err(error)) => return Poll::Ready(Item::Error(error.into())),
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_mut() {
            // Of `Bytes` this counts no reference; any other buffer is copied, once.
            return Poll::Ready(Item::Data(data.copy_to_bytes(data.remaining())));
        }
        if let Ok(trailers) = frame.into_trailers() {
            return Poll::Ready(Item::Trailers(Box::new(trailers)));
        }
    }
}
