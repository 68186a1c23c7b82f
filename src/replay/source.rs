//! A body that is polled for its frames, and what has been polled of it ahead of its time.

use std::{
    fmt, mem,
    task::{Context, Poll, ready},
};

use http_body::{Body, SizeHint};
use tower::BoxError;

use super::frame::{Item, poll_item};

pub(super) struct Source<B> {
    body: B,
    /// What the body said before it was polled.
    pub(super) original: SizeHint,
    ahead: Ahead,
    stage: Stage,
}

/// What was polled before it goes to anybody, in order: two polls are enough to see that a body is not in memory whole.
#[derive(Default)]
pub(super) struct Ahead {
    next: Option<Item>,
    last: Option<Item>,
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
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        let _ = self.peek(cx);
        self.pop().map_or(Poll::Pending, Poll::Ready)
    }

    /// Polls for what comes next, and leaves it here until it is [popped](Self::pop).
    #[inline]
    pub(super) fn peek(&mut self, cx: &mut Context<'_>) -> Poll<&Item> {
        if self.ahead.next.is_none() {
            let item = match self.stage {
                Stage::Fresh | Stage::Begun => {
                    // Should it panic.
                    let stage = mem::replace(&mut self.stage, Stage::Panicked);
                    let polled = poll_item(&mut self.body, cx);
                    self.stage = stage;
                    ready!(polled)
                }
                Stage::Ended => Item::End,
                Stage::Panicked => Item::Error(Panicked.into()),
            };
            self.ahead.next = Some(item);
        }
        match &self.ahead.next {
            Some(item) => Poll::Ready(item),
            None => Poll::Pending,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        if self.stage == Stage::Fresh {
            return self.original;
        }
        let Ahead { next, last } = &self.ahead;
        let ahead: usize = [next, last].into_iter().flatten().map(Item::len).sum();
        shifted(&self.body.size_hint(), |rest| {
            rest.saturating_add(ahead as u64)
        })
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

    /// What was peeked at. Now it is somebody's.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.ahead.pop()?;
        if self.stage != Stage::Panicked {
            self.stage = match item {
                Item::Data(_) | Item::Trailers(_) => Stage::Begun,
                Item::Error(_) | Item::End => Stage::Ended,
            };
        }
        Some(item)
    }

    /// Whether it has panicked, or is known to fail.
    pub(super) fn fails(&self) -> bool {
        self.stage == Stage::Panicked || self.ahead.fails()
    }
}

impl Ahead {
    pub(super) fn push(&mut self, item: Item) {
        let place = match self.next {
            None => &mut self.next,
            Some(_) => &mut self.last,
        };
        *place = Some(item);
    }

    #[inline]
    fn pop(&mut self) -> Option<Item> {
        let item = self.next.take()?;
        self.next = self.last.take();
        Some(item)
    }

    pub(super) fn fails(&self) -> bool {
        let fails = |item: &Option<Item>| matches!(item, Some(Item::Error(_)));
        fails(&self.next) || fails(&self.last)
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
