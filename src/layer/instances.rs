//! What the clones of a service share, and the requests that they have sent.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Auth;

/// The layer's part, and a clone of the inner service, of which retries are sent by clones. A request
/// holds on to this with one reference count, where a clone of an HTTP client of its own would cost it
/// five, and some hundred bytes to move. The lock makes it `Sync`; only retries take it.
pub(super) struct Instances<S> {
    pub(super) auth: Arc<Auth>,
    spare: OnceLock<Mutex<S>>,
}

impl<S> Instances<S> {
    pub(super) fn new(auth: Arc<Auth>) -> Arc<Self> {
        Arc::new(Self {
            auth,
            spare: OnceLock::new(),
        })
    }
}

impl<S: Clone> Instances<S> {
    /// Keeps a clone of `inner`, unless there is one.
    #[inline]
    pub(super) fn keep(&self, inner: &S) {
        self.spare.get_or_init(|| Mutex::new(inner.clone()));
    }

    /// An instance to make ready.
    ///
    /// # Panics
    ///
    /// If none has been kept.
    pub(super) fn instance(&self) -> S {
        let spare = self
            .spare
            .get()
            .expect("a service keeps one with its first request");
        spare.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
