//! A token that is kept, and what is known of it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Live, Moment};

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// A refused candidate as old as that is replaced by a fetch of its own.
const STALE: Duration = Duration::from_secs(120);

/// A token that is kept.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) live: Arc<Live>,
    pub(super) since: Instant,
    /// When it is refreshed ahead of its end.
    pub(super) due: Moment,
    /// When it is replaced if it is a candidate that has been refused.
    pub(super) stale: Instant,
    /// Since it took its place by turns, nobody having accepted it, it has to be accepted anew.
    pub(super) proven: bool,
    pub(super) accepted: bool,
    pub(super) last_accepted: Option<Instant>,
    /// Its last answer was a rejection.
    pub(super) doubted: bool,
    /// Its age when it was last refused.
    pub(super) refused: Option<Duration>,
}

impl Tracked {
    pub(super) fn new(live: Arc<Live>, due: Moment, now: Moment) -> Self {
        Self {
            live,
            since: now.mono,
            due,
            stale: now.mono + STALE,
            proven: false,
            accepted: false,
            last_accepted: None,
            doubted: false,
            refused: None,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.live.generation
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// By the clock that is further ahead, for each.
    pub(super) fn ends_later_than(&self, other: &Self, now: Moment) -> bool {
        now.until(self.live.ends) > now.until(other.live.ends)
    }

    pub(super) fn accepted_within(&self, period: Duration, now: Instant) -> bool {
        let last = self.last_accepted;
        last.is_some_and(|last| now.saturating_duration_since(last) < period)
    }

    /// Whether it has been refused, and never accepted.
    pub(super) fn was_only_refused(&self) -> bool {
        self.refused.is_some() && !self.accepted
    }

    /// Whether it has been refused, is not proven, and is in its first second.
    pub(super) fn is_too_young(&self, now: Instant) -> bool {
        !self.proven && self.refused.is_some() && self.age(now) < SECOND
    }

    /// The endpoint handed it out once more.
    pub(super) fn renew(&mut self, again: Self, now: Instant) {
        (self.live, self.due, self.stale) = (again.live, again.due, now + STALE);
    }
}
