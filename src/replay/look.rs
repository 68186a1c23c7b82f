//! Whether a body is in memory whole, seen before it is sent.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, SizeHint};
use tower::BoxError;

use super::{
    frame::{Item, poll_item},
    source::Ahead,
};

/// What a body is.
pub(crate) enum Seen {
    Whole(Whole),
    Stream(Stream),
}

/// All of a body that is in memory: there is nothing left in the body itself.
#[derive(Clone)]
pub(crate) enum Whole {
    /// What the body said of its size.
    Empty(SizeHint),
    Data(Bytes),
}

/// A body that will be polled for more.
pub(crate) struct Stream {
    /// What it said before it was polled,
    pub(super) hint: SizeHint,
    /// and what came of that, which goes before the rest.
    pub(super) ahead: Ahead,
}

/// Looks at a body. One that tells its length is polled, for it may be in memory.
#[inline]
pub(crate) fn look<B>(body: &mut B) -> Seen
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let hint = body.size_hint();
    if body.is_end_stream() {
        return Seen::Whole(Whole::Empty(hint));
    }
    let mut ahead = Ahead::default();
    let Some(length) = hint.exact().filter(|length| *length > 0) else {
        return Seen::Stream(Stream { hint, ahead });
    };
    // Whoever sends the rest of the body polls it again, with a waker of its own.
    let cx = &mut Context::from_waker(Waker::noop());
    match poll_item(body, cx) {
        Poll::Ready(Item::Data(data)) if data.len() as u64 == length => {
            if body.is_end_stream() {
                return Seen::Whole(Whole::Data(data));
            }
            match poll_item(body, cx) {
                Poll::Ready(Item::End) => return Seen::Whole(Whole::Data(data)),
                next => {
                    ahead.push(Item::Data(data));
                    if let Poll::Ready(next) = next {
                        ahead.push(next);
                    }
                }
            }
        }
        Poll::Ready(item) => ahead.push(item),
        Poll::Pending => {}
    }
    Seen::Stream(Stream { hint, ahead })
}

impl Whole {
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn none() -> Self {
        Self::Empty(SizeHint::with_exact(0))
    }
}

impl Stream {
    /// Whether it is known in advance that it cannot be sent again: it will be over the limit, or fail.
    #[inline]
    pub(super) fn is_beyond(&self, limit: usize) -> bool {
        self.hint.lower() > limit as u64 || self.ahead.fails()
    }
}
