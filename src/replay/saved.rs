//! What is kept of a request for its retry, head and body, in one allocation.

use std::sync::{Arc, PoisonError};

use http::Request;

use super::{head::Head, record::Recorder};
use crate::sync::{Mutex, MutexGuard};

#[derive(Debug)]
pub(crate) struct Saved<B> {
    pub(super) head: Head,
    /// `None` for a body that is empty, or known to be over the limit.
    recorder: Option<Mutex<Recorder<B>>>,
}

impl<B> Saved<B> {
    pub(super) fn new<T>(request: &Request<T>, recorder: Option<Recorder<B>>) -> Arc<Self> {
        let mut saved = Arc::new(Self {
            head: Head::new(),
            recorder: recorder.map(Mutex::new),
        });
        Arc::get_mut(&mut saved)
            .expect("it is not shared yet")
            .head
            .save(request);
        saved
    }

    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder<B>> {
        let recorder = self
            .recorder
            .as_ref()
            .expect("only what is recorded is asked for");
        recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
