//! The body that a request came with, looked at before it is sent.

use std::{
    fmt,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::{
    frame::poll_known,
    source::{Ahead, Source},
};

/// What a body is known to be before it is sent.
pub(crate) enum Original<B> {
    /// Nothing to send, in the body's own words.
    Empty(SizeHint),
    /// All there is to send.
    Memory(Bytes),
    Stream(Source<B>),
}

impl<B> Original<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// Looks at a body. One that tells its length is polled, for it may be in memory whole; what comes of
    /// it then goes before the rest.
    #[inline]
    pub(crate) fn new(body: B) -> Self {
        let hint = body.size_hint();
        if body.is_end_stream() {
            return Self::Empty(hint);
        }
        match hint.exact() {
            Some(length) if length > 0 => Self::look(body, hint, length),
            _ => Self::Stream(Source::new(body, hint, Ahead::default())),
        }
    }

    #[inline]
    fn look(mut body: B, hint: SizeHint, length: u64) -> Self {
        // Whoever sends the rest of the body polls it again, with a waker of its own.
        let cx = &mut Context::from_waker(Waker::noop());
        let mut ahead = Ahead::default();
        match poll_known(&mut body, cx) {
            Poll::Ready(Some(Ok(frame))) => match whole(frame, length) {
                Ok(data) if body.is_end_stream() => return Self::Memory(data),
                Ok(data) => match poll_known(&mut body, cx) {
                    Poll::Ready(None) => return Self::Memory(data),
                    next => {
                        ahead.push(Some(Ok(Frame::data(data))));
                        if let Poll::Ready(next) = next {
                            ahead.push(next);
                        }
                    }
                },
                Err(frame) => ahead.push(Some(Ok(frame))),
            },
            Poll::Ready(end) => ahead.push(end),
            Poll::Pending => {}
        }
        Self::Stream(Source::new(body, hint, ahead))
    }
}

impl<B> Original<B> {
    /// Whether it is known in advance to be over the limit of what may be kept. What is in memory is kept
    /// anyway.
    #[inline]
    pub(crate) fn is_over(&self, limit: usize) -> bool {
        matches!(self, Self::Stream(source) if source.original.lower() > limit as u64)
    }
}

/// The data, if it is as long as the whole body.
#[inline]
fn whole(frame: Frame<Bytes>, length: u64) -> Result<Bytes, Frame<Bytes>> {
    match frame.data_ref() {
        Some(data) if data.len() as u64 == length => frame.into_data(),
        _ => Err(frame),
    }
}

impl<B> fmt::Debug for Original<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Original").finish_non_exhaustive()
    }
}
