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
    mem,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::part::{Kept, Part, Polled, poll_known};

/// Empty frames take no bytes of the limit, but room all the same.
const FRAMES: usize = 65_536;

pub(super) struct Recorder<B> {
    inner: B,
    /// What the inner body said before it was polled.
    original: SizeHint,
    ended: bool,
    failed: bool,
    phase: Phase,
    kept: Kept,
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

impl<B> Recorder<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    #[inline]
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        if self.ended {
            return Poll::Ready(None);
        }
        // Should it panic, it has failed.
        let failed = mem::replace(&mut self.failed, true);
        let polled = poll_known(&mut self.inner, cx);
        self.failed = failed || matches!(polled, Poll::Ready(Some(Err(_))));
        self.ended = matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        let polled = match self.phase {
            Phase::Recording | Phase::Passing => self.poll_inner(cx),
            Phase::Held => Poll::Pending,
            Phase::Taken => return Poll::Ready(taken_over()),
        };
        match &polled {
            Poll::Pending => match &mut self.first {
                Some(waker) => waker.clone_from(cx.waker()),
                first => *first = Some(cx.waker().clone()),
            },
            Poll::Ready(Some(Ok(frame))) if self.phase == Phase::Recording => self.keep(frame),
            Poll::Ready(_) => {}
        }
        polled
    }

    pub(super) fn poll_retry(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        match self.kept.pop() {
            Some(part) => {
                self.replayed += part.len() as u64;
                Poll::Ready(Some(Ok(part.into_frame())))
            }
            None => self.poll_inner(cx),
        }
    }

    pub(super) fn hint(&self, attempt: Attempt) -> SizeHint {
        if attempt == Attempt::Retry && !self.kept.is_empty() {
            return less(&self.original, self.replayed);
        }
        self.inner.size_hint()
    }

    pub(super) fn is_at_end(&self, attempt: Attempt) -> bool {
        let may_end = match attempt {
            Attempt::First => matches!(self.phase, Phase::Recording | Phase::Passing),
            Attempt::Retry => self.kept.is_empty(),
        };
        // What the original says, though this knows that it has ended: both attempts say the same.
        may_end && self.inner.is_end_stream()
    }
}

impl<B> Recorder<B> {
    pub(super) fn new(inner: B, original: SizeHint, limit: usize) -> Self {
        Self {
            inner,
            original,
            ended: false,
            failed: false,
            phase: Phase::Recording,
            kept: Kept::default(),
            kept_bytes: 0,
            limit,
            replayed: 0,
            first: None,
        }
    }

    /// Holds the first attempt back. `false` if there is nothing whole to take over: the body has
    /// failed, or was over the limit.
    pub(super) fn hold(&mut self) -> bool {
        let can = self.phase == Phase::Recording && !self.failed;
        if can {
            self.phase = Phase::Held;
        }
        can
    }

    /// The held body is the retry's from now on. Whom to wake.
    pub(super) fn take_over(&mut self) -> Option<Waker> {
        self.phase = Phase::Taken;
        self.kept.turn();
        self.first.take()
    }

    /// There will be no retry: the first attempt goes on. What to free, and whom to wake.
    pub(super) fn let_go(&mut self) -> (Kept, Option<Waker>) {
        let was = mem::replace(&mut self.phase, Phase::Passing);
        let held = (was == Phase::Held).then(|| self.first.take());
        (mem::take(&mut self.kept), held.flatten())
    }

    #[inline]
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(part) = Part::of(frame) else { return };
        self.kept_bytes = self.kept_bytes.saturating_add(part.len());
        if self.kept_bytes > self.limit || self.kept.len() == FRAMES {
            self.kept = Kept::default();
            self.phase = Phase::Passing;
        } else {
            self.kept.push(part);
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    Retry,
}

fn less(hint: &SizeHint, bytes: u64) -> SizeHint {
    let mut rest = SizeHint::new();
    rest.set_lower(hint.lower().saturating_sub(bytes));
    if let Some(upper) = hint.upper() {
        rest.set_upper(upper.saturating_sub(bytes));
    }
    rest
}

pub(super) fn taken_over() -> Polled {
    Some(Err(TakenOver.into()))
}

/// What the first attempt's body fails with once its retry has taken the body over.
#[derive(Debug)]
struct TakenOver;

impl std::fmt::Display for TakenOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request was rejected, and its body is being sent again")
    }
}

impl std::error::Error for TakenOver {}
