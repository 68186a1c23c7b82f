//! What is kept of a request so that it can be sent twice: its head, and its body while it passes.

use std::{
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use frame::Item;
use head::Head;
use look::{Stream, Whole};
use recorder::Recorder;
use recording::{Recording, Retried};
use source::{Ahead, Source};

use crate::{Origin, deadline::Deadline, origin::guard::Listed};

mod frame;
mod frames;
pub(crate) mod head;
#[cfg(all(test, shuttle))]
mod interleavings;
pub(crate) mod look;
pub(crate) mod packed;
mod phase;
mod recorder;
mod recording;
mod source;
mod turn;

/// The body of the requests that [`SymblAuth`](crate::SymblAuth) sends. It passes your body on, frame by frame, and keeps
/// what passes, so that the request can be sent again.
///
/// The wrapped service has to take requests with this body. If your client has another body type, turn this one into it
/// between the layer and the client: see [what the compiler says](crate::clients#what-the-compiler-says).
///
/// - A body that is in memory whole, such as a [`Full`](http_body_util::Full), also in a box, is not copied, and is sent
///   again whatever its size. To see that it is one, a body that tells its exact length is polled once before it is sent.
/// - Any other body streams as without the layer. Frames of 1 KiB or more are kept by reference to their
///   `Bytes`; smaller frames and other buffers are copied. All of it is freed when a response begins that is no rejection, or
///   as soon as it exceeds the [replay limit](crate::Builder::replay_limit).
/// - Both attempts have the size hint of your body, and so its `Content-Length`.
///
/// When a stream is sent again, the second attempt takes your body over. The first attempt's body then ends in an error,
/// so that what was sent of it does not pass for the whole.
pub struct ReplayBody<B> {
    kind: Kind<B>,
}

/// In two levels, for so it is no larger than a `Bytes`.
enum Kind<B> {
    /// All of it, still to be sent.
    Memory(Bytes),
    Other(Other<B>),
}

enum Other<B> {
    /// Nothing to send, in the original's own words.
    Empty(SizeHint),
    First(Arc<Recorder<B>>),
    Retried(Box<Retried<B>>),
    /// Not to be sent again. Boxed, so that every request is small to move, whatever its body is: one
    /// of more than 256 bytes costs an HTTP client twice the instructions that this layer does. The
    /// lock makes it `Sync`, and is never contended.
    Passing(Box<Mutex<Source<B>>>),
}

/// What the retry is made of.
pub(crate) struct Replay<B> {
    head: Head,
    kept: Kept<B>,
}

/// What is kept of a body.
enum Kept<B> {
    Whole(Whole),
    Recording(Recording<B>),
    /// It is known in advance to be over the limit, or to fail: there will be no retry.
    Nothing,
}

impl<B> ReplayBody<B> {
    /// One that is in memory.
    #[inline(always)]
    pub(crate) fn whole(body: Whole) -> Self {
        let kind = match body {
            Whole::Empty(hint) => Kind::Other(Other::Empty(hint)),
            Whole::Data(data) => Kind::Memory(data),
        };
        Self { kind }
    }

    /// A body that is sent once.
    pub(crate) fn passing(body: B) -> Self
    where
        B: Body,
    {
        let hint = body.size_hint();
        if body.is_end_stream() {
            return Other::Empty(hint).into();
        }
        Other::passing(Source::new(body, hint, Ahead::default())).into()
    }
}

impl<B> Other<B> {
    fn passing(source: Source<B>) -> Self {
        Self::Passing(Box::new(Mutex::new(source)))
    }
}

impl<B> From<Other<B>> for ReplayBody<B> {
    #[inline]
    fn from(other: Other<B>) -> Self {
        Self {
            kind: Kind::Other(other),
        }
    }
}

impl<B> Replay<B> {
    /// Saves a request whose body is in memory.
    #[inline(always)]
    pub(crate) fn whole(request: &Request<B>, listed: Listed, body: Whole) -> Self {
        Self {
            head: Head::of(request, listed),
            kept: Kept::Whole(body),
        }
    }

    /// Saves the head of a request, and begins to record its body, unless it is known in advance that it cannot be sent
    /// again. The request for the first attempt, and what its retry is made of.
    pub(crate) fn stream(
        request: Request<B>,
        listed: Listed,
        seen: Stream,
        limit: usize,
    ) -> (Request<ReplayBody<B>>, Self) {
        let beyond = seen.is_beyond(limit);
        let head = match beyond {
            true => Head::for_key(&request, listed),
            false => Head::of(&request, listed),
        };
        let mut kept = Kept::Nothing;
        let request = request.map(|body| {
            let source = Source::new(body, seen.hint, seen.ahead);
            if beyond {
                return Other::passing(source).into();
            }
            let (first, recording) = Recording::start(source, limit);
            kept = Kept::Recording(recording);
            Other::First(first).into()
        });
        (request, Self { head, kept })
    }

    /// Whether it is known in advance that the request cannot be sent again: its body is over the limit, or
    /// has failed before it was sent.
    pub(crate) fn is_known_to_be_none(&self) -> bool {
        matches!(self.kept, Kept::Nothing)
    }

    /// What counts as the request's path when rejections are told apart.
    pub(crate) fn key(&self, origins: &[Origin]) -> Arc<str> {
        self.head.key(origins)
    }

    /// When the request's `grpc-timeout` runs out, if it has one.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.head.deadline()
    }

    /// Holds the first attempt's body back. `false` if there will be no replay.
    pub(crate) fn hold(&self) -> bool {
        match &self.kept {
            Kept::Whole(_) => true,
            Kept::Recording(recording) => recording.hold(),
            Kept::Nothing => false,
        }
    }

    /// The request once more, as it was; unless its body is in memory, it is taken over from the first attempt.
    ///
    /// # Panics
    ///
    /// If `hold` has not said that there is to be a replay.
    pub(crate) fn take_over(self, origins: &[Origin]) -> Request<ReplayBody<B>> {
        let body = match self.kept {
            Kept::Whole(body) => ReplayBody::whole(body),
            Kept::Recording(mut recording) => {
                Other::Retried(Box::new(recording.take_over())).into()
            }
            Kept::Nothing => unreachable!("what is not held is not taken over"),
        };
        self.head.restore(origins, body)
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
        let other = match &mut self.kind {
            Kind::Memory(data) => {
                let data = mem::take(data);
                self.kind = Kind::Other(Other::Empty(SizeHint::with_exact(0)));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Kind::Other(other) => other,
        };
        let item = match other {
            Other::Empty(_) => return Poll::Ready(None),
            Other::First(recorder) => recorder.poll_first(cx),
            Other::Retried(body) => body.poll(cx),
            Other::Passing(body) => {
                let body = body.get_mut().unwrap_or_else(PoisonError::into_inner);
                body.poll(cx)
            }
        };
        item.map(Item::into_polled)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Memory(data) => SizeHint::with_exact(data.len() as u64),
            Kind::Other(Other::Empty(hint)) => *hint,
            Kind::Other(Other::First(recorder)) => recorder.size_hint(),
            Kind::Other(Other::Retried(body)) => body.size_hint(),
            Kind::Other(Other::Passing(body)) => lock(body).size_hint(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Memory(_) => false,
            Kind::Other(Other::Empty(_)) => true,
            Kind::Other(Other::First(recorder)) => recorder.is_end_stream(),
            Kind::Other(Other::Retried(body)) => body.is_end_stream(),
            Kind::Other(Other::Passing(body)) => lock(body).is_end_stream(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// Nothing is ever pinned in place: the bodies within are `Unpin` when they are polled.
impl<B> Unpin for ReplayBody<B> {}

impl<B> fmt::Debug for ReplayBody<B> {
    /// Shows neither the body nor what is kept of the head.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Memory(_) => "memory",
            Kind::Other(Other::Empty(_)) => "empty",
            Kind::Other(Other::First(_)) => "recorded",
            Kind::Other(Other::Retried(_)) => "replayed",
            Kind::Other(Other::Passing(_)) => "passing",
        };
        f.debug_tuple("ReplayBody").field(&kind).finish()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::combinators::UnsyncBoxBody;

    use super::*;

    #[test]
    fn every_request_is_small_to_move() {
        fn sizes<B>() -> (usize, usize) {
            (
                size_of::<ReplayBody<B>>(),
                size_of::<Request<ReplayBody<B>>>(),
            )
        }
        assert_eq!(sizes::<UnsyncBoxBody<Bytes, BoxError>>(), (32, 256));
        assert_eq!(sizes::<[u8; 1000]>(), (32, 256));
    }
}
