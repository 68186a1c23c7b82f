//! What the server's connections share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

use super::{api::Records, tokens::Tokens};

#[derive(Default)]
pub(super) struct Shared {
    tokens: Mutex<Tokens>,
    counts: Mutex<Counts>,
    records: Mutex<Records>,
    /// Ended with the server: none of them holds this.
    streams: Mutex<JoinSet<()>>,
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

    pub(super) fn spawn_stream(&self, stream: impl Future<Output = ()> + Send + 'static) {
        let mut streams = lock(&self.streams);
        while streams.try_join_next().is_some() {}
        streams.spawn(stream);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
