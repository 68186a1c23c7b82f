//! What is kept of a body while it passes: its frames, in order.
//!
//! A frame is a reference to bytes in someone else's buffer, and keeps all of that buffer alive. So only large
//! frames are kept by reference. Small ones are copied together, into runs.

use std::vec;

use bytes::Bytes;
use http::HeaderMap;

use super::frame::Item;

/// Frames of fewer bytes are copied.
const SMALL: usize = 1024;

/// How many bytes are copied into one run.
const RUN: usize = 16 * 1024;

/// Empty frames take no bytes of the limit, but room all the same.
const FRAMES: usize = 65_536;

#[derive(Default)]
pub(super) struct Frames {
    parts: Vec<Part>,
    frames: usize,
    bytes: usize,
}

enum Part {
    Large(Bytes),
    Small(Box<Run>),
    /// Boxed, for they are rare and large.
    Trailers(Box<HeaderMap>),
}

/// Small frames: their bytes, one after the other, and the length of each.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    lengths: Vec<u16>,
}

impl Frames {
    /// Keeps a frame. `false` if it is an error, or more than the limit, in bytes, or one frame more than are kept.
    #[inline]
    pub(super) fn push(&mut self, item: &Item, limit: usize) -> bool {
        match item {
            Item::End => return true,
            Item::Error(_) => return false,
            Item::Data(data) if self.has_room(data.len(), limit) => match data.len() {
                ..SMALL => self.copy(data),
                SMALL.. => self.parts.push(Part::Large(data.clone())),
            },
            Item::Trailers(trailers) if self.has_room(0, limit) => {
                self.parts.push(Part::Trailers(trailers.clone()));
            }
            Item::Data(_) | Item::Trailers(_) => return false,
        }
        true
    }

    /// Counts a frame in, and sees to it that there is room for it. `false` if it is one too many.
    #[inline]
    fn has_room(&mut self, bytes: usize, limit: usize) -> bool {
        self.frames += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > limit || self.frames > FRAMES {
            return false;
        }
        if self.parts.is_empty() {
            // A few frames are many.
            self.parts.reserve(16);
        }
        true
    }

    fn copy(&mut self, data: &[u8]) {
        match self.parts.last_mut() {
            Some(Part::Small(run)) if run.bytes.len() + data.len() <= RUN => run.push(data),
            _ => {
                let mut run = Box::<Run>::default();
                run.push(data);
                self.parts.push(Part::Small(run));
            }
        }
    }

    /// There will be no more.
    pub(super) fn replay(self) -> Replaying {
        Replaying {
            parts: self.parts.into_iter(),
            run: None,
        }
    }
}

impl Run {
    fn push(&mut self, data: &[u8]) {
        let (length, room) = (self.bytes.len(), self.bytes.capacity());
        if room < length + data.len() {
            // Twice as much, but no more than a run ever has.
            let more = (2 * room).clamp(length + data.len(), RUN) - length;
            self.bytes.reserve_exact(more);
        }
        self.bytes.extend_from_slice(data);
        self.lengths.push(data.len() as u16);
    }
}

/// What is kept, on its way out: freed as it goes.
pub(super) struct Replaying {
    parts: vec::IntoIter<Part>,
    run: Option<(Bytes, vec::IntoIter<u16>)>,
}

impl Replaying {
    pub(super) fn is_empty(&self) -> bool {
        let run = self.run.as_ref();
        self.parts.as_slice().is_empty()
            && run.is_none_or(|(_, lengths)| lengths.as_slice().is_empty())
    }
}

impl Iterator for Replaying {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if let Some((bytes, lengths)) = &mut self.run {
                if let Some(length) = lengths.next() {
                    return Some(Item::Data(bytes.split_to(length.into())));
                }
                self.run = None;
            }
            match self.parts.next()? {
                Part::Large(data) => return Some(Item::Data(data)),
                Part::Trailers(trailers) => return Some(Item::Trailers(trailers)),
                Part::Small(run) => self.run = Some((run.bytes.into(), run.lengths.into_iter())),
            }
        }
    }
}
