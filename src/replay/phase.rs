//! The phase of a recorded body, to be read without a lock.

use crate::sync::{AtomicUsize, Ordering};

/// See [`recorder`](super::recorder).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Recording,
    Passing,
    Held,
    Taken,
    Gone,
}

pub(super) struct AtomicPhase(AtomicUsize);

impl AtomicPhase {
    pub(super) fn new(phase: Phase) -> Self {
        Self(AtomicUsize::new(phase as usize))
    }

    #[inline]
    pub(super) fn load(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Recording,
            1 => Phase::Passing,
            2 => Phase::Held,
            3 => Phase::Taken,
            _ => Phase::Gone,
        }
    }

    pub(super) fn store(&self, phase: Phase) {
        self.0.store(phase as usize, Ordering::Release);
    }
}
