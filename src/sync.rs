//! The synchronisation that the token cache and the replay body are built on, in one place: in the
//! crate's own unit tests it is shuttle's, whose scheduler explores their interleavings.

#[cfg(not(test))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

#[cfg(not(test))]
pub(crate) use arc_swap::ArcSwapOption;

#[cfg(test)]
pub(crate) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

#[cfg(test)]
pub(crate) use model::ArcSwapOption;

/// What of `arc_swap` is used here, by primitives that the scheduler knows.
#[cfg(test)]
mod model {
    use std::sync::{Arc, PoisonError};

    use super::Mutex;

    pub(crate) struct ArcSwapOption<T>(Mutex<Option<Arc<T>>>);

    impl<T> ArcSwapOption<T> {
        pub(crate) fn empty() -> Self {
            Self(Mutex::new(None))
        }

        pub(crate) fn load(&self) -> Option<Arc<T>> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        }

        pub(crate) fn store(&self, value: Option<Arc<T>>) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
        }
    }
}
