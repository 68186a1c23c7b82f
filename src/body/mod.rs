//! The body that can be sent twice.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::task::noop_waker_ref;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use record::{Part, Recorded, Recording, into_frame, poll_part};

mod record;

/// The body of the requests that [`SymblAuth`](crate::SymblAuth) sends: the original's frames, in
/// time, and a record of them for the one retry.
///
/// Nothing is delayed. What is kept is a reference count on each `Bytes` (other buffers are copied
/// once), and it is freed at the first response head that is no rejection, or as soon as it exceeds the
/// replay limit. The size hint is the original's on both attempts, and so is `Content-Length`.
///
/// On a rejection the retry takes the body over: this one, should it still be polled, then ends in an
/// error. A body that is in memory is not taken over but sent again, from the same memory.
#[derive(Debug)]
pub struct ReplayBody<B> {
    kind: Kind<B>,
}

#[derive(Debug)]
enum Kind<B> {
    /// Nothing to send, in the original's own words.
    Empty(SizeHint),
    /// One frame in memory, until it is sent.
    Memory(Option<Bytes>),
    Recorded(Recorded<B>),
    /// Not to be sent again. The lock makes it `Sync`, and is never contended.
    Passing(Mutex<B>),
}

/// What the retry is made of.
#[derive(Debug)]
pub(crate) enum Replay<B> {
    Empty(SizeHint),
    Memory(Bytes),
    Recording(Recording<B>),
    /// Known in advance to be over the limit.
    Never,
}

impl<B> ReplayBody<B> {
    /// A body of nothing.
    pub(crate) fn empty() -> Self {
        Self {
            kind: Kind::Empty(SizeHint::with_exact(0)),
        }
    }

    /// A body that is sent once.
    pub(crate) fn passing(body: B) -> Self {
        Self {
            kind: Kind::Passing(Mutex::new(body)),
        }
    }
}

/// Whether a body is known in advance to be over the limit.
pub(crate) fn is_over<B: Body>(body: &B, limit: usize) -> bool {
    body.size_hint().lower() > limit as u64
}

/// The body for the first attempt, and what the retry will be made of.
pub(crate) fn record<B>(mut body: B, limit: usize) -> (ReplayBody<B>, Replay<B>)
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let hint = body.size_hint();
    if body.is_end_stream() {
        let kind = Kind::Empty(hint);
        return (ReplayBody { kind }, Replay::Empty(hint));
    }
    if hint.lower() > limit as u64 {
        return (ReplayBody::passing(body), Replay::Never);
    }
    let mut peeked = None;
    if let Some(length) = hint.exact() {
        // A body in memory has its one frame there already, and no use for a record. Any other is
        // polled once more, with a waker of its own, by whoever sends it.
        let mut cx = Context::from_waker(noop_waker_ref());
        if let Poll::Ready(polled) = poll_part(&mut body, &mut cx) {
            match polled {
                Some(Ok(Part::Data(data)))
                    if data.len() as u64 == length && body.is_end_stream() =>
                {
                    let kind = Kind::Memory(Some(data.clone()));
                    return (ReplayBody { kind }, Replay::Memory(data));
                }
                polled => peeked = Some(polled),
            }
        }
    }
    let (first, recording) = Recording::start(body, hint, peeked, limit);
    let kind = Kind::Recorded(first);
    (ReplayBody { kind }, Replay::Recording(recording))
}

impl<B> Replay<B> {
    /// Holds the first attempt's body back. `false` if there will be no replay.
    pub(crate) fn hold(&self) -> bool {
        match self {
            Self::Empty(_) | Self::Memory(_) => true,
            Self::Recording(recording) => recording.hold(),
            Self::Never => false,
        }
    }

    /// The body for the retry.
    ///
    /// # Panics
    ///
    /// If `hold` has not said that there is to be one.
    pub(crate) fn take_over(self) -> ReplayBody<B> {
        let kind = match self {
            Self::Empty(hint) => Kind::Empty(hint),
            Self::Memory(data) => Kind::Memory(Some(data)),
            Self::Recording(recording) => Kind::Recorded(recording.take_over()),
            Self::Never => unreachable!("what is not held is not taken over"),
        };
        ReplayBody { kind }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match &mut self.kind {
            Kind::Empty(_) => return Poll::Ready(None),
            Kind::Memory(data) => {
                return Poll::Ready(data.take().map(|data| Ok(Frame::data(data))));
            }
            Kind::Recorded(recorded) => recorded.poll(cx),
            Kind::Passing(body) => {
                poll_part(body.get_mut().unwrap_or_else(PoisonError::into_inner), cx)
            }
        };
        polled.map(into_frame)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty(hint) => *hint,
            Kind::Memory(data) => SizeHint::with_exact(data.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Recorded(recorded) => recorded.size_hint(),
            Kind::Passing(body) => body
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .size_hint(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty(_) => true,
            Kind::Memory(data) => data.is_none(),
            Kind::Recorded(recorded) => recorded.is_end_stream(),
            Kind::Passing(body) => body
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_end_stream(),
        }
    }
}
