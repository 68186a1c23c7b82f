//! Whether a body is in memory whole, seen before it is sent.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::{
    frame::poll_known,
    source::{Ahead, Source},
};

/// Looks at a body that is not at its end: all of its data, or what it is polled through.
///
/// One that tells its length is polled, for it may be in memory. What else comes of that goes before the rest.
#[inline]
pub(super) fn look<B>(mut body: B, hint: SizeHint) -> Result<Bytes, Source<B>>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let Some(length) = hint.exact().filter(|length| *length > 0) else {
        return Err(Source::new(body, hint, Ahead::default()));
    };
    // Whoever sends the rest of the body polls it again, with a waker of its own.
    let cx = &mut Context::from_waker(Waker::noop());
    let mut ahead = Ahead::default();
    match poll_known(&mut body, cx) {
        Poll::Ready(Some(Ok(frame))) => match whole(frame, length) {
            Ok(data) if body.is_end_stream() => return Ok(data),
            Ok(data) => match poll_known(&mut body, cx) {
                Poll::Ready(None) => return Ok(data),
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
    Err(Source::new(body, hint, ahead))
}

/// The data, if it is as long as the whole body.
#[inline]
fn whole(frame: Frame<Bytes>, length: u64) -> Result<Bytes, Frame<Bytes>> {
    match frame.data_ref() {
        Some(data) if data.len() as u64 == length => frame.into_data(),
        _ => Err(frame),
    }
}
