//! A body that is polled for its frames, and what has been polled of it ahead of its time.

use std::{
    fmt, mem,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::frame::{Polled, poll_known};

pub(super) struct Source<B> {
    body: B,
    /// What the body said before it was polled.
    pub(super) original: SizeHint,
    ahead: Ahead,
    stage: Stage,
}

/// What was polled before anybody asked, in order: two polls are enough to see that a body is not in memory
/// whole, and what is put back was taken from here, or there is nothing else.
#[derive(Default)]
pub(super) struct Ahead {
    next: Option<Item>,
    last: Option<Item>,
}

/// What a body was polled for, in little room: until it is known what a body is, it is moved with this.
enum Item {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
    Error(BoxError),
    End,
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
        if let Some(item) = self.ahead.pop() {
            let ends = matches!(item, Item::End | Item::Error(_));
            self.stage = if ends { Stage::Ended } else { Stage::Begun };
            return Poll::Ready(item.into());
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
        let ahead: u64 = [next, last].into_iter().flatten().map(Item::len).sum();
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
        self.ahead.last = self.ahead.next.replace(polled.into());
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
        *place = Some(polled.into());
    }

    #[inline]
    fn pop(&mut self) -> Option<Item> {
        let item = self.next.take()?;
        self.next = self.last.take();
        Some(item)
    }

    fn fails(&self) -> bool {
        let fails = |item: &Option<Item>| matches!(item, Some(Item::Error(_)));
        fails(&self.next) || fails(&self.last)
    }
}

impl Item {
    fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            _ => 0,
        }
    }
}

impl From<Polled> for Item {
    fn from(polled: Polled) -> Self {
        let frame = match polled {
            None => return Self::End,
            Some(Err(error)) => return Self::Error(error),
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) => Self::Data(data),
            Err(frame) => Self::Trailers(Box::new(frame.into_trailers().unwrap_or_default())),
        }
    }
}

impl From<Item> for Polled {
    fn from(item: Item) -> Self {
        match item {
            Item::Data(data) => Some(Ok(Frame::data(data))),
            Item::Trailers(trailers) => Some(Ok(Frame::trailers(*trailers))),
            Item::Error(error) => Some(Err(error)),
            Item::End => None,
        }
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
