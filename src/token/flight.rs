//! One fetch of a token, in a task of its own.
//!
//! ```text
//!                 token, error, panic, deadline
//!   in the slot ────────────────────────────────► landed: published, then everyone is told
//!        │
//!        │ its runtime is shut down                ► lost: the slot is free, waiters start anew
//!        │ it outlives its deadline in a runtime
//!        │ that no longer runs it                  ► replaced: whatever it brings is ignored
//!        └ the last layer and service are dropped  ► aborted
//! ```
//!
//! The slot holds what answers the waiters. The task holds a weak handle only, so that a fetch keeps
//! nothing alive; and it is dropped without landing only when it is lost.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{AbortHandle, AbortRegistration, Abortable, Shared},
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    FetchReason, TokenRequest,
    book::{Book, Key},
    live::Live,
    service::{Fetch, Fetched},
};
use crate::{TokenError, TokenErrorKind, rt, telemetry};

const DEADLINE: Duration = Duration::from_secs(35);
/// A flight this much past its deadline is in a runtime that does not run it.
const OVERDUE: Duration = Duration::from_secs(40);

pub(crate) type Landed = Result<Arc<Live>, TokenError>;

/// What waiters hold.
#[derive(Debug, Clone)]
pub(crate) struct Landing {
    told: Shared<oneshot::Receiver<Landed>>,
    overdue: Instant,
}

impl Landing {
    /// What the flight brought; `None` if it was lost, or is overdue.
    pub(crate) async fn wait(self) -> Option<Landed> {
        let limit = self.overdue.saturating_duration_since(Instant::now());
        let time = telemetry::Stopwatch::start();
        let landed = rt::timeout(limit, self.told).await;
        telemetry::waited(time);
        landed?.ok()
    }
}

/// A flight under way, in the cache's slot. Dropping it aborts the task and fails the landing.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) id: u64,
    pub(crate) reason: FetchReason,
    pub(crate) landing: Landing,
    /// A rejection started or joined it.
    pub(crate) after_rejection: bool,
    /// The key whose rejection started it.
    pub(crate) made_for: Option<Key>,
    pub(crate) time: telemetry::Stopwatch,
    tell: oneshot::Sender<Landed>,
    _abort: AbortOnDrop,
}

impl Flight {
    pub(crate) fn new(
        id: u64,
        reason: FetchReason,
        made_for: Option<Key>,
        now: Instant,
    ) -> (Self, AbortRegistration) {
        let (tell, told) = oneshot::channel();
        let (abort, registration) = AbortHandle::new_pair();
        let landing = Landing {
            told: told.shared(),
            overdue: now + OVERDUE,
        };
        let flight = Self {
            id,
            reason,
            landing,
            after_rejection: made_for.is_some(),
            made_for,
            time: telemetry::Stopwatch::start(),
            tell,
            _abort: AbortOnDrop(abort),
        };
        (flight, registration)
    }

    /// From when on its runtime is taken to have stopped running it.
    pub(crate) fn overdue(&self) -> Instant {
        self.landing.overdue
    }

    /// It comes to nothing for reasons that are not the endpoint's.
    pub(crate) fn judge_nobody(&self, book: &mut Book) {
        if let Some(key) = &self.made_for {
            book.lost(key, self.id);
        }
    }

    /// Tells everyone who waits. Not to be called under a lock: it wakes them.
    pub(crate) fn tell(self, landed: Landed) {
        let Self { tell, .. } = self;
        // Nobody may be waiting, and that is fine.
        let _ = tell.send(landed);
    }
}

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where a flight lands.
pub(crate) trait Home: Send + Sync + 'static {
    fn land(&self, id: u64, outcome: Result<Fetched, TokenError>);
    /// It will not land. With an error, its waiters are told that, else they start anew.
    fn lose(&self, id: u64, told: Option<TokenError>);
}

/// Sets a flight off. Not to be called under the cache's lock: a runtime that is being shut down drops
/// the task there and then, which loses the flight.
pub(crate) fn launch<H: Home>(
    fetch: Fetch,
    request: TokenRequest,
    id: u64,
    home: Weak<H>,
    registration: AbortRegistration,
) {
    let Some(runtime) = rt::Runtime::current() else {
        let error =
            TokenError::internal("a token is fetched in a task, and this is no tokio runtime");
        if let Some(home) = home.upgrade() {
            home.lose(id, Some(error));
        }
        return;
    };
    let ticket = Ticket { id, home };
    let task = telemetry::in_fetch(request.reason(), async move {
        let outcome = fly(fetch, request).await;
        ticket.land(outcome);
    });
    runtime.spawn(async move {
        // Aborted or not, there is nothing more to do here.
        let _ = Abortable::new(task, registration).await;
    });
}

async fn fly(fetch: Fetch, request: TokenRequest) -> Result<Fetched, TokenError> {
    let flight = rt::timeout(DEADLINE, async move { fetch(request).await });
    match AssertUnwindSafe(flight).catch_unwind().await {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Err(TokenError::new(
            TokenErrorKind::Timeout,
            format!("no token within {} s", DEADLINE.as_secs()),
        )),
        Err(_panic) => Err(TokenError::internal("the token service panicked")),
    }
}

/// Lands once; dropped without landing, the flight is lost.
struct Ticket<H: Home> {
    id: u64,
    home: Weak<H>,
}

impl<H: Home> Ticket<H> {
    fn land(self, outcome: Result<Fetched, TokenError>) {
        if let Some(home) = self.home.upgrade() {
            home.land(self.id, outcome);
        }
    }
}

impl<H: Home> Drop for Ticket<H> {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            // Once it has landed, the slot holds it no more, and nothing is lost.
            home.lose(self.id, None);
        }
    }
}
