//! The token machine: all that is decided about tokens, and nothing that is done.
//!
//! It has no lock, task, clock or I/O. Each method takes the moment and what happened, and returns what to
//! do; the shell around it, [`TokenCache`](super::cache::TokenCache), does that.
//!
//! ```text
//!  a request wants a token ────► wants ─────► add this one │ wait for the fetch │ be held │ fail
//!  it was rejected ────────────► rejected ──► send again with that one │ wait │ be held │ hand back
//!  it was accepted ────────────► accepted ──► that token is proven, and takes over
//!  nobody will know ───────────► unanswered
//!  a fetch ended ──────────────► fetched, lost
//!                                    │
//!            ┌───────────────────────┼──────────────────┬────────────────────────┐
//!            ▼                       ▼                  ▼                        ▼
//!         tokens                    gate              paths                   limits
//!   served and candidate,   may a fetch be made   which path is not     how many fetches may
//!   probes, turns,          after those that      helped by a new       rejections make, over
//!   patience                failed?               token?                all paths?
//! ```
//!
//! One fetch at most is under way. `wants`, `rejection` and `fetch` decide about the event that each is named
//! after, this file about the others.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::{AccessToken, FetchReason, cache::Live, clock::Moment};
use crate::TokenError;
use candidate::Tracked;
use fetch::Fetching;
pub(crate) use fetch::{Brought, Told};
use gate::{Gate, Urgency};
pub(crate) use paths::Key;
use paths::{Limits, Paths};
pub(crate) use rejection::Refusal;
use tokens::Tokens;
pub(crate) use wants::{Ask, Ended, Next, Wait, Waited, Want};

mod candidate;
mod fetch;
mod gate;
mod paths;
mod rejection;
mod tokens;
mod wants;

/// How long a fetch may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(35);
/// One that takes longer is in a runtime that does not run it.
const OVERDUE: Duration = Duration::from_secs(40);
/// For so long after a rejection, or a fetch, accepted answers are of interest.
const LISTEN: Duration = Duration::from_secs(15);
/// How often one accepted answer is told, if that is enough.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// How long one with a token waits for a new one.
pub(crate) const PATIENT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Machine {
    tokens: Tokens,
    gate: Gate,
    paths: Paths,
    limits: Limits,
    fetching: Option<Fetching>,
    fetches: u64,
    listen_until: Option<Instant>,
    /// When the next accepted answer is told, if one in a while is enough.
    next_sample: Option<Instant>,
    margin: Option<Duration>,
    rng: Rng,
    /// What is to be dropped where the user's code may run: errors can hold the user's own.
    dropped: Vec<TokenError>,
}

/// What the shell has to show.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) live: Option<Arc<Live>>,
    /// From when on the next request has to ask.
    pub(crate) ask: Instant,
    /// The next accepted answer is to be told.
    pub(crate) listens: bool,
    /// And its path as well.
    pub(crate) awaits: bool,
    pub(crate) fetching: Option<(u64, FetchReason)>,
    pub(crate) after_rejection: bool,
    /// The newest token, if requests may be held for it.
    pub(crate) held_for: Option<u64>,
}

impl Machine {
    /// `margin`: how long before its end a token is refreshed, if that was set.
    pub(crate) fn new(margin: Option<Duration>, rng: Rng) -> Self {
        Self {
            tokens: Tokens::default(),
            gate: Gate::new(),
            paths: Paths::default(),
            limits: Limits::new(),
            fetching: None,
            fetches: 0,
            listen_until: None,
            next_sample: None,
            margin,
            rng,
            dropped: Vec::new(),
        }
    }

    /// A request was accepted with that token. `retry`: it had been sent again. Its path, if the plan said
    /// that it is of interest.
    pub(crate) fn accepted(
        &mut self,
        now: Moment,
        generation: u64,
        path: Option<&str>,
        retry: bool,
    ) {
        self.settle(now);
        self.next_sample = Some(now.mono + SAMPLE_EVERY);
        self.tokens.accepted(generation, now.mono);
        if path.is_some_and(|path| self.paths.accepted(path, retry)) {
            self.limits.give_back();
        }
    }

    /// The probe was accepted, refused, dropped, or failed.
    pub(crate) fn probe_ended(&mut self, id: u64) {
        self.tokens.end_probe(id);
    }

    /// No retry will be answered for a rejected request of that path.
    pub(crate) fn unanswered(&mut self, path: &str) {
        self.paths.unanswered(path);
    }

    /// For a request that is sent again: the token of that generation, or should it be kept no more,
    /// another than the one it was refused with.
    pub(crate) fn pick(&self, now: Moment, generation: u64, refused: u64) -> Option<Arc<Live>> {
        let is_live = |tracked: &&Tracked| !now.has_reached(tracked.live.expires);
        let tracked = (self.tokens.get(generation).filter(is_live))
            .or_else(|| self.tokens.other(refused, now))
            .or_else(|| self.tokens.get(refused).filter(is_live))?;
        Some(Arc::clone(&tracked.live))
    }

    /// That of the kept token with this secret; zero if there is none.
    pub(crate) fn generation_of(&self, secret: &str) -> u64 {
        self.tokens.generation_of(secret).unwrap_or_default()
    }

    /// What there is to show.
    pub(crate) fn plan(&self, now: Moment) -> Plan {
        let live = self.tokens.live(now);
        let unproven = self.tokens.newest().filter(|newest| !newest.proven);
        let fetching = self.fetching.as_ref();
        Plan {
            ask: self.next_ask(now),
            live: live.map(|tracked| Arc::clone(&tracked.live)),
            // A request asks ten times a second at least, if there are any, and so this is said as often.
            listens: self.listens_always()
                || self.listens(now.mono) && self.next_sample.is_none_or(|due| now.mono >= due),
            awaits: self.paths.await_answers(),
            fetching: fetching.map(|fetching| (fetching.id, fetching.reason)),
            after_rejection: fetching.is_some_and(|fetching| fetching.after_rejection),
            held_for: unproven.map(Tracked::generation),
        }
    }

    /// The newest of the tokens that are kept: what a fetch is to replace.
    pub(crate) fn newest_token(&self) -> Option<AccessToken> {
        let newest = self.tokens.newest();
        newest.map(|tracked| tracked.live.token.clone())
    }

    /// Whether the two tokens have changed places just now.
    #[cfg(test)]
    pub(crate) fn has_turned(&self, now: Moment) -> bool {
        self.tokens.turned() == Some(now.mono)
    }

    /// Errors to drop after unlocking.
    pub(crate) fn take_dropped(&mut self) -> Vec<TokenError> {
        std::mem::take(&mut self.dropped)
    }

    /// Whether to warn that a limit was met.
    pub(crate) fn take_warning(&mut self) -> bool {
        std::mem::take(&mut self.limits.warn)
    }
}

impl Machine {
    /// What time alone does.
    fn settle(&mut self, now: Moment) {
        self.tokens.settle(now);
        self.paths.forget(now.mono);
        if let Some(fetching) = &self.fetching
            && now.since(fetching.since) >= OVERDUE
        {
            self.lost(now, fetching.id);
        }
    }

    /// Accepted answers are of interest from now on. If they were of none before, nobody has said when the
    /// last was, and it is taken to be now.
    fn hear(&mut self, now: Instant) {
        if !self.listens_always() && !self.listens(now) {
            self.tokens.trust_served(now);
        }
        self.listen_until = Some(now + LISTEN);
    }

    /// Whether every accepted answer is of interest.
    fn listens_always(&self) -> bool {
        let unproven = self.tokens.served().is_some_and(|served| !served.proven);
        let in_row = self.tokens.row > 0;
        unproven || in_row || self.tokens.candidate().is_some() || self.paths.await_answers()
    }

    /// Whether one in a while is.
    fn listens(&self, now: Instant) -> bool {
        self.listen_until.is_some_and(|until| now < until)
    }

    fn next_ask(&self, now: Moment) -> Instant {
        let Some(served) = self.tokens.served() else {
            return now.mono;
        };
        if self.tokens.hold_until(None, now).is_some() {
            return now.mono;
        }
        let overdue = (self.fetching.as_ref()).map(|fetching| now.mono + fetching.left(now));
        let due = [overdue, self.refresh_due(now), self.tokens.probe_due(now)];
        let due = due.into_iter().flatten();
        due.fold(served.live.expires.mono, Instant::min)
    }
}
