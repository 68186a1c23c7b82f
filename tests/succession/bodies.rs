//! The requests' bodies: those that can be sent again, and those that cannot.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

/// Bodies that cannot be sent again are longer than that.
pub const REPLAY_LIMIT: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    /// Small, and there whole.
    Replayable,
    /// Known in advance to be too long to be sent again.
    Known,
    /// Too long, as it turns out.
    Unknown,
}

/// One short frame, or two long ones.
pub struct Payload {
    bodies: Bodies,
    frames: usize,
}

static LONG: [u8; REPLAY_LIMIT] = [7; REPLAY_LIMIT];

impl Payload {
    pub fn new(bodies: Bodies) -> Self {
        let frames = if bodies == Bodies::Replayable { 1 } else { 2 };
        Self { bodies, frames }
    }

    fn frame(&self) -> &'static [u8] {
        match self.bodies {
            Bodies::Replayable => &LONG[..16],
            Bodies::Known | Bodies::Unknown => &LONG,
        }
    }

    pub fn left(&self) -> usize {
        self.frames * self.frame().len()
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(left) = self.frames.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.frames = left;
        let frame = Bytes::from_static(self.frame());
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames == 0
    }

    fn size_hint(&self) -> SizeHint {
        match self.bodies {
            Bodies::Unknown => SizeHint::default(),
            Bodies::Replayable | Bodies::Known => SizeHint::with_exact(self.left() as u64),
        }
    }
}
