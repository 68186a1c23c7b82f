//! How long a new token that is refused is given, before another is fetched in its place.
//!
//! ```text
//!   an unproven newest token is refused
//!     the first in a row ──────────────────────────► replaced at once
//!     the second and on ── younger than 1, 10 … 120 s ► kept; in its first second requests are held for it
//!                       └─ older ──────────────────► replaced
//!   the newest token is accepted ──────────────────► the row ends
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::{
    tokens::{RECENT, Tokens},
    tracked::{SECOND, Tracked},
};
use crate::token::clock::Moment;

/// At what age a newest token must have been refused to be replaced, the second time in a row and on.
const PATIENCE: [Duration; 6] = [
    SECOND,
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(40),
    Duration::from_secs(80),
    Duration::from_secs(120),
];

impl Tokens {
    /// Whether the newest token is to be replaced, now that a token has been refused.
    pub(super) fn is_to_be_replaced(&self, refused: u64, now: Instant) -> bool {
        let Some(newest) = self.newest() else {
            return true;
        };
        if newest.proven {
            return newest.generation() == refused;
        }
        if self.get(refused).is_none() {
            return false; // it counts only against the token that it was about
        }
        let Some(age) = newest.refused else {
            return false;
        };
        let patience = (self.row.checked_sub(1)).map(|row| PATIENCE[row.min(PATIENCE.len() - 1)]);
        let old_enough = patience.is_none_or(|patience| age > patience);
        let mut others = self.served.iter().chain(&self.candidate);
        let other = others.find(|tracked| tracked.generation() != newest.generation());
        let other_works = other.is_some_and(|other| {
            other.accepted && (!other.doubted || other.accepted_within(RECENT, now))
        });
        old_enough && !other_works
    }

    /// Until when a request has to be held that could only take a token which has been refused, and
    /// which may be too young to be known everywhere. `refused`: the token it was refused with, if any.
    pub(super) fn hold_until(&self, refused: Option<u64>, now: Moment) -> Option<Instant> {
        let newest = self
            .newest()
            .filter(|tracked| tracked.is_too_young(now.mono))?;
        let hopeless = |tracked: Option<&Tracked>| {
            tracked.is_none_or(|tracked| tracked.doubted && !tracked.accepted)
        };
        let hold = match refused {
            Some(refused) if refused == newest.generation() => {
                self.row > 0 && hopeless(self.other(refused, now))
            }
            Some(refused) => {
                let other = self.other(refused, now).map(Tracked::generation);
                other == Some(newest.generation())
            }
            None => {
                let served = self.served.as_ref().map(Tracked::generation);
                let candidate = self.candidate.as_ref();
                let is_served = served == Some(newest.generation());
                is_served && candidate.is_none_or(|candidate| candidate.doubted)
            }
        };
        hold.then(|| newest.since + SECOND)
    }

    /// A fetch for a rejection has replaced an unproven token.
    pub(super) fn count_replaced(&mut self) {
        self.row = self.row.saturating_add(1);
    }
}
