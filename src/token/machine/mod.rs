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
//! One fetch at most is under way. `rejection` decides about a rejection, this file about all else.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use http::HeaderValue;
use tokio::time::Instant;

use super::{AccessToken, FetchReason, clock::Moment, live::Live};
use crate::{TokenError, TokenErrorKind};
use gate::{Gate, Urgency};
pub(crate) use paths::Key;
use paths::{Limits, Paths};
pub(crate) use rejection::{Answer, Refusal};
use tokens::{Held, Tokens};

mod gate;
mod paths;
mod rejection;
mod tokens;

/// How long a fetch may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(35);
/// One that takes longer is in a runtime that does not run it.
const OVERDUE: Duration = Duration::from_secs(40);
/// For so long after a rejection, or a fetch, accepted answers are of interest.
const LISTEN: Duration = Duration::from_secs(15);
/// How long one with a token waits for a new one.
pub(crate) const PATIENT: Duration = Duration::from_secs(10);
/// How many fetches of its own a caller loses before it gives up.
const LOST: u32 = 3;
/// After so many waits a request goes with what it was brought, though that has ended meanwhile: a
/// service that is slower to get ready than the token lives would have it wait for ever.
const WAITS: u32 = 3;

#[derive(Debug)]
pub(crate) struct Machine {
    tokens: Tokens,
    gate: Gate,
    paths: Paths,
    limits: Limits,
    fetching: Option<Fetching>,
    fetches: u64,
    listen_until: Option<Instant>,
    margin: Option<Duration>,
    rng: Rng,
    /// What is to be dropped where the user's code may run: errors can hold the user's own.
    dropped: Vec<TokenError>,
    warn_of_limit: bool,
}

/// The fetch under way.
#[derive(Debug, Clone)]
pub(crate) struct Fetching {
    pub(crate) id: u64,
    pub(crate) reason: FetchReason,
    since: Moment,
    /// A rejection started or joined it.
    pub(crate) after_rejection: bool,
    /// It was started since some path refuses the token of that generation.
    refused: Option<u64>,
}

/// What a fetch brought.
#[derive(Debug)]
pub(crate) struct Brought {
    pub(crate) token: AccessToken,
    /// The header's value that carries it.
    pub(crate) value: HeaderValue,
    /// What is left of its life.
    pub(crate) remaining: Duration,
    /// What was left of it when its request was sent.
    pub(crate) lifetime: Duration,
}

/// A request that wants a token.
pub(crate) struct Ask<'a> {
    /// Its path, if its answer will be told.
    pub(crate) path: Option<&'a dyn Fn() -> Key>,
    /// Its body is known to be too long to be sent again.
    pub(crate) over_limit: bool,
    /// It comes from a runtime that can run a fetch.
    pub(crate) can_fetch: bool,
    /// Somebody else will send it, and maybe again once it has been refused.
    pub(crate) handshake: bool,
}

/// What became of a wait.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The fetch brought that token; whether the endpoint vouches for it: it had been told to bring
    /// another.
    Brought(Arc<Live>, bool),
    Failed(TokenError),
    /// The fetch was lost with its runtime; whether it was this waiter's own.
    Lost {
        own: bool,
    },
    TimedOut,
    /// The time to be held is over, or the newest token has been accepted or replaced.
    Held,
}

/// What somebody has waited for so far.
#[derive(Debug, Default)]
pub(crate) struct Waited {
    ended: Option<Ended>,
    /// What was brought last.
    last: Option<Arc<Live>>,
    times: u32,
    lost: u32,
    held: bool,
    for_rejection: bool,
}

/// What to do with a request that wants a token.
#[derive(Debug)]
pub(crate) enum Want {
    /// Add this one; tell what becomes of it if it is a probe.
    Add(Arc<Live>, Option<u64>),
    Wait(Wait),
    Fail(TokenError),
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The fetch under way; `own` if it was started for this waiter.
    Fetch { own: bool, limit: Duration },
    /// Until then, or until the newest token is accepted or replaced.
    Hold(Instant),
}

/// Whether accepted answers are of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    No,
    /// One in a while.
    Sometimes,
    Always,
}

/// What the shell has to show.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) live: Option<Arc<Live>>,
    /// From when on the next request has to ask.
    pub(crate) ask: Instant,
    pub(crate) listen: Listen,
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
            margin,
            rng,
            dropped: Vec::new(),
            warn_of_limit: false,
        }
    }

    /// A request wants a token, or has waited for one.
    pub(crate) fn wants(&mut self, now: Moment, ask: &Ask<'_>, waited: &mut Waited) -> Want {
        self.settle(now);
        let ended = waited.take();
        if self.tokens.live(now).is_none() {
            return self.wants_without_token(now, ask, waited, ended);
        }
        self.refresh_ahead(now, ask.can_fetch);
        let after_rejection = self.fetching.as_ref().is_some_and(|it| it.after_rejection);
        if ask.over_limit && after_rejection && !waited.for_rejection {
            waited.for_rejection = true;
            let (own, limit) = (false, PATIENT);
            return Want::Wait(Wait::Fetch { own, limit });
        }
        if let Some(until) = self.tokens.hold_until(None, now).filter(|_| !waited.held) {
            // Unless it can try the other.
            if let Some(probe) = self.probe(now, ask) {
                return probe;
            }
            return Want::Wait(Wait::Hold(until));
        }
        if ask.over_limit && waited.for_rejection {
            return self.wants_newest(now);
        }
        if let Some(probe) = self.probe(now, ask) {
            return probe;
        }
        if let Some(live) = self.tokens.unrefused().filter(|_| ask.handshake) {
            return Want::Add(live, None);
        }
        self.add_served()
    }

    /// Somebody wants a new token, whatever there is.
    pub(crate) fn wants_new(&mut self, now: Moment, can_fetch: bool, waited: &mut Waited) -> Want {
        self.settle(now);
        match waited.take() {
            Some(Ended::Brought(live, _)) => return Want::Add(live, None),
            Some(Ended::Failed(error)) => return Want::Fail(error),
            _ => {}
        }
        if let Some(fetching) = &mut self.fetching {
            fetching.reason = FetchReason::Forced;
            return Want::Wait(self.wait(now, false));
        }
        if waited.lost >= LOST {
            return Want::Fail(gate::lost());
        }
        if !can_fetch {
            return Want::Fail(no_runtime());
        }
        self.start(now, FetchReason::Forced);
        Want::Wait(self.wait(now, true))
    }

    /// A request was accepted with that token. `retry`: it had been sent again. The path is asked for only
    /// if it is of interest.
    pub(crate) fn accepted(
        &mut self,
        now: Moment,
        generation: u64,
        path: impl FnOnce() -> Option<Key>,
        retry: bool,
    ) {
        self.settle(now);
        self.tokens.accepted(generation, now.mono);
        if retry || self.paths.await_answers() {
            if path().is_some_and(|path| self.paths.accepted(&path, retry)) {
                self.limits.give_back();
            }
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

    /// The fetch ended. `None`: it is not the one under way, and what it brought is of no use. Else its
    /// reason, and what to tell those who wait for it; the flag says that its token is a new one.
    pub(crate) fn fetched(
        &mut self,
        now: Moment,
        id: u64,
        outcome: Result<Brought, TokenError>,
    ) -> Result<(FetchReason, Ended, bool), Result<Brought, TokenError>> {
        let Some(fetching) = self.fetching.take_if(|fetching| fetching.id == id) else {
            return Err(outcome);
        };
        let (ended, new) = match outcome.and_then(expired_on_arrival) {
            Ok(brought) => self.brought(now, &fetching, brought),
            Err(error) => {
                if fetching.refused.is_some() {
                    self.limits.give_back();
                    self.paths.fetch_failed(id);
                }
                let failed = self.gate.failed(now.mono, error.clone(), &mut self.rng);
                self.dropped.extend(failed);
                let urgency = match self.tokens.live(now) {
                    Some(_) => Urgency::NotUrgent,
                    None => Urgency::Urgent,
                };
                let told = self.gate.closed(now.mono, urgency);
                (Ended::Failed(told.unwrap_or(error)), false)
            }
        };
        self.settle(now);
        Ok((fetching.reason, ended, new))
    }

    /// The fetch was lost with its runtime.
    pub(crate) fn lost(&mut self, now: Moment, id: u64) {
        if let Some(fetching) = self.fetching.take_if(|fetching| fetching.id == id) {
            self.gate.lost(now.mono, &mut self.rng);
            if fetching.refused.is_some() {
                self.limits.give_back();
                self.paths.fetch_failed(id);
            }
        }
        self.settle(now);
    }

    /// For a request that is sent again: the token of that generation, or should it be kept no more,
    /// another than the one it was refused with.
    pub(crate) fn pick(&self, now: Moment, generation: u64, refused: u64) -> Option<Arc<Live>> {
        let held = (self.tokens.get(generation))
            .or_else(|| self.tokens.other(refused, now))
            .or_else(|| self.tokens.get(refused))?;
        (!now.has_reached(held.live.expires)).then(|| Arc::clone(&held.live))
    }

    /// That of the kept token with this secret; zero if there is none.
    pub(crate) fn generation_of(&self, secret: &str) -> u64 {
        self.tokens.generation_of(secret).unwrap_or_default()
    }

    /// What there is to show.
    pub(crate) fn plan(&self, now: Moment) -> Plan {
        let live = self.tokens.live(now).map(|held| Arc::clone(&held.live));
        let fetching = self.fetching.as_ref();
        Plan {
            ask: self.next_ask(now),
            live,
            listen: self.listen(now.mono),
            fetching: fetching.map(|fetching| (fetching.id, fetching.reason)),
            after_rejection: fetching.is_some_and(|fetching| fetching.after_rejection),
            held_for: self
                .tokens
                .newest()
                .filter(|held| !held.proven)
                .map(Held::generation),
        }
    }

    /// The newest of the tokens that are kept: what a fetch is to replace.
    pub(crate) fn newest_token(&self) -> Option<AccessToken> {
        self.tokens.newest().map(|held| held.live.token.clone())
    }

    /// How long until a refresh ahead may be due, or the token's end.
    pub(crate) fn until_refresh(&self, now: Moment) -> Duration {
        let end = self
            .tokens
            .served()
            .map(|served| now.until(served.live.expires));
        let due = self.refresh_due(now);
        let due = due.map(|due| due.saturating_duration_since(now.mono));
        end.unwrap_or_default().min(due.unwrap_or(OVERDUE))
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
        std::mem::take(&mut self.warn_of_limit)
    }
}

impl Machine {
    fn wants_without_token(
        &mut self,
        now: Moment,
        ask: &Ask<'_>,
        waited: &Waited,
        ended: Option<Ended>,
    ) -> Want {
        // One that has not quite ended is better than none.
        let last = self.tokens.served().map(|held| Arc::clone(&held.live));
        let or_last = |error| last.map_or(Want::Fail(error), |last| Want::Add(last, None));
        if let Some(Ended::Failed(error)) = ended {
            return or_last(error);
        }
        let brought = waited.last.as_ref();
        if let Some(live) =
            brought.filter(|live| waited.times >= WAITS || !now.has_reached(live.ends))
        {
            return Want::Add(Arc::clone(live), None);
        }
        if self.fetching.is_some() {
            return Want::Wait(self.wait(now, false));
        }
        if let Some(error) = self.gate.closed(now.mono, Urgency::Urgent) {
            return or_last(error);
        }
        if waited.lost >= LOST {
            return or_last(gate::lost());
        }
        if !ask.can_fetch {
            return or_last(no_runtime());
        }
        let reason = match self.tokens.newest {
            0 => FetchReason::First,
            _ => FetchReason::Expired,
        };
        self.start(now, reason);
        Want::Wait(self.wait(now, true))
    }

    fn wants_newest(&mut self, now: Moment) -> Want {
        let served = self.tokens.served().map(Held::generation);
        match self.tokens.newest() {
            Some(newest) if Some(newest.generation()) != served => {
                let live = Arc::clone(&newest.live);
                Want::Add(live, Some(self.tokens.begin_probe(now.mono)))
            }
            _ => self.add_served(),
        }
    }

    fn add_served(&self) -> Want {
        match self.tokens.served() {
            Some(held) => Want::Add(Arc::clone(&held.live), None),
            None => Want::Fail(gate::lost()),
        }
    }

    fn probe(&mut self, now: Moment, ask: &Ask<'_>) -> Option<Want> {
        let path = ask.path?;
        if self.tokens.probe_due(now).is_none_or(|due| now.mono < due) {
            return None;
        }
        let doubted = self.tokens.served().is_some_and(|served| served.doubted);
        if ask.over_limit && !doubted {
            return None;
        }
        let path = path();
        if self.paths.is_fruitless(&path) {
            return None; // it would refuse any
        }
        let (live, id) = self.tokens.probe(&path, now)?;
        Some(Want::Add(live, Some(id)))
    }

    fn refresh_ahead(&mut self, now: Moment, can_fetch: bool) {
        if can_fetch && self.refresh_due(now).is_some_and(|due| due <= now.mono) {
            self.start(now, FetchReason::Early);
        }
    }

    /// When the next refresh ahead is to be made, unless a fetch is under way.
    fn refresh_due(&self, now: Moment) -> Option<Instant> {
        if self.fetching.is_some() {
            return None;
        }
        let stale = self.tokens.stale();
        let due = (self.tokens.served())
            // A successor that is still to be tried is not thrown away for another one.
            .filter(|_| !self.tokens.has_successor())
            .map(|served| now.mono + now.until(served.due));
        let due = match (stale, due) {
            (Some(stale), Some(due)) => stale.min(due),
            (stale, due) => stale.or(due)?,
        };
        Some(self.gate.opens().map_or(due, |opens| opens.max(due)))
    }

    /// To wait for the fetch under way, until it is taken to be lost.
    fn wait(&self, now: Moment, own: bool) -> Wait {
        let spent = (self.fetching.as_ref()).map(|fetching| now.since(fetching.since));
        let limit = OVERDUE.saturating_sub(spent.unwrap_or_default());
        Wait::Fetch { own, limit }
    }

    fn start(&mut self, now: Moment, reason: FetchReason) -> u64 {
        self.fetches += 1;
        self.fetching = Some(Fetching {
            id: self.fetches,
            reason,
            since: now,
            after_rejection: false,
            refused: None,
        });
        self.fetches
    }

    fn brought(&mut self, now: Moment, fetching: &Fetching, brought: Brought) -> (Ended, bool) {
        self.dropped.extend(self.gate.open());
        self.hear(now.mono);
        let reason = fetching.reason;
        let Brought {
            token,
            value,
            remaining,
            lifetime,
        } = brought;
        let secret = token.expose_secret();
        let (same, generation) = match self.tokens.generation_of(secret) {
            Some(generation) => (true, generation),
            None => (false, self.tokens.newest + 1),
        };
        let ends = now.after(remaining);
        let served = self.tokens.served();
        let no_later = same || served.is_some_and(|it| ends.mono <= it.live.ends.mono);
        let due = if reason == FetchReason::Early && no_later {
            // The endpoint caches: asked any sooner, it would hand out the same once more.
            now.after((remaining / 2).max(Duration::from_secs(10)))
        } else {
            let margin = refresh_margin(lifetime, self.margin, &mut self.rng);
            now.after(remaining.saturating_sub(margin))
        };
        let live = Arc::new(Live {
            value,
            token,
            generation,
            expires: now.after(remaining.saturating_sub(hard_margin(lifetime))),
            ends,
            ask: now.mono,
        });
        let held = Held::new(live, due, now);
        let unproven = self.tokens.newest().is_some_and(|newest| !newest.proven);
        if fetching.refused.is_some() && unproven {
            self.tokens.count_replaced();
        }
        self.tokens.bring(held, reason == FetchReason::Forced, now);
        self.tokens.put_off(now);
        let vouches = matches!(reason, FetchReason::Rejected | FetchReason::Forced) && same;
        if vouches && fetching.refused == Some(generation) {
            self.paths.fetch_brought_the_same(fetching.id, now.mono);
        } else {
            self.paths.fetch_brought(fetching.id, generation);
        }
        let held = self.tokens.get(generation);
        let live = held.expect("what was brought is kept").live.clone();
        (Ended::Brought(live, vouches), !same)
    }

    /// What time alone does.
    fn settle(&mut self, now: Moment) {
        self.tokens.settle(now);
        self.paths.forget(now.mono);
        let overdue = (self.fetching.as_ref())
            .filter(|fetching| now.since(fetching.since) >= OVERDUE)
            .map(|fetching| fetching.id);
        if let Some(id) = overdue {
            self.lost(now, id);
        }
    }

    /// Accepted answers are of interest from now on. If they were of none before, nobody has said when the
    /// last was, and it is taken to be now.
    fn hear(&mut self, now: Instant) {
        if self.listen(now) == Listen::No {
            self.tokens.trust_served(now);
        }
        self.listen_until = Some(now + LISTEN);
    }

    fn listen(&self, now: Instant) -> Listen {
        let unproven = self.tokens.served().is_some_and(|served| !served.proven);
        if unproven || self.tokens.candidate().is_some() || self.paths.await_answers() {
            Listen::Always
        } else if self.listen_until.is_some_and(|until| now < until) {
            Listen::Sometimes
        } else {
            Listen::No
        }
    }

    fn next_ask(&self, now: Moment) -> Instant {
        let Some(served) = self.tokens.served() else {
            return now.mono;
        };
        if self.tokens.hold_until(None, now).is_some() {
            return now.mono;
        }
        let overdue = self.fetching.as_ref().map(|fetching| {
            let left = OVERDUE.saturating_sub(now.since(fetching.since));
            now.mono + left
        });
        let due = [overdue, self.refresh_due(now), self.tokens.probe_due(now)];
        let due = due.into_iter().flatten();
        due.fold(served.live.expires.mono, Instant::min)
    }
}

impl Waited {
    pub(crate) fn ended(&mut self, how: Ended) {
        self.ended = Some(how);
    }

    fn take(&mut self) -> Option<Ended> {
        let ended = self.ended.take();
        match &ended {
            Some(Ended::Lost { own }) => self.lost += u32::from(*own),
            Some(Ended::Held) => self.held = true,
            Some(Ended::Brought(live, _)) => {
                self.last = Some(Arc::clone(live));
                self.times += 1;
            }
            Some(_) => self.times += 1,
            None => {}
        }
        ended
    }
}

impl Want {
    pub(crate) fn wait(&self) -> Option<Wait> {
        match self {
            Self::Wait(wait) => Some(*wait),
            _ => None,
        }
    }
}

fn expired_on_arrival(brought: Brought) -> Result<Brought, TokenError> {
    if brought.remaining.is_zero() {
        return Err(TokenError::new(
            TokenErrorKind::InvalidResponse,
            "the token had expired when it arrived",
        ));
    }
    Ok(brought)
}

fn no_runtime() -> TokenError {
    TokenError::internal("a token is fetched in a task, and this is no tokio runtime")
}

/// A request must arrive before its token expires.
fn hard_margin(lifetime: Duration) -> Duration {
    (lifetime / 20).min(Duration::from_secs(10))
}

/// How long before its end a token is refreshed: up to 20 % longer at random, so that a fleet spreads.
fn refresh_margin(lifetime: Duration, user: Option<Duration>, rng: &mut Rng) -> Duration {
    let margin = user.unwrap_or(Duration::from_secs(3600)).min(lifetime / 2);
    margin.mul_f64(1.0 + 0.2 * rng.f64())
}
