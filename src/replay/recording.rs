//! The handles on a recorded body: one for each attempt, and one for the future between them.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http_body::{Body, SizeHint};
use tower::BoxError;

use super::{
    frame::Item,
    frames::Replaying,
    recorder::{Recorder, wake},
    source::{Source, less},
};

/// The future's handle on a body that its first attempt is sending. Dropped, it stops the recording.
pub(super) struct Recording<B> {
    recorder: Arc<Recorder<B>>,
    original: SizeHint,
    taken: bool,
}

impl<B> Recording<B> {
    /// The body for the first attempt, and the handle.
    #[inline]
    pub(super) fn start(source: Source<B>, limit: usize) -> (Arc<Recorder<B>>, Self) {
        let original = source.original;
        let recorder = Arc::new(Recorder::new(source, limit));
        let recording = Self {
            recorder: Arc::clone(&recorder),
            original,
            taken: false,
        };
        (recorder, recording)
    }

    /// Holds the first attempt's body back, to be taken over or let go. `false` if that cannot be.
    pub(super) fn hold(&self) -> bool {
        self.recorder.hold()
    }

    /// Takes the held body over, for the retry.
    pub(super) fn take_over(&mut self) -> Retried<B> {
        let (kept, first) = self.recorder.take_over();
        self.taken = true;
        wake(first);
        Retried {
            recorder: Arc::clone(&self.recorder),
            kept: kept.replay(),
            original: self.original,
            begun: false,
            replayed: 0,
        }
    }
}

impl<B> Drop for Recording<B> {
    fn drop(&mut self) {
        // If there is no other handle, the body has been sent, and is gone.
        if !self.taken && Arc::strong_count(&self.recorder) > 1 {
            let (kept, first) = self.recorder.let_go();
            drop(kept);
            wake(first);
        }
    }
}

/// The retry's body: what was kept, then the rest.
pub(super) struct Retried<B> {
    recorder: Arc<Recorder<B>>,
    kept: Replaying,
    original: SizeHint,
    begun: bool,
    replayed: u64,
}

impl<B> Retried<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        self.begun = true;
        match self.kept.next() {
            Some(item) => {
                self.replayed += item.len() as u64;
                Poll::Ready(item)
            }
            None => self.recorder.poll_retry(cx),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        // At first it is the original's own, and as long as the first attempt has the body.
        let rest = || self.recorder.with_source(|source| source.size_hint());
        let own = self.begun && self.kept.is_empty();
        let rest = if own { rest() } else { None };
        rest.unwrap_or_else(|| less(&self.original, self.replayed))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let at_end = || self.recorder.with_source(|source| source.is_end_stream());
        self.kept.is_empty() && at_end() == Some(true)
    }
}

impl<B> Drop for Retried<B> {
    /// Nobody polls the body after its retry, though a first attempt that is stuck may hold on to it.
    fn drop(&mut self) {
        drop(self.recorder.abandon());
    }
}
