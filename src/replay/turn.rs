//! The first attempt's turn with a body that is recorded.
//!
//! Whoever polls the body has it to itself, and the phase may move on meanwhile: the body's own code
//! may take long, or drop the future. So nobody ever waits for the body. What has been polled when the first
//! attempt's turn ends stays with the body, unless the phase then says that it may go:
//!
//! | phase at the end of its turn | what was polled | also |
//! |---|---|---|
//! | Recording | goes to the first attempt, and a copy is kept | |
//! | Passing | goes to the first attempt | |
//! | Held | stays, for whoever polls next; pending | |
//! | Taken | stays, for the retry; an error | the retry is woken, should it have found the body away |
//! | Gone | stays; an error | the body is dropped |

use std::{
    mem,
    task::{Context, Poll},
};

use http_body::Body;
use tower::BoxError;

use super::{
    frame::Item,
    phase::Phase,
    recorder::{Progress, Recorder, leave, taken_over, wake},
    source::Source,
};
use crate::sync::MutexGuard;

/// The first attempt's turn with the body.
pub(super) struct BodyTurn<'a, B> {
    recorder: &'a Recorder<B>,
    /// `None` once the turn has ended.
    source: Option<MutexGuard<'a, Option<Source<B>>>>,
}

const IN_TURN: &str = "there is a body until the turn has ended";

impl<'a, B> BodyTurn<'a, B> {
    /// `source` has a body.
    pub(super) fn new(
        recorder: &'a Recorder<B>,
        source: MutexGuard<'a, Option<Source<B>>>,
    ) -> Self {
        let source = Some(source);
        Self { recorder, source }
    }
}

impl<B> BodyTurn<'_, B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    #[inline]
    pub(super) fn poll(mut self, cx: &mut Context<'_>) -> Poll<Item> {
        let Recorder { phase, limit, .. } = self.recorder;
        let source = self.source.as_mut().and_then(|source| source.as_mut());
        let source = source.expect(IN_TURN);
        let polled = source.peek(cx);
        if phase.load() == Phase::Passing {
            return source.pop().map_or(Poll::Pending, Poll::Ready);
        }
        let (mut freed, mut stale) = (None, None);
        let mut state = self.recorder.state();
        let given = match phase.load() {
            Phase::Recording => {
                match polled {
                    Poll::Ready(item) if state.kept.push(item, *limit) => {}
                    Poll::Ready(_) => {
                        phase.store(Phase::Passing);
                        freed = Some(mem::take(&mut state.kept));
                    }
                    Poll::Pending => stale = leave(&mut state.first, cx.waker()),
                }
                source.pop()
            }
            Phase::Passing => source.pop(),
            Phase::Held => {
                stale = leave(&mut state.first, cx.waker());
                None
            }
            Phase::Taken | Phase::Gone => Some(taken_over()),
        };
        self.end(state);
        drop((freed, stale));
        given.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<B> BodyTurn<'_, B> {
    pub(super) fn source(&self) -> &Source<B> {
        let source = self.source.as_ref().and_then(|source| source.as_ref());
        source.expect(IN_TURN)
    }

    /// Gives the body back, with `state` locked: see `recorder`.
    #[inline]
    fn end(&mut self, mut state: MutexGuard<'_, Progress>) {
        let Some(mut source) = self.source.take() else {
            return;
        };
        match self.recorder.phase.load() {
            Phase::Recording | Phase::Passing | Phase::Held => {}
            Phase::Taken => {
                drop(source);
                let retry = state.retry.take();
                drop(state);
                wake(retry);
            }
            Phase::Gone => {
                let body = source.take();
                drop(source);
                drop(state);
                drop(body);
            }
        }
    }
}

impl<B> Drop for BodyTurn<'_, B> {
    #[inline]
    fn drop(&mut self) {
        // One that passes for good is nobody else's.
        if self.source.is_none() || self.recorder.phase.load() == Phase::Passing {
            return;
        }
        let mut freed = None;
        let mut state = self.recorder.state();
        // Should the body have panicked, nobody else has said so.
        if self.source().fails() && self.recorder.phase.load() == Phase::Recording {
            self.recorder.phase.store(Phase::Passing);
            freed = Some(mem::take(&mut state.kept));
        }
        self.end(state);
        drop(freed);
    }
}
