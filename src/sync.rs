//! The synchronisation that the token cache and the replay body are built on, in one place. With
//! `RUSTFLAGS="--cfg shuttle"` it is shuttle's, whose scheduler explores interleavings in the crate's unit tests.

#[cfg(not(shuttle))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

#[cfg(not(shuttle))]
pub(crate) use arc_swap::ArcSwapOption;

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

#[cfg(shuttle)]
pub(crate) use model::ArcSwapOption;

/// What of `arc_swap` is used here, by primitives that the scheduler knows.
#[cfg(shuttle)]
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
