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

use super::{
    Live, Moment,
    candidate::{Probing, Tracked},
    paths::Key,
};

/// For so long after somebody accepted a token its refusals are taken for their paths' own trouble.
pub(super) const RECENT: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// The served one, and then the candidate. One of them at most is taken to be accepted.
    pub(super) kept: Vec<Tracked>,
    /// That of the newest token there has been.
    pub(super) last_generation: u64,
    /// How many probes there have been.
    pub(super) probes: u64,
    /// How the candidate is tried; forgotten when another becomes it.
    pub(super) probing: Probing,
    turned: Option<Instant>,
    /// How many unproven tokens in a row have been replaced after their refusal.
    pub(super) row: usize,
}

// === what there is ===

impl Tokens {
    pub(super) fn served(&self) -> Option<&Tracked> {
        self.kept.first()
    }

    pub(super) fn candidate(&self) -> Option<&Tracked> {
        self.kept.get(1)
    }

    /// The served token, if it is live: not within the hard margin before its end.
    pub(super) fn live(&self, now: Moment) -> Option<&Tracked> {
        (self.served()).filter(|tracked| !now.has_reached(tracked.live.expires))
    }

    pub(super) fn get(&self, generation: u64) -> Option<&Tracked> {
        self.place(generation).map(|place| &self.kept[place])
    }

    fn place(&self, generation: u64) -> Option<usize> {
        let mut kept = self.kept.iter();
        kept.position(|tracked| tracked.generation() == generation)
    }

    pub(super) fn newest(&self) -> Option<&Tracked> {
        self.kept.iter().max_by_key(|tracked| tracked.generation())
    }

    /// The candidate, if it has not been refused and the served token's last answer was a rejection.
    pub(super) fn unrefused(&self) -> Option<Arc<Live>> {
        let (served, candidate) = self.served().zip(self.candidate())?;
        (served.doubted && candidate.refused.is_none()).then(|| Arc::clone(&candidate.live))
    }

    #[cfg(test)]
    pub(super) fn turned(&self) -> Option<Instant> {
        self.turned
    }

    /// The kept token with that secret.
    pub(super) fn generation_of(&self, secret: &str) -> Option<u64> {
        let mut kept = self.kept.iter();
        let found = kept.find(|tracked| tracked.live.token.expose_secret() == secret);
        found.map(Tracked::generation)
    }

    /// The candidate, if it is the newer of the two.
    pub(super) fn newer_candidate(&self) -> Option<&Tracked> {
        let (served, candidate) = self.served().zip(self.candidate())?;
        (candidate.generation() > served.generation()).then_some(candidate)
    }

    /// The live token to try after that one: the other one. If that one is kept no more, the one of two
    /// that has been accepted. One that has been accepted is also taken in the seconds before its end.
    pub(super) fn other(&self, generation: u64, now: Moment) -> Option<&Tracked> {
        let others = self.kept.iter().filter(|tracked| {
            let until = if tracked.accepted {
                tracked.live.ends
            } else {
                tracked.live.expires
            };
            tracked.generation() != generation && !now.has_reached(until)
        });
        others.min_by_key(|tracked| !tracked.accepted)
    }

    /// When a refresh ahead is due: before the served token's end, or to replace a candidate that has
    /// been refused.
    pub(super) fn refresh_due(&self, now: Moment) -> Option<Instant> {
        let served = self.served()?;
        let newer = self.newer_candidate();
        let stale = newer.filter(|it| it.refused.is_some()).map(|it| it.stale);
        // A successor that is still to be tried is not thrown away for another one.
        let has_successor = newer.is_some_and(|it| it.ends_later_than(served, now));
        let due = (!has_successor).then(|| now.mono + now.until(served.due));
        stale.into_iter().chain(due).min()
    }
}

// === what happens ===

impl Tokens {
    /// A fetch brought a token. `at_once`: it was asked for, so that it is served before it is tried.
    pub(super) fn bring(&mut self, mut brought: Tracked, at_once: bool, now: Moment) {
        if let Some(place) = self.place(brought.generation()) {
            return self.bring_same(place, brought, at_once, now.mono);
        }
        self.last_generation = brought.generation();
        let hopeless = |tracked: Option<&Tracked>| {
            tracked.is_none_or(|it| it.was_only_refused() || now.has_reached(it.live.expires))
        };
        let at_once = at_once || hopeless(self.served());
        let worth = |tracked: &Tracked| (tracked.accepted, tracked.generation());
        let stays = self.kept.drain(..).max_by_key(worth);
        self.probing = Probing::default();
        if at_once || hopeless(stays.as_ref()) {
            brought.last_accepted = Some(now.mono);
            self.kept.extend([brought].into_iter().chain(stays));
        } else {
            self.kept.extend(stays.into_iter().chain([brought]));
        }
    }

    fn bring_same(&mut self, place: usize, brought: Tracked, at_once: bool, now: Instant) {
        let same = brought.generation();
        self.kept[place].renew(brought, now);
        if place == 0 {
            // The endpoint vouches for it, and not for the other.
            (self.kept).retain(|it| it.generation() <= same || it.refused.is_none());
        } else if at_once || self.kept[0].was_only_refused() {
            self.change_places();
        }
    }

    /// The API accepted a token.
    pub(super) fn accepted(&mut self, generation: u64, now: Instant) {
        if self.newest().map(Tracked::generation) == Some(generation) {
            self.row = 0;
        }
        let Some(place) = self.place(generation) else {
            return;
        };
        let tracked = &mut self.kept[place];
        (tracked.accepted, tracked.proven, tracked.doubted) = (true, true, false);
        tracked.last_accepted = Some(now);
        if place > 0 {
            self.change_places();
        }
        // The older of the two is of no more use; the newer is still to be tried.
        self.kept.retain(|it| it.generation() >= generation);
        if let Some(newer) = self.kept.get_mut(1) {
            (newer.accepted, newer.proven) = (false, false);
        }
    }

    /// The API refused a token. `counts`: it may be the token's own fault.
    pub(super) fn refused(&mut self, generation: u64, path: &Key, counts: bool, now: Instant) {
        let Some(place) = self.place(generation) else {
            return;
        };
        let tracked = &mut self.kept[place];
        tracked.refused = tracked.refused.max(Some(tracked.age(now)));
        tracked.doubted |= counts;
        if place > 0 {
            self.probing.refused_by(path);
        }
    }

    /// Nobody has said that the served token was refused, so it is taken to be accepted.
    pub(super) fn trust_served(&mut self, now: Instant) {
        if let Some(served) = self.kept.first_mut() {
            served.last_accepted = Some(now);
        }
    }

    /// Should the served token still be due after a fetch, the next time is half of the way to its end.
    pub(super) fn put_off(&mut self, now: Moment) {
        if let Some(served) = self.kept.first_mut()
            && now.has_reached(served.due)
        {
            let rest = now.until(served.live.ends);
            served.due = now.after((rest / 2).max(Duration::from_secs(10)));
        }
    }

    /// What time alone does: tokens end, and one that is refused by all gives way to the candidate.
    pub(super) fn settle(&mut self, now: Moment) {
        self.kept.retain(|it| !now.has_reached(it.live.ends));
        if let [served, candidate] = &self.kept[..]
            && now.has_reached(served.live.expires)
            && !now.has_reached(candidate.live.expires)
        {
            self.change_places();
            // Retries may take one that has been accepted until its very end.
            self.kept.truncate(1 + usize::from(self.kept[1].accepted));
        }
        self.turn(now);
    }

    fn turn(&mut self, now: Moment) {
        let [served, candidate] = &mut self.kept[..] else {
            return;
        };
        let is_recent = |at: Instant| now.mono.saturating_duration_since(at) < RECENT;
        if !served.doubted
            || served.accepted_within(RECENT, now.mono)
            || self.turned.is_some_and(is_recent)
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
        self.kept.reverse();
        self.probing = Probing::default();
    }
}
