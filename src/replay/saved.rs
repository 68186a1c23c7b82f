//! What is kept of a request for its retry, head and body, in one allocation and under one lock.

use std::sync::{Arc, PoisonError};

use super::{head::Head, record::Recorder};
use crate::sync::{Mutex, MutexGuard};

pub(crate) struct Saved<B> {
    pub(super) head: Head,
    /// `None` for a body that is empty or known to be over the limit, and once nobody will send it.
    pub(super) recorder: Option<Recorder<B>>,
}

/// A handle on it: the future has one, and so has the body of the attempt under way.
pub(crate) struct Shared<B>(Arc<Mutex<Saved<B>>>);

impl<B> Shared<B> {
    /// Has `save` fill the head in its place, for moving one costs more than filling it.
    pub(super) fn new(recorder: Option<Recorder<B>>, save: impl FnOnce(&mut Head)) -> Self {
        let head = Head::new();
        let mut saved = Arc::new(Mutex::new(Saved { head, recorder }));
        let own = Arc::get_mut(&mut saved).expect("it is not shared yet");
        let own = own.get_mut().unwrap_or_else(PoisonError::into_inner);
        save(&mut own.head);
        Self(saved)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Saved<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Clone for Shared<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
