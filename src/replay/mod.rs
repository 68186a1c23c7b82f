//! What is kept of a request so that it can be sent twice: its head, and its body while it passes.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use part::{into_frame, poll_part};
use record::{Recorded, Recorder, Recording};
use saved::Shared;

pub(crate) mod head;
#[cfg(test)]
mod interleavings;
mod part;
mod record;
mod saved;

/// The body of the requests that [`SymblAuth`](crate::SymblAuth) sends: the original's frames, in
/// time, and a record of them for the one retry.
///
/// Nothing is delayed. What is kept is a reference count on each `Bytes` (other buffers are copied
/// once), and it is freed at the first response head that is no rejection, or as soon as it exceeds the
/// replay limit. The size hint is the original's on both attempts, and so is `Content-Length`.
///
/// On a rejection the retry takes the body over: this one, should it still be polled, then ends in an
/// error, however often it is polled: what was sent of it must not pass for the whole.
pub struct ReplayBody<B> {
    kind: Kind<B>,
}

enum Kind<B> {
    /// Nothing to send, in the original's own words.
    Empty(SizeHint),
    Recorded(Recorded<B>),
    /// Not to be sent again. The lock makes it `Sync`, and is never contended.
    Passing(Mutex<B>),
}

/// What the retry is made of.
pub(crate) enum Replay<B> {
    Empty(Shared<B>, SizeHint),
    Recording(Recording<B>),
    /// Known in advance to be over the limit: there will be none.
    Never(Shared<B>),
}

impl<B> ReplayBody<B> {
    fn empty() -> Self {
        Self {
            kind: Kind::Empty(SizeHint::default()),
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

/// Saves a request's head, and begins to record its body.
pub(crate) fn record<B>(request: Request<B>, limit: usize) -> (Request<ReplayBody<B>>, Replay<B>)
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    // Moving a head costs as much as saving it. With nothing between taking it apart and putting it
    // together again, it is moved once.
    let (parts, body) = request.into_parts();
    let mut request = Request::from_parts(parts, ReplayBody::empty());
    let hint = body.size_hint();
    let (kind, replay) = if body.is_end_stream() {
        let saved = Shared::new(None, |head| head.save(&request));
        (Kind::Empty(hint), Replay::Empty(saved, hint))
    } else if hint.lower() > limit as u64 {
        let saved = Shared::new(None, |head| head.save_for_key(&request));
        (Kind::Passing(Mutex::new(body)), Replay::Never(saved))
    } else {
        let recorder = Recorder::new(body, hint, limit);
        let saved = Shared::new(Some(recorder), |head| head.save(&request));
        let (first, recording) = Recording::start(saved);
        (Kind::Recorded(first), Replay::Recording(recording))
    };
    request.body_mut().kind = kind;
    (request, replay)
}

impl<B> Replay<B> {
    /// What the book of rejections knows the request by.
    pub(crate) fn key(&self) -> Arc<str> {
        let saved = match self {
            Self::Empty(saved, _) | Self::Never(saved) => saved.lock(),
            Self::Recording(recording) => recording.saved(),
        };
        saved.head.key()
    }

    /// Holds the first attempt's body back. `false` if there will be no replay.
    pub(crate) fn hold(&self) -> bool {
        match self {
            Self::Empty(..) => true,
            Self::Recording(recording) => recording.hold(),
            Self::Never(_) => false,
        }
    }

    /// The request once more, as it was; its body is taken over from the first attempt.
    ///
    /// # Panics
    ///
    /// If `hold` has not said that there is to be a replay.
    pub(crate) fn take_over(self) -> Request<ReplayBody<B>> {
        let (head, kind) = match self {
            Self::Empty(saved, hint) => (saved.lock().head.give_up(), Kind::Empty(hint)),
            Self::Recording(recording) => {
                let (head, recorded) = recording.take_over();
                (head, Kind::Recorded(recorded))
            }
            Self::Never(_) => unreachable!("what is not held is not taken over"),
        };
        head.restore(ReplayBody { kind })
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
            Kind::Recorded(recorded) => recorded.is_end_stream(),
            Kind::Passing(body) => body
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_end_stream(),
        }
    }
}

// Nothing is ever pinned in place: the bodies within are `Unpin` when they are polled.
impl<B> Unpin for ReplayBody<B> {}

impl<B> fmt::Debug for ReplayBody<B> {
    /// Shows neither the body nor what is kept of the head.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Empty(_) => "empty",
            Kind::Recorded(_) => "recorded",
            Kind::Passing(_) => "passing",
        };
        f.debug_tuple("ReplayBody").field(&kind).finish()
    }
}
