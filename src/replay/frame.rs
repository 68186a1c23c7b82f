//! Frames, as they are polled.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
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
