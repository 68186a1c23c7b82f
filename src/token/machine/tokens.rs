//! The two tokens at most that are kept: the *served* one, and a *candidate* to take its place.
//!
//! ```text
//!                         a fetch brings another
//!   (none) ──► served ─────────────────────────────► served + candidate
//!                ▲                                        │
//!                │  the candidate is accepted, or the     │ nobody has accepted the served
//!                ├── served one ends ◄────────────────────┤ one for 2 s, and it was refused last
//!                │                                        ▼
//!                └── the served one is accepted ◄── they have changed places
//! ```
//!
//! What is brought is served at once if `refresh` asked for it, or if the served one has been refused and
//! never accepted; that is the candidate then. Of two tokens the older goes once the newer is accepted.
//!
//! A token that the API has accepted is not given up for one that it has not (make before break): new
//! tokens may need a while to be known everywhere, and until then the old one works. So what a fetch
//! brings is a candidate at first, carried by retries and by one request at a time, the *probe*.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{paths::Key, probes::Probing, tracked::Tracked};
use crate::token::{clock::Moment, live::Live};

/// For so long after somebody accepted a token its refusals are taken for their paths' own trouble.
pub(super) const RECENT: Duration = Duration::from_secs(2);
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) served: Option<Tracked>,
    pub(super) candidate: Option<Tracked>,
    /// That of the newest token there has been.
    pub(super) last_generation: u64,
    pub(super) probing: Probing,
    turned: Option<Instant>,
    /// How many unproven tokens in a row have been replaced after their refusal.
    pub(super) row: usize,
}

// === what there is ===

impl Tokens {
    pub(super) fn served(&self) -> Option<&Tracked> {
        self.served.as_ref()
    }

    pub(super) fn candidate(&self) -> Option<&Tracked> {
        self.candidate.as_ref()
    }

    /// The served token, if it is live: not within the hard margin before its end.
    pub(super) fn live(&self, now: Moment) -> Option<&Tracked> {
        (self.served.as_ref()).filter(|tracked| !now.has_reached(tracked.live.expires))
    }

    pub(super) fn get(&self, generation: u64) -> Option<&Tracked> {
        let mut tracked = self.served.iter().chain(&self.candidate);
        tracked.find(|tracked| tracked.generation() == generation)
    }

    fn get_mut(&mut self, generation: u64) -> Option<&mut Tracked> {
        let mut tracked = self.served.iter_mut().chain(&mut self.candidate);
        tracked.find(|tracked| tracked.generation() == generation)
    }

    pub(super) fn newest(&self) -> Option<&Tracked> {
        let tracked = self.served.iter().chain(&self.candidate);
        tracked.max_by_key(|tracked| tracked.generation())
    }

    /// The candidate, if it has not been refused and the served token's last answer was a rejection.
    pub(super) fn unrefused(&self) -> Option<Arc<Live>> {
        let (served, candidate) = (self.served.as_ref()?, self.candidate.as_ref()?);
        (served.doubted && candidate.refused.is_none()).then(|| Arc::clone(&candidate.live))
    }

    #[cfg(test)]
    pub(super) fn turned(&self) -> Option<Instant> {
        self.turned
    }

    /// The kept token with that secret.
    pub(super) fn generation_of(&self, secret: &str) -> Option<u64> {
        let mut tracked = self.served.iter().chain(&self.candidate);
        let found = tracked.find(|tracked| tracked.live.token.expose_secret() == secret);
        found.map(Tracked::generation)
    }

    /// The live token to try after that one: the other one. If that one is kept no more, the one of two
    /// that has been accepted. One that has been accepted is also taken in the seconds before its end.
    pub(super) fn other(&self, generation: u64, now: Moment) -> Option<&Tracked> {
        let tracked = self.served.iter().chain(&self.candidate);
        let mut others = tracked.filter(|tracked| {
            let until = if tracked.accepted {
                tracked.live.ends
            } else {
                tracked.live.expires
            };
            tracked.generation() != generation && !now.has_reached(until)
        });
        let first = others.next()?;
        Some(others.find(|tracked| tracked.accepted).unwrap_or(first))
    }
}

// === what happens ===

impl Tokens {
    /// A fetch brought a token. `at_once`: it was asked for, so that it is served before it is tried.
    pub(super) fn bring(&mut self, mut brought: Tracked, at_once: bool, now: Moment) {
        let secret = brought.live.token.expose_secret();
        if let Some(same) = self.generation_of(secret) {
            self.bring_same(same, brought, at_once, now.mono);
            return;
        }
        self.last_generation = brought.generation();
        let hopeless = |tracked: Option<&Tracked>| {
            tracked.is_none_or(|it| it.was_only_refused() || now.has_reached(it.live.expires))
        };
        let at_once = at_once || hopeless(self.served());
        let both = self.served.take().into_iter().chain(self.candidate.take());
        let kept = both.max_by_key(|tracked| (tracked.accepted, tracked.generation()));
        self.forget_probes();
        if at_once || hopeless(kept.as_ref()) {
            brought.last_accepted = Some(now.mono);
            (self.served, self.candidate) = (Some(brought), kept);
        } else {
            (self.served, self.candidate) = (kept, Some(brought));
        }
    }

    fn bring_same(&mut self, same: u64, brought: Tracked, at_once: bool, now: Instant) {
        let live = Arc::new(Live {
            generation: same,
            ..(*brought.live).clone()
        });
        if let Some(tracked) = self.get_mut(same) {
            tracked.renew(live, brought.due, now);
        }
        let is_served = self.served.as_ref().map(Tracked::generation) == Some(same);
        if is_served {
            // The endpoint vouches for it, and not for the other.
            let doubtful = (self.candidate)
                .take_if(|other| other.generation() > same && other.refused.is_some());
            if doubtful.is_some() {
                self.forget_probes();
            }
        } else if at_once || self.served.as_ref().is_some_and(Tracked::was_only_refused) {
            self.change_places();
        }
    }

    /// The API accepted a token.
    pub(super) fn accepted(&mut self, generation: u64, now: Instant) {
        if self.newest().map(Tracked::generation) == Some(generation) {
            self.row = 0;
        }
        let Some(tracked) = self.get_mut(generation) else {
            return;
        };
        (tracked.accepted, tracked.proven, tracked.doubted) = (true, true, false);
        tracked.last_accepted = Some(now);
        if self.candidate.as_ref().map(Tracked::generation) == Some(generation) {
            self.change_places();
        }
        // The older of the two is of no more use; the newer is still to be tried.
        if let Some(other) = &mut self.candidate {
            if other.generation() < generation {
                self.candidate = None;
                self.forget_probes();
            } else {
                (other.accepted, other.proven) = (false, false);
            }
        }
    }

    /// The API refused a token. `counts`: it may be the token's own fault.
    pub(super) fn refused(&mut self, generation: u64, path: &Key, counts: bool, now: Instant) {
        let Some(tracked) = self.get_mut(generation) else {
            return;
        };
        tracked.refused = tracked.refused.max(Some(tracked.age(now)));
        tracked.doubted |= counts;
        let is_candidate = self.candidate.as_ref().map(Tracked::generation) == Some(generation);
        if is_candidate {
            self.probing.refused_by(path);
        }
    }

    pub(super) fn probe_refused(&mut self, id: u64, now: Instant) {
        if self.end_probe(id) {
            self.rest(now);
        }
    }

    /// Nobody has said that the served token was refused, so it is taken to be accepted.
    pub(super) fn trust_served(&mut self, now: Instant) {
        if let Some(served) = &mut self.served {
            served.last_accepted = Some(now);
        }
    }

    /// Should the served token still be due after a fetch, the next time is half of the way to its end.
    pub(super) fn put_off(&mut self, now: Moment) {
        if let Some(served) = &mut self.served
            && now.has_reached(served.due)
        {
            let rest = now.until(served.live.ends);
            served.due = now.after((rest / 2).max(Duration::from_secs(10)));
        }
    }

    /// Whether a candidate that has been refused is to be replaced, and from when on.
    pub(super) fn stale(&self) -> Option<Instant> {
        let (served, candidate) = (self.served.as_ref()?, self.candidate.as_ref()?);
        let newer = candidate.generation() > served.generation();
        (newer && candidate.refused.is_some()).then_some(candidate.stale)
    }

    /// Whether the served token's successor is there already, and still to be tried.
    pub(super) fn has_successor(&self, now: Moment) -> bool {
        let both = self.served.as_ref().zip(self.candidate.as_ref());
        both.is_some_and(|(served, candidate)| {
            candidate.generation() > served.generation() && candidate.ends_later_than(served, now)
        })
    }

    /// What time alone does: tokens end, and one that is refused by all gives way to the candidate.
    pub(super) fn settle(&mut self, now: Moment) {
        let ended = |tracked: &mut Tracked| now.has_reached(tracked.live.ends);
        let expired = |tracked: &Tracked| now.has_reached(tracked.live.expires);
        if self.candidate.take_if(ended).is_some() {
            self.forget_probes();
        }
        self.served.take_if(ended);
        let served_expired = self.served.as_ref().is_none_or(expired);
        if let Some(candidate) = self.candidate.take_if(|it| served_expired && !expired(it)) {
            let before = self.served.replace(candidate);
            // Retries may take it until its very end.
            self.candidate = before.filter(|it| it.accepted);
            self.forget_probes();
        }
        if self.served.is_none() && self.candidate.is_some() {
            self.served = self.candidate.take();
        }
        self.turn(now);
    }

    fn turn(&mut self, now: Moment) {
        let (Some(served), Some(candidate)) = (&mut self.served, &self.candidate) else {
            return;
        };
        let is_recent = |at: Instant| now.mono.saturating_duration_since(at) < RECENT;
        let has_turned = self.turned.is_some_and(is_recent);
        if !served.doubted
            || served.accepted_within(RECENT, now.mono)
            || has_turned
            || now.has_reached(candidate.live.expires)
        {
            return;
        }
        served.proven = false;
        self.turned = Some(now.mono);
        self.change_places();
        self.rest(now.mono); // it was refused just now
    }

    fn change_places(&mut self) {
        std::mem::swap(&mut self.served, &mut self.candidate);
        self.forget_probes();
    }
}
