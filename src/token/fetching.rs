//! One fetch of a token, in a task of its own.
//!
//! ```text
//!               token, error, panic, deadline
//!   in flight ────────────────────────────────► ended: the machine is told, then everyone who waits
//!        │
//!        │ its runtime is shut down, or has         ► lost: waiters start anew
//!        │ stopped running it
//!        └ the last layer and service are dropped   ► aborted
//! ```
//!
//! The cache holds what answers the waiters. The task holds a weak handle only, so that a fetch keeps
//! nothing alive.

use std::{
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Weak},
};

use futures::{
    FutureExt,
    future::{Either, Shared as SharedFuture, select},
};
use tokio::sync::oneshot;

use super::{
    FetchReason, TokenRequest,
    cache::Inner,
    machine::{DEADLINE, Told},
    service::{Fetch, Fetched},
};
use crate::{TokenError, TokenErrorKind, rt, telemetry};

/// What waiters hold. Its error says that the fetch was lost.
pub(super) type Handle = SharedFuture<oneshot::Receiver<Told>>;

/// A fetch under way. Dropping it aborts the task, and tells the waiters that the fetch is lost.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: u64,
    pub(super) reason: FetchReason,
    pub(super) handle: Handle,
    pub(super) time: telemetry::Stopwatch,
    tell: oneshot::Sender<Told>,
    /// Dropped, it aborts the task.
    _abort: oneshot::Sender<()>,
}

/// The task of a fetch, to be spawned once the lock is released. Dropped before that has ended, it loses
/// the fetch.
#[must_use]
pub(super) struct Launch {
    id: u64,
    request: TokenRequest,
    cache: Weak<Inner>,
    aborted: oneshot::Receiver<()>,
}

impl InFlight {
    pub(super) fn new(id: u64, request: TokenRequest, cache: Weak<Inner>) -> (Self, Launch) {
        let (tell, told) = oneshot::channel();
        let (abort, aborted) = oneshot::channel();
        let in_flight = Self {
            id,
            reason: request.reason,
            handle: told.shared(),
            time: telemetry::Stopwatch::start(),
            tell,
            _abort: abort,
        };
        let launch = Launch {
            id,
            request,
            cache,
            aborted,
        };
        (in_flight, launch)
    }

    /// Tells everyone who waits. Not to be called under a lock: it wakes them.
    pub(super) fn tell(self, told: Told) {
        // Nobody may be waiting, and that is fine.
        let _ = self.tell.send(told);
    }
}

impl Launch {
    /// Not to be called under the cache's lock: a runtime that is being shut down drops the task there
    /// and then, which loses the fetch.
    pub(super) fn go(mut self, fetch: &Fetch) {
        let Some(runtime) = rt::Runtime::current() else {
            return; // which loses it
        };
        let (fetch, reason) = (Arc::clone(fetch), self.request.reason);
        runtime.spawn(telemetry::in_fetch(reason, async move {
            let fetched = pin!(run(fetch, self.request.clone()));
            if let Either::Right((outcome, _)) = select(&mut self.aborted, fetched).await
                && let Some(cache) = self.cache.upgrade()
            {
                cache.fetched(self.id, outcome);
            }
        }));
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.upgrade() {
            // Once it has ended the machine knows it no more, and nothing is lost.
            cache.lost(self.id);
        }
    }
}

async fn run(fetch: Fetch, request: TokenRequest) -> Result<Fetched, TokenError> {
    let fetch = async move { rt::timeout(DEADLINE, fetch(request)).await };
    match AssertUnwindSafe(fetch).catch_unwind().await {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Err(TokenError::new(
            TokenErrorKind::Timeout,
            format!("no token within {} s", DEADLINE.as_secs()),
        )),
        Err(_panic) => Err(TokenError::internal("the token service panicked")),
    }
}
