//! A body that is polled for its frames, and what has been polled of it ahead of its time.

use std::{
    fmt, mem,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, SizeHint};
use tower::BoxError;

use super::frame::{Polled, poll_known};

pub(crate) struct Source<B> {
    body: B,
    /// What the body said before it was polled.
    pub(super) original: SizeHint,
    ahead: Ahead,
    stage: Stage,
}

/// What was polled before anybody asked, in order: two frames are enough to see that a body is not in memory
/// whole, and what is put back was taken from here, or there is nothing else.
#[derive(Default)]
pub(super) struct Ahead {
    next: Option<Polled>,
    last: Option<Polled>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody has been given anything yet.
    Fresh,
    Begun,
    /// The body has ended, or failed.
    Ended,
    Panicked,
}

impl<B> Source<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        if let Some(polled) = self.ahead.pop() {
            let ends = matches!(polled, None | Some(Err(_)));
            self.stage = if ends { Stage::Ended } else { Stage::Begun };
            return Poll::Ready(polled);
        }
        match self.stage {
            Stage::Fresh | Stage::Begun => {}
            Stage::Ended => return Poll::Ready(None),
            Stage::Panicked => return Poll::Ready(Some(Err(Panicked.into()))),
        }
        // Should it panic.
        let stage = mem::replace(&mut self.stage, Stage::Panicked);
        let polled = poll_known(&mut self.body, cx);
        self.stage = match polled {
            Poll::Pending => stage,
            Poll::Ready(Some(Ok(_))) => Stage::Begun,
            Poll::Ready(None | Some(Err(_))) => Stage::Ended,
        };
        polled
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        if self.stage == Stage::Fresh {
            return self.original;
        }
        let Ahead { next, last } = &self.ahead;
        let ahead: u64 = [next, last].into_iter().flatten().map(length).sum();
        shifted(&self.body.size_hint(), |rest| rest.saturating_add(ahead))
    }

    /// What the body itself says, though it may be known here that it has ended.
    pub(super) fn is_end_stream(&self) -> bool {
        self.ahead.next.is_none() && self.body.is_end_stream()
    }
}

impl<B> Source<B> {
    /// The body, what it said before it was polled, and what came of that.
    #[inline]
    pub(super) fn new(body: B, original: SizeHint, ahead: Ahead) -> Self {
        Self {
            body,
            original,
            ahead,
            stage: Stage::Fresh,
        }
    }

    /// Undoes a poll.
    #[cold]
    pub(super) fn put_back(&mut self, polled: Polled) {
        self.ahead.last = self.ahead.next.replace(polled);
    }

    /// Whether it has panicked, or is known to fail.
    pub(super) fn fails(&self) -> bool {
        self.stage == Stage::Panicked || self.ahead.fails()
    }
}

impl Ahead {
    pub(super) fn push(&mut self, polled: Polled) {
        let place = match self.next {
            None => &mut self.next,
            Some(_) => &mut self.last,
        };
        *place = Some(polled);
    }

    #[inline]
    fn pop(&mut self) -> Option<Polled> {
        let polled = self.next.take()?;
        self.next = self.last.take();
        Some(polled)
    }

    fn fails(&self) -> bool {
        let fails = |polled: &Option<Polled>| matches!(polled, Some(Some(Err(_))));
        fails(&self.next) || fails(&self.last)
    }
}

fn length(polled: &Polled) -> u64 {
    match polled {
        Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
        _ => 0,
    }
}

/// What is left to come of a body after so many bytes.
pub(super) fn less(hint: &SizeHint, bytes: u64) -> SizeHint {
    shifted(hint, |rest| rest.saturating_sub(bytes))
}

fn shifted(hint: &SizeHint, shift: impl Fn(u64) -> u64) -> SizeHint {
    let mut shifted = SizeHint::new();
    shifted.set_lower(shift(hint.lower()));
    if let Some(upper) = hint.upper() {
        shifted.set_upper(shift(upper));
    }
    shifted
}

/// What a body fails with once it has panicked: what was sent of it must not pass for the whole.
#[derive(Debug)]
struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body of the request has panicked")
    }
}

impl std::error::Error for Panicked {}
