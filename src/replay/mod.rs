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

use head::Head;
use headers::{Small, unpack};
use part::poll_known;
use recorder::Recorder;
use recording::{Recorded, Recording};

pub(crate) mod head;
mod headers;
#[cfg(all(test, shuttle))]
mod interleavings;
mod part;
mod recorder;
mod recording;

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
    /// Not to be sent again. Boxed, so that every request is small to move, whatever its body is: one
    /// of more than 256 bytes costs an HTTP client twice the instructions that this layer does. The
    /// lock makes it `Sync`, and is never contended.
    Passing(Box<Mutex<B>>),
}

/// What the retry is made of.
pub(crate) struct Replay<B> {
    head: Head,
    kept: Kept<B>,
}

/// What is kept of a body.
enum Kept<B> {
    Empty(SizeHint),
    Recording(Recording<B>),
    /// It was known in advance to be over the limit: there will be no retry.
    Nothing,
}

impl<B> ReplayBody<B> {
    /// Until there is another.
    pub(crate) fn empty() -> Self {
        Self {
            kind: Kind::Empty(SizeHint::default()),
        }
    }

    /// A body that is sent once.
    pub(crate) fn passing(body: B) -> Self
    where
        B: Body,
    {
        let kind = if body.is_end_stream() {
            Kind::Empty(body.size_hint())
        } else {
            Kind::Passing(Box::new(Mutex::new(body)))
        };
        Self { kind }
    }
}

/// Whether a body with that hint is known in advance to be over the limit.
pub(crate) fn is_over(hint: &SizeHint, limit: usize) -> bool {
    hint.lower() > limit as u64
}

/// Gives a request its body, in place: moving a head costs as much as saving it. Saves the head, and begins
/// to record the body.
#[inline]
pub(crate) fn record<B>(request: &mut Request<ReplayBody<B>>, body: B, limit: usize) -> Replay<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let mut head = Head::of(request);
    let hint = body.size_hint();
    let (kind, kept) = if body.is_end_stream() {
        head.keep_extensions(request.extensions());
        head.pack(request.headers());
        (Kind::Empty(hint), Kept::Empty(hint))
    } else if is_over(&hint, limit) {
        head.pack_host(request.headers());
        (Kind::Passing(Box::new(Mutex::new(body))), Kept::Nothing)
    } else {
        head.keep_extensions(request.extensions());
        let mut small = Small::new();
        if !small.pack(request.headers()) {
            head.pack(request.headers());
        }
        let (first, recording) = Recording::start(Recorder::new(body, hint, limit), small);
        (Kind::Recorded(first), Kept::Recording(recording))
    };
    request.body_mut().kind = kind;
    Replay { head, kept }
}

impl<B> Replay<B> {
    fn packed(&self) -> &[u8] {
        match &self.kept {
            Kept::Recording(recording) if self.head.packed().is_empty() => recording.packed(),
            _ => self.head.packed(),
        }
    }

    /// What the book of rejections knows the request by.
    pub(crate) fn key(&self) -> Arc<str> {
        self.head.key(self.packed())
    }

    /// Holds the first attempt's body back. `false` if there will be no replay.
    pub(crate) fn hold(&self) -> bool {
        match &self.kept {
            Kept::Empty(_) => true,
            Kept::Recording(recording) => recording.hold(),
            Kept::Nothing => false,
        }
    }

    /// The request once more, as it was; its body is taken over from the first attempt.
    ///
    /// # Panics
    ///
    /// If `hold` has not said that there is to be a replay.
    pub(crate) fn take_over(mut self) -> Request<ReplayBody<B>> {
        let headers = unpack(self.packed());
        let kind = match &mut self.kept {
            Kept::Empty(hint) => Kind::Empty(*hint),
            Kept::Recording(recording) => Kind::Recorded(recording.take_over()),
            Kept::Nothing => unreachable!("what is not held is not taken over"),
        };
        self.head.restore(headers, ReplayBody { kind })
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
        match &mut self.kind {
            Kind::Empty(_) => Poll::Ready(None),
            Kind::Recorded(recorded) => recorded.poll(cx),
            Kind::Passing(body) => {
                poll_known(body.get_mut().unwrap_or_else(PoisonError::into_inner), cx)
            }
        }
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
