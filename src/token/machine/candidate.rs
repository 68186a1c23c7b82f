//! How a new token is tried: by probes, while the served one works; and for how long, if it is refused, before
//! another is fetched in its place.
//!
//! ```text
//!          the next request that may          accepted
//!   due ────────────────────────────► probe ───────────► the candidate takes over
//!    ▲                                 │  │
//!    │  dropped, failed, or            │  │ refused: it goes again with the served token
//!    ├──── no answer for 10 s ─────────┘  ▼
//!    └───────────────────────────────── rest 1 s, 2 s … 60 s
//!
//!   an unproven newest token is refused
//!     the first in a row ──────────────────────────► replaced at once
//!     the second and on ── younger than 1, 10 … 120 s ► kept; in its first second requests are held for it
//!                       └─ older ──────────────────► replaced
//!   the newest token is accepted ──────────────────► the row ends
//! ```

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Key, Live, Moment,
    gate::doubled,
    tokens::{RECENT, Tokens},
};

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

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const ANY_PATH_AFTER: Duration = Duration::from_secs(5);
const REFUSED_BY: usize = 64;

/// How the candidate is tried.
#[derive(Debug, Default)]
pub(super) struct Probing {
    /// The probe that is waited for, and since when.
    probe: Option<(u64, Instant)>,
    /// How many probes have been refused, and until when the next has to wait.
    refused: u32,
    rest_until: Option<Instant>,
    refused_by: Vec<Key>,
}

impl Probing {
    /// That path refused the candidate.
    pub(super) fn refused_by(&mut self, path: &Key) {
        if self.refused_by.len() < REFUSED_BY && !self.refused_by.contains(path) {
            self.refused_by.push(Arc::clone(path));
        }
    }
}

// === probes ===

impl Tokens {
    /// From when on the next request may be a probe, if any may.
    pub(super) fn probe_due(&self, now: Moment) -> Option<Instant> {
        let (served, candidate) = self.served().zip(self.candidate())?;
        let worth = candidate.ends_later_than(served, now) || served.doubted;
        if !worth || now.has_reached(candidate.live.expires) {
            return None;
        }
        let given_up = self.probing.probe.map(|(_, since)| since + ANSWER_WITHIN);
        Some(given_up.max(self.probing.rest_until).unwrap_or(now.mono))
    }

    pub(super) fn is_probe_due(&self, now: Moment) -> bool {
        self.probe_due(now).is_some_and(|due| due <= now.mono)
    }

    /// Makes a request of that path the probe, which is due, if it may be one.
    pub(super) fn probe(&mut self, path: &Key, now: Instant) -> Option<(Arc<Live>, u64)> {
        let candidate = self.candidate()?;
        let has_refused = self.probing.refused_by.contains(path);
        if has_refused && candidate.age(now) < ANY_PATH_AFTER {
            return None;
        }
        let live = Arc::clone(&candidate.live);
        Some((live, self.begin_probe(now)))
    }

    pub(super) fn begin_probe(&mut self, now: Instant) -> u64 {
        self.probes += 1;
        self.probing.probe = Some((self.probes, now));
        self.probes
    }

    /// The probe was answered, dropped or failed. Whether it was the one that is waited for.
    pub(super) fn end_probe(&mut self, id: u64) -> bool {
        let ended = self.probing.probe.take_if(|(probe, _)| *probe == id);
        ended.is_some()
    }

    pub(super) fn rest(&mut self, now: Instant) {
        let probing = &mut self.probing;
        let rest = doubled(SECOND, probing.refused, Duration::from_secs(60));
        probing.refused = probing.refused.saturating_add(1);
        probing.rest_until = Some(now + rest);
    }

    /// The served token was refused as well, for a request that had been a probe: that says nothing of
    /// the candidate, unless that is very young.
    pub(super) fn unrest(&mut self, now: Instant) {
        if (self.candidate()).is_some_and(|candidate| candidate.age(now) >= SECOND) {
            self.probing.refused = self.probing.refused.saturating_sub(1);
            self.probing.rest_until = None;
        }
    }
}

/// At what age a newest token must have been refused to be replaced, the second time in a row and on.
const PATIENCE: [Duration; 6] = [
    SECOND,
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(40),
    Duration::from_secs(80),
    Duration::from_secs(120),
];

// === patience ===

impl Tokens {
    /// Whether the newest token is to be replaced, now that a token has been refused. `retry`: for a request
    /// that can be sent again, and so with one that is in its hard margin.
    pub(super) fn is_to_be_replaced(&self, refused: u64, retry: bool, now: Moment) -> bool {
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
        let mut kept = self.kept.iter();
        let other = kept.find(|tracked| tracked.generation() != newest.generation());
        let other_works = other.is_some_and(|other| {
            let helps = !other.doubted && (retry || !now.has_reached(other.live.expires));
            other.accepted && (helps || other.accepted_within(RECENT, now.mono))
        });
        old_enough && !other_works
    }

    /// Until when a request has to be held that could only take a token which has been refused, and
    /// which may be too young to be known everywhere. `refused`: the token it was refused with, if any.
    pub(super) fn hold_until(&self, refused: Option<u64>, now: Moment) -> Option<Instant> {
        let newest = (self.newest()).filter(|tracked| tracked.is_too_young(now.mono))?;
        let only = |tracked: Option<&Tracked>| {
            tracked.map(Tracked::generation) == Some(newest.generation())
        };
        let hold = match refused {
            Some(refused) if refused == newest.generation() => {
                let hopeless = |other: &Tracked| other.doubted && !other.accepted;
                self.row > 0 && self.other(refused, now).is_none_or(hopeless)
            }
            Some(refused) => only(self.other(refused, now)),
            None => only(self.served()) && self.candidate().is_none_or(|other| other.doubted),
        };
        hold.then(|| newest.since + SECOND)
    }
}
