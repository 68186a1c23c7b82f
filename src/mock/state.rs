//! What the server's connections share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{api::Records, tokens::Tokens};

#[derive(Default)]
pub(super) struct Shared {
    tokens: Mutex<Tokens>,
    counts: Mutex<Counts>,
    records: Mutex<Records>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) token_requests: usize,
    pub(super) api_requests: usize,
    pub(super) rejections: usize,
}

impl Shared {
    pub(super) fn tokens(&self) -> MutexGuard<'_, Tokens> {
        lock(&self.tokens)
    }

    pub(super) fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut lock(&self.counts));
    }

    pub(super) fn records(&self) -> MutexGuard<'_, Records> {
        lock(&self.records)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
