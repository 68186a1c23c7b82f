//! The handles on a recorded body: one for each attempt, and one for the future between them.

use std::{
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use http_body::{Body, SizeHint};
use tower::BoxError;

use super::{
    headers::Small,
    part::Polled,
    recorder::{Attempt, Recorder, taken_over},
};
use crate::sync::{Mutex, MutexGuard};

/// What the handles share, in the one allocation that a request in memory costs: there is room in it
/// for the headers of most.
struct Saved<B> {
    /// `None` once nobody will send it.
    recorder: Mutex<Option<Recorder<B>>>,
    packed: Small,
}

impl<B> Saved<B> {
    fn recorder(&self) -> MutexGuard<'_, Option<Recorder<B>>> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One attempt's view of the recorded body.
pub(super) struct Recorded<B> {
    saved: Arc<Saved<B>>,
    attempt: Attempt,
}

impl<B> Recorded<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Polled> {
        match (&mut *self.saved.recorder(), self.attempt) {
            (Some(recorder), Attempt::First) => recorder.poll_first(cx),
            (Some(recorder), Attempt::Retry) => recorder.poll_retry(cx),
            // The retry has come and gone.
            (None, _) => Poll::Ready(taken_over()),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let recorder = self.saved.recorder();
        let recorder = recorder.as_ref();
        recorder.map_or_else(SizeHint::default, |it| it.hint(self.attempt))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let recorder = self.saved.recorder();
        recorder
            .as_ref()
            .is_some_and(|it| it.is_at_end(self.attempt))
    }
}

impl<B> Drop for Recorded<B> {
    /// Nobody polls the body after its retry, though a first attempt that is stuck may hold on to it.
    fn drop(&mut self) {
        if self.attempt == Attempt::Retry {
            let recorder = self.saved.recorder().take();
            drop(recorder);
        }
    }
}

/// The future's handle on a body that its first attempt is sending. Dropped, it stops the recording.
pub(super) struct Recording<B> {
    saved: Arc<Saved<B>>,
    taken: bool,
}

const BEFORE_RETRY: &str = "only the retry frees the recorder";

impl<B> Recording<B> {
    /// The body for the first attempt, and the handle.
    #[inline]
    pub(super) fn start(recorder: Recorder<B>, packed: Small) -> (Recorded<B>, Self) {
        let saved = Arc::new(Saved {
            recorder: Mutex::new(Some(recorder)),
            packed,
        });
        let first = Recorded {
            saved: Arc::clone(&saved),
            attempt: Attempt::First,
        };
        (
            first,
            Self {
                saved,
                taken: false,
            },
        )
    }

    /// The headers, unless there was no room for them.
    pub(super) fn packed(&self) -> &[u8] {
        self.saved.packed.bytes()
    }

    /// Holds the first attempt's body back, to be taken over or let go. `false` if that cannot be.
    pub(super) fn hold(&self) -> bool {
        let mut recorder = self.saved.recorder();
        recorder.as_mut().expect(BEFORE_RETRY).hold()
    }

    /// Takes the held body over, for the retry.
    pub(super) fn take_over(&mut self) -> Recorded<B> {
        let mut recorder = self.saved.recorder();
        let first = recorder.as_mut().expect(BEFORE_RETRY).take_over();
        drop(recorder);
        self.taken = true;
        wake(first);
        Recorded {
            saved: Arc::clone(&self.saved),
            attempt: Attempt::Retry,
        }
    }
}

impl<B> Drop for Recording<B> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        if Arc::strong_count(&self.saved) == 1 {
            return; // the body has been sent, and is gone
        }
        let mut recorder = self.saved.recorder();
        let (_kept, first) = recorder.as_mut().expect(BEFORE_RETRY).let_go();
        drop(recorder);
        wake(first);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
