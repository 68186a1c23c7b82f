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

use http_body::{Body, SizeHint};
use tower::BoxError;

use super::{
    head::Head,
    part::{Kept, Part, Polled, poll_part},
    saved::{Saved, Shared},
};
use crate::sync::MutexGuard;

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
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        if self.ended {
            return Poll::Ready(None);
        }
        // Should it panic, it has failed.
        let failed = mem::replace(&mut self.failed, true);
        let polled = poll_part(&mut self.inner, cx);
        self.failed = failed || matches!(polled, Poll::Ready(Some(Err(_))));
        self.ended = matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
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
            Poll::Ready(Some(Ok(part))) if self.phase == Phase::Recording => {
                self.keep(part.clone());
            }
            Poll::Ready(_) => {}
        }
        polled
    }

    fn poll_retry(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        match self.kept.pop() {
            Some(part) => {
                self.replayed += part.len() as u64;
                Poll::Ready(Some(Ok(part)))
            }
            None => self.poll_inner(cx),
        }
    }

    fn hint(&self, attempt: Attempt) -> SizeHint {
        if attempt == Attempt::Retry && !self.kept.is_empty() {
            return less(&self.original, self.replayed);
        }
        self.inner.size_hint()
    }

    fn is_at_end(&self, attempt: Attempt) -> bool {
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

    fn keep(&mut self, part: Part) {
        self.kept_bytes = self.kept_bytes.saturating_add(part.len());
        if self.kept_bytes > self.limit || self.kept.len() == FRAMES {
            self.kept = Kept::default();
            self.phase = Phase::Passing;
        } else {
            self.kept.push(part);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    Retry,
}

/// One attempt's view of the recorded body.
pub(super) struct Recorded<B> {
    saved: Shared<B>,
    attempt: Attempt,
}

impl<B> Recorded<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Polled> {
        let mut saved = self.saved.lock();
        match (&mut saved.recorder, self.attempt) {
            (Some(recorder), Attempt::First) => recorder.poll_first(cx),
            (Some(recorder), Attempt::Retry) => recorder.poll_retry(cx),
            // The retry has come and gone.
            (None, _) => Poll::Ready(taken_over()),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let saved = self.saved.lock();
        let recorder = saved.recorder.as_ref();
        recorder.map_or_else(SizeHint::default, |it| it.hint(self.attempt))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let saved = self.saved.lock();
        let recorder = saved.recorder.as_ref();
        recorder.is_some_and(|it| it.is_at_end(self.attempt))
    }
}

impl<B> Drop for Recorded<B> {
    /// Nobody polls the body after its retry, though a first attempt that is stuck may hold on to it.
    fn drop(&mut self) {
        if self.attempt == Attempt::Retry {
            let recorder = self.saved.lock().recorder.take();
            drop(recorder);
        }
    }
}

/// The future's handle on a body that its first attempt is sending. Dropped, it stops the recording.
pub(crate) struct Recording<B> {
    saved: Shared<B>,
}

impl<B> Recording<B> {
    /// The body for the first attempt, and the handle.
    pub(super) fn start(saved: Shared<B>) -> (Recorded<B>, Self) {
        let first = Recorded {
            saved: saved.clone(),
            attempt: Attempt::First,
        };
        (first, Self { saved })
    }

    pub(super) fn saved(&self) -> MutexGuard<'_, Saved<B>> {
        self.saved.lock()
    }

    /// Holds the first attempt's body back, to be taken over or let go. `false` if that cannot be:
    /// the body has failed, or was over the limit.
    pub(super) fn hold(&self) -> bool {
        let mut saved = self.saved.lock();
        let recorder = saved.recorder.as_mut().expect(BEFORE_RETRY);
        let can = recorder.phase == Phase::Recording && !recorder.failed;
        if can {
            recorder.phase = Phase::Held;
        }
        can
    }

    /// Takes the held body over, for the retry, with the head that it belongs to.
    pub(super) fn take_over(self) -> (Head, Recorded<B>) {
        let mut saved = self.saved.lock();
        let recorder = saved.recorder.as_mut().expect(BEFORE_RETRY);
        recorder.phase = Phase::Taken;
        let first = recorder.first.take();
        let head = saved.head.give_up();
        drop(saved);
        wake(first);
        let retry = Recorded {
            saved: self.saved.clone(),
            attempt: Attempt::Retry,
        };
        (head, retry)
    }
}

const BEFORE_RETRY: &str = "only the retry frees the recorder";

impl<B> Drop for Recording<B> {
    fn drop(&mut self) {
        let mut saved = self.saved.lock();
        let head = saved.head.release();
        let mut freed = None;
        if let Some(recorder) = &mut saved.recorder {
            let first = match recorder.phase {
                Phase::Held => recorder.first.take(),
                _ => None,
            };
            if recorder.phase != Phase::Taken {
                recorder.phase = Phase::Passing;
                freed = Some((mem::take(&mut recorder.kept), first));
            }
        }
        drop(saved);
        drop(head);
        if let Some((_kept, first)) = freed {
            wake(first);
        }
    }
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

fn taken_over() -> Polled {
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
