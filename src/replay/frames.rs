//! What is kept of a body while it passes: its frames, in order.
//!
//! A frame is a reference to bytes in someone else's buffer, and keeps all of that buffer alive. So only large
//! frames are kept by reference. Small ones are copied together, into runs.

use std::vec;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

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
    /// Keeps a frame. `false` if that is more than the limit, in bytes, or more frames than are kept.
    #[inline]
    pub(super) fn push(&mut self, frame: &Frame<Bytes>, limit: usize) -> bool {
        let length = frame.data_ref().map_or(0, Bytes::len);
        self.frames += 1;
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > limit || self.frames > FRAMES {
            return false;
        }
        if self.parts.is_empty() {
            // A few frames are many.
            self.parts.reserve(16);
        }
        match frame.data_ref() {
            Some(data) if length >= SMALL => self.parts.push(Part::Large(data.clone())),
            Some(data) => self.copy(data),
            None => {
                let trailers = frame.trailers_ref().cloned().map(Box::new);
                self.parts.extend(trailers.map(Part::Trailers));
            }
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
    type Item = Frame<Bytes>;

    fn next(&mut self) -> Option<Frame<Bytes>> {
        loop {
            if let Some((bytes, lengths)) = &mut self.run {
                if let Some(length) = lengths.next() {
                    return Some(Frame::data(bytes.split_to(length.into())));
                }
                self.run = None;
            }
            match self.parts.next()? {
                Part::Large(data) => return Some(Frame::data(data)),
                Part::Trailers(trailers) => return Some(Frame::trailers(*trailers)),
                Part::Small(run) => self.run = Some((run.bytes.into(), run.lengths.into_iter())),
            }
        }
    }
}
