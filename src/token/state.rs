//! What the cache decides by, all of it under one lock.

use std::{sync::Arc, time::Duration};

use futures::future::AbortRegistration;
use tokio::time::Instant;

use super::{
    TokenRequest,
    book::Book,
    cache::Shared,
    flight::{self, Flight, Landing},
    live::Live,
    schedule::Backoff,
};
use crate::{TokenError, telemetry};

pub(super) struct State {
    /// The newest token there has been, even when it is live no more.
    pub(super) newest: Option<Arc<Live>>,
    pub(super) flight: Option<Flight>,
    pub(super) flights: u64,
    pub(super) refresh_failures: Backoff,
    pub(super) fetch_failures: Backoff,
    /// Until when calls without a live token fail, and with what.
    pub(super) cool_down: Option<(Instant, TokenError)>,
    /// Until when the endpoint has asked, beside a live token, not to be asked again.
    pub(super) asked_to_wait: Option<(Instant, TokenError)>,
    pub(super) book: Book,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            newest: None,
            flight: None,
            flights: 0,
            refresh_failures: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            fetch_failures: Backoff::new(Duration::from_millis(250), Duration::from_secs(10)),
            cool_down: None,
            asked_to_wait: None,
            book: Book::new(),
        }
    }

    /// That of the newest token; zero before there has been one.
    pub(super) fn generation(&self) -> u64 {
        self.newest.as_ref().map_or(0, |live| live.generation)
    }

    /// The id that the next flight will have.
    pub(super) fn next_flight(&self) -> u64 {
        self.flights + 1
    }

    /// The flight in the slot, unless its runtime has stopped running it.
    pub(super) fn running(&mut self, now: Instant) -> Option<&mut Flight> {
        self.flight.as_mut().filter(|flight| now < flight.overdue())
    }

    /// The error that calls without a live token fail with for now.
    pub(super) fn cooling_down(&self, now: Instant) -> Option<TokenError> {
        until(&self.cool_down, now)
    }

    pub(super) fn asked_to_wait(&self, now: Instant) -> Option<TokenError> {
        until(&self.asked_to_wait, now)
    }
}

fn until(wait: &Option<(Instant, TokenError)>, now: Instant) -> Option<TokenError> {
    let (end, error) = wait.as_ref()?;
    (now < *end).then(|| error.clone())
}

/// A flight that is in the slot, to be launched after the lock is released.
#[must_use]
pub(super) struct Launch {
    pub(super) id: u64,
    pub(super) request: TokenRequest,
    pub(super) landing: Landing,
    pub(super) registration: AbortRegistration,
    /// An overdue flight: dropped with this, since that wakes who waits for it.
    pub(super) replaced: Option<Flight>,
}

impl Launch {
    pub(super) fn go(self, home: &Shared) -> Landing {
        if let Some(overdue) = &self.replaced {
            telemetry::lost(overdue.reason, overdue.time);
        }
        let fetch = Arc::clone(&home.config.fetch);
        flight::launch(
            fetch,
            self.request,
            self.id,
            home.me.clone(),
            self.registration,
        );
        self.landing
    }
}
