//! The synchronisation that the token cache and the replay body are built on, in one place, so that
//! the tests of their interleavings can put a scheduler's own primitives here.

pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

pub(crate) use arc_swap::ArcSwapOption;
