//! A streaming body that is kept while it passes, so that it can be sent once more.
//!
//! Two attempts and the future between them share one [`Recorder`]:
//!
//! ```text
//!              rejected             newer token          retry dropped
//!   Recording ──────────► Held ──────────────────► Taken ──────────────► Gone
//!       │                   │
//!       │ accepted,         │ no newer token,
//!       │ over the limit,   │ future dropped
//!       │ body failed,      │
//!       │ future dropped    ▼
//!       └──────────────► Passing
//! ```
//!
//! | phase | the first attempt's poll | the retry's poll |
//! |---|---|---|
//! | Recording | the next frame; a copy is kept | |
//! | Passing | the next frame | |
//! | Held | pending | |
//! | Taken | an error, always | what was kept, then the next frames |
//! | Gone | an error, always | |
//!
//! What the first attempt has polled when its turn with the body ends goes where the phase then says: see
//! [`turn`](super::turn).
//!
//! The first attempt's waker is stored whenever it is left pending, for whichever cause, and woken on
//! the way out of `Held`: a body that nobody would wake again would hold its connection for ever.
//!
//! There are two locks. `source` is the body's: it is only ever tried, and taken by whoever polls. `state` is
//! held for a few instructions, and never while code of others runs: bodies are polled and dropped, frames are
//! freed and wakers called outside of it. A turn ends with `state` locked: who then finds the body away has
//! left its waker before, or tries again after.

use std::{
    mem,
    sync::{PoisonError, TryLockError},
    task::{Context, Poll, Waker},
};

use http_body::{Body, SizeHint};
use tower::BoxError;

use super::{
    frame::Item,
    frames::Frames,
    phase::{AtomicPhase, Phase},
    source::Source,
    turn::BodyTurn,
};
use crate::sync::{Mutex, MutexGuard};

pub(super) struct Recorder<B> {
    /// Moves on under the lock of `state` only.
    pub(super) phase: AtomicPhase,
    /// `None` once nobody will poll it.
    source: Mutex<Option<Source<B>>>,
    state: Mutex<Progress>,
    pub(super) limit: usize,
}

#[derive(Default)]
pub(super) struct Progress {
    pub(super) kept: Frames,
    pub(super) first: Option<Waker>,
    /// Of a retry that found the body away.
    pub(super) retry: Option<Waker>,
}

impl<B> Recorder<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll_first(&self, cx: &mut Context<'_>) -> Poll<Item> {
        // Without it, the retry has it.
        while let Some(turn) = self.turn() {
            // Once the body is in hand: what comes later finds it away.
            match self.phase.load() {
                Phase::Recording | Phase::Passing => return turn.poll(cx),
                Phase::Taken | Phase::Gone => break,
                Phase::Held if self.park(cx) => return Poll::Pending,
                // It has been let go, or taken, just now.
                Phase::Held => {}
            }
        }
        Poll::Ready(taken_over())
    }

    /// What is kept has been replayed.
    pub(super) fn poll_retry(&self, cx: &mut Context<'_>) -> Poll<Item> {
        if let Some(polled) = self.with_source(|source| source.poll(cx)) {
            return polled;
        }
        // The first attempt is within the body's code.
        let waker = Some(cx.waker().clone());
        let stale = mem::replace(&mut self.state().retry, waker);
        drop(stale);
        self.with_source(|source| source.poll(cx))
            .unwrap_or(Poll::Pending)
    }

    /// What the first attempt is told.
    pub(super) fn size_hint(&self) -> SizeHint {
        let turn = self.turn();
        turn.map_or_else(SizeHint::default, |turn| turn.source().size_hint())
    }

    /// What the first attempt is told.
    pub(super) fn is_end_stream(&self) -> bool {
        matches!(self.phase.load(), Phase::Recording | Phase::Passing)
            && self
                .turn()
                .is_some_and(|turn| turn.source().is_end_stream())
    }
}

impl<B> Recorder<B> {
    pub(super) fn new(source: Source<B>, limit: usize) -> Self {
        Self {
            phase: AtomicPhase::new(Phase::Recording),
            source: Mutex::new(Some(source)),
            state: Mutex::default(),
            limit,
        }
    }

    /// Holds the first attempt back. `false` if there is nothing whole to take over: the body has
    /// failed, or was over the limit.
    pub(super) fn hold(&self) -> bool {
        let _state = self.state();
        let can = self.phase.load() == Phase::Recording;
        if can {
            self.phase.store(Phase::Held);
        }
        can
    }

    /// The held body is the retry's from now on. What was kept, and whom to wake.
    pub(super) fn take_over(&self) -> (Frames, Option<Waker>) {
        let mut state = self.state();
        self.phase.store(Phase::Taken);
        (mem::take(&mut state.kept), state.first.take())
    }

    /// There will be no retry: the first attempt goes on. What to free, and whom to wake.
    pub(super) fn let_go(&self) -> (Frames, Option<Waker>) {
        let mut state = self.state();
        let was_held = self.phase.load() == Phase::Held;
        self.phase.store(Phase::Passing);
        let first = was_held.then(|| state.first.take());
        (mem::take(&mut state.kept), first.flatten())
    }

    /// The retry is dropped. The body, to be dropped, unless the first attempt is within its code.
    pub(super) fn abandon(&self) -> Option<Source<B>> {
        let _state = self.state();
        self.phase.store(Phase::Gone);
        self.try_source()?.take()
    }

    /// For the retry. `None` if the first attempt is within the body's code.
    pub(super) fn with_source<T>(&self, act: impl FnOnce(&mut Source<B>) -> T) -> Option<T> {
        self.try_source()?.as_mut().map(act)
    }

    /// Leaves the first attempt's waker. `false` if it is not held any longer.
    #[cold]
    fn park(&self, cx: &mut Context<'_>) -> bool {
        let stale;
        let mut state = self.state();
        let held = self.phase.load() == Phase::Held;
        stale = held.then(|| leave(&mut state.first, cx.waker()));
        drop(state);
        drop(stale);
        held
    }

    fn turn(&self) -> Option<BodyTurn<'_, B>> {
        let source = self.try_source().filter(|source| source.is_some())?;
        Some(BodyTurn::new(self, source))
    }

    fn try_source(&self) -> Option<MutexGuard<'_, Option<Source<B>>>> {
        match self.source.try_lock() {
            Ok(source) => Some(source),
            Err(TryLockError::Poisoned(source)) => Some(source.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores a waker. What it was before, to be dropped after unlocking.
pub(super) fn leave(place: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    match place {
        Some(place) if place.will_wake(waker) => None,
        place => place.replace(waker.clone()),
    }
}

pub(super) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

pub(super) fn taken_over() -> Item {
    Item::Error(TakenOver.into())
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
