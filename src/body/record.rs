//! A streaming body that is kept while it passes, so that it can be sent once more.
//!
//! One [`Recorder`] owns the body. Two attempts and the future between them reach it through one lock:
//!
//! ```text
//!              rejected                    newer token
//!   Recording ──────────► Held ──────────────────────────► Taken
//!       │                   │
//!       │ accepted,         │ no newer token,
//!       │ over the limit,   │ future dropped
//!       │ future dropped    ▼
//!       └──────────────► Passing
//! ```
//!
//! | phase | the first attempt's poll | the retry's poll |
//! |---|---|---|
//! | Recording | the next frame; a copy is kept | |
//! | Held | pending | |
//! | Passing | the next frame | |
//! | Taken | an error, always | what was kept, then the next frames |
//!
//! The first attempt's waker is stored whenever it is left pending, for whichever cause, and woken on
//! the way out of `Held`: a body that nobody would wake again would hold its connection for ever. The
//! inner body is polled by one attempt at a time, under the lock; wakers are called after unlocking.

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use crate::sync::{Mutex, MutexGuard};

/// Empty frames take no bytes of the limit, but room all the same.
const FRAMES: usize = 65_536;

#[derive(Debug)]
pub(crate) struct Recorder<B> {
    inner: B,
    /// What the inner body said before it was polled.
    original: SizeHint,
    /// What it answered when it was polled ahead of its first attempt.
    peeked: Option<Polled>,
    ended: bool,
    failed: bool,
    phase: Phase,
    kept: VecDeque<Part>,
    kept_bytes: usize,
    limit: usize,
    replayed: u64,
    first: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Recording,
    Held,
    Passing,
    Taken,
}

/// A frame, which unlike `http_body`'s can be cloned: `Bytes` by counting a reference.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Data(Bytes),
    /// Boxed, for they are rare and large.
    Trailers(Box<HeaderMap>),
}

/// What polling a body to readiness yields.
pub(crate) type Polled = Option<Result<Part, BoxError>>;

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }

    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(*trailers),
        }
    }
}

/// Polls a body for a frame of a known kind; what is neither data nor trailers is skipped.
pub(crate) fn poll_part<B>(body: &mut B, cx: &mut Context<'_>) -> Poll<Polled>
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
                // Of `Bytes` this counts a reference; any other buffer is copied, once.
                let data = data.copy_to_bytes(data.remaining());
                return Poll::Ready(Some(Ok(Part::Data(data))));
            }
            Err(frame) => frame,
        };
        if let Ok(trailers) = frame.into_trailers() {
            return Poll::Ready(Some(Ok(Part::Trailers(Box::new(trailers)))));
        }
    }
}

pub(crate) fn into_frame(polled: Polled) -> Option<Result<Frame<Bytes>, BoxError>> {
    polled.map(|part| part.map(Part::into_frame))
}

impl<B> Recorder<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        if let Some(peeked) = self.peeked.take() {
            return Poll::Ready(peeked);
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = ready!(poll_part(&mut self.inner, cx));
        self.ended = !matches!(polled, Some(Ok(_)));
        self.failed |= matches!(polled, Some(Err(_)));
        Poll::Ready(polled)
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        let polled = match self.phase {
            Phase::Recording | Phase::Passing => self.poll_inner(cx),
            Phase::Held => Poll::Pending,
            Phase::Taken => return Poll::Ready(Some(Err(TakenOver.into()))),
        };
        match &polled {
            Poll::Pending => self.first = Some(cx.waker().clone()),
            Poll::Ready(Some(Ok(part))) if self.phase == Phase::Recording => {
                self.keep(part.clone());
            }
            Poll::Ready(_) => {}
        }
        polled
    }

    fn poll_retry(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        match self.kept.pop_front() {
            Some(part) => {
                self.replayed += part.len() as u64;
                Poll::Ready(Some(Ok(part)))
            }
            None => {
                self.kept = VecDeque::new();
                self.poll_inner(cx)
            }
        }
    }

    fn hint(&self, attempt: Attempt) -> SizeHint {
        if self.peeked.is_some() || attempt == Attempt::Retry && !self.kept.is_empty() {
            return less(&self.original, self.replayed);
        }
        self.inner.size_hint()
    }

    fn is_at_end(&self, attempt: Attempt) -> bool {
        let may_end = match attempt {
            Attempt::First => matches!(self.phase, Phase::Recording | Phase::Passing),
            Attempt::Retry => self.kept.is_empty(),
        };
        may_end && self.peeked.is_none() && (self.ended || self.inner.is_end_stream())
    }
}

impl<B> Recorder<B> {
    fn keep(&mut self, part: Part) {
        self.kept_bytes = self.kept_bytes.saturating_add(part.len());
        if self.kept_bytes > self.limit || self.kept.len() == FRAMES {
            self.kept = VecDeque::new();
            self.phase = Phase::Passing;
        } else {
            self.kept.push_back(part);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    Retry,
}

/// One attempt's view of the recorded body.
#[derive(Debug)]
pub(crate) struct Recorded<B> {
    recorder: Arc<Mutex<Recorder<B>>>,
    attempt: Attempt,
}

impl<B> Recorded<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Polled> {
        let mut recorder = lock(&self.recorder);
        match self.attempt {
            Attempt::First => recorder.poll_first(cx),
            Attempt::Retry => recorder.poll_retry(cx),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        lock(&self.recorder).hint(self.attempt)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        lock(&self.recorder).is_at_end(self.attempt)
    }
}

/// The future's handle on a body that its first attempt is sending. Dropped, it stops the recording.
#[derive(Debug)]
pub(crate) struct Recording<B> {
    recorder: Arc<Mutex<Recorder<B>>>,
}

impl<B> Recording<B> {
    /// Starts to record. `peeked` is what the body has answered already, if it was polled ahead.
    pub(crate) fn start(
        inner: B,
        original: SizeHint,
        peeked: Option<Polled>,
        limit: usize,
    ) -> (Recorded<B>, Self) {
        let recorder = Arc::new(Mutex::new(Recorder {
            inner,
            original,
            ended: matches!(peeked, Some(None | Some(Err(_)))),
            failed: matches!(peeked, Some(Some(Err(_)))),
            peeked,
            phase: Phase::Recording,
            kept: VecDeque::new(),
            kept_bytes: 0,
            limit,
            replayed: 0,
            first: None,
        }));
        let first = Recorded {
            recorder: Arc::clone(&recorder),
            attempt: Attempt::First,
        };
        (first, Self { recorder })
    }

    /// Holds the first attempt's body back, to be taken over or let go. `false` if that cannot be:
    /// the body has failed, or was over the limit.
    pub(crate) fn hold(&self) -> bool {
        if self.recorder.is_poisoned() {
            return false; // the inner body panicked
        }
        let mut recorder = lock(&self.recorder);
        let can = recorder.phase == Phase::Recording && !recorder.failed;
        if can {
            recorder.phase = Phase::Held;
        }
        can
    }

    /// Takes the held body over, for the retry.
    pub(crate) fn take_over(self) -> Recorded<B> {
        let mut recorder = lock(&self.recorder);
        recorder.phase = Phase::Taken;
        let first = recorder.first.take();
        drop(recorder);
        wake(first);
        Recorded {
            recorder: Arc::clone(&self.recorder),
            attempt: Attempt::Retry,
        }
    }
}

impl<B> Drop for Recording<B> {
    fn drop(&mut self) {
        let mut recorder = lock(&self.recorder);
        let first = match recorder.phase {
            Phase::Recording => None,
            Phase::Held => recorder.first.take(),
            Phase::Passing | Phase::Taken => return,
        };
        recorder.phase = Phase::Passing;
        let kept = mem::take(&mut recorder.kept);
        drop(recorder);
        drop(kept);
        wake(first);
    }
}

fn lock<B>(recorder: &Mutex<Recorder<B>>) -> MutexGuard<'_, Recorder<B>> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn less(hint: &SizeHint, bytes: u64) -> SizeHint {
    let mut rest = SizeHint::new();
    rest.set_lower(hint.lower().saturating_sub(bytes));
    if let Some(upper) = hint.upper() {
        rest.set_upper(upper.saturating_sub(bytes));
    }
    rest
}

/// What the first attempt's body fails with once its retry has taken the body over.
#[derive(Debug)]
pub(crate) struct TakenOver;

impl std::fmt::Display for TakenOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request was rejected, and its body is being sent again")
    }
}

impl std::error::Error for TakenOver {}
