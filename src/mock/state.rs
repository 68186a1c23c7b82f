//! What the server's connections share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

use super::{Reply, api::Records, tokens::IssuedTokens};

/// What is left of the answers that the server was told to give.
type Script = Box<dyn Iterator<Item = Reply> + Send>;

#[derive(Default)]
pub(super) struct MockState {
    tokens: Mutex<IssuedTokens>,
    token_script: Mutex<Option<Script>>,
    api_script: Mutex<Option<Script>>,
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

impl MockState {
    pub(super) fn tokens(&self) -> MutexGuard<'_, IssuedTokens> {
        lock(&self.tokens)
    }

    pub(super) fn script_tokens(&self, replies: impl Iterator<Item = Reply> + Send + 'static) {
        extend(&self.token_script, replies);
    }

    pub(super) fn next_token_reply(&self) -> Option<Reply> {
        next(&self.token_script)
    }

    pub(super) fn script_api(&self, replies: impl Iterator<Item = Reply> + Send + 'static) {
        extend(&self.api_script, replies);
    }

    pub(super) fn next_api_reply(&self) -> Option<Reply> {
        next(&self.api_script)
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

fn extend(script: &Mutex<Option<Script>>, replies: impl Iterator<Item = Reply> + Send + 'static) {
    let mut script = lock(script);
    *script = Some(match script.take() {
        Some(before) => Box::new(before.chain(replies)),
        None => Box::new(replies),
    });
}

fn next(script: &Mutex<Option<Script>>) -> Option<Reply> {
    let mut script = lock(script);
    let reply = script.as_mut()?.next();
    if reply.is_none() {
        *script = None;
    }
    reply
}
