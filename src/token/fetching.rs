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

use std::{panic::AssertUnwindSafe, sync::Weak};

use futures::{
    FutureExt,
    future::{AbortHandle, AbortRegistration, Abortable, Shared as SharedFuture},
};
use tokio::sync::oneshot;

use super::{
    AccessToken, FetchReason, TokenRequest,
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
    _abort: AbortOnDrop,
}

/// The task of a fetch, to be spawned once the lock is released.
#[must_use]
pub(super) struct Launch {
    reason: FetchReason,
    registration: AbortRegistration,
    /// Dropped without having run, it loses the fetch.
    ending: Ending,
}

impl InFlight {
    pub(super) fn new(id: u64, reason: FetchReason, cache: Weak<Inner>) -> (Self, Launch) {
        let (tell, told) = oneshot::channel();
        let (abort, registration) = AbortHandle::new_pair();
        let in_flight = Self {
            id,
            reason,
            handle: told.shared(),
            time: telemetry::Stopwatch::start(),
            tell,
            _abort: AbortOnDrop(abort),
        };
        let launch = Launch {
            reason,
            registration,
            ending: Ending { id, cache },
        };
        (in_flight, launch)
    }

    /// Tells everyone who waits. Not to be called under a lock: it wakes them.
    pub(super) fn tell(self, told: Told) {
        let Self { tell, .. } = self;
        // Nobody may be waiting, and that is fine.
        let _ = tell.send(told);
    }
}

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Launch {
    /// Not to be called under the cache's lock: a runtime that is being shut down drops the task there
    /// and then, which loses the fetch.
    pub(super) fn go(self, fetch: Fetch, newest: Option<AccessToken>) {
        let Self {
            reason,
            registration,
            ending,
        } = self;
        let Some(runtime) = rt::Runtime::current() else {
            return; // which loses it
        };
        let request = TokenRequest::new(reason);
        let request = match newest {
            Some(newest) => request.replacing(newest),
            None => request,
        };
        let task = telemetry::in_fetch(reason, async move {
            let outcome = run(fetch, request).await;
            ending.end(outcome);
        });
        runtime.spawn(async move {
            // Aborted or not, there is nothing more to do here.
            let _ = Abortable::new(task, registration).await;
        });
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

/// Ends the fetch once; dropped without that, it is lost.
struct Ending {
    id: u64,
    cache: Weak<Inner>,
}

impl Ending {
    fn end(self, outcome: Result<Fetched, TokenError>) {
        if let Some(cache) = self.cache.upgrade() {
            cache.fetched(self.id, outcome);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.upgrade() {
            // Once it has ended the machine knows it no more, and nothing is lost.
            cache.lost(self.id);
        }
    }
}
