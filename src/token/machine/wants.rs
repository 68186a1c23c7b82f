//! What to do with a request that wants a token, or with somebody who does.
//!
//! ```text
//!   a live token ─┬─ a refresh is due ────────────► start it in the background, and go on
//!                 ├─ the body is over the limit, and a fetch is made for a rejection ─► wait for it,
//!                 │                             then the newest, or the served one if it works
//!                 ├─ a probe is due ──────────────► the candidate
//!                 ├─ it was refused in its first second ─► be held until it is older
//!                 ├─ somebody else sends it, and the served one was refused last ─► the candidate
//!                 └─ else ────────────────────────► the served one
//!   none ─────────┬─ a fetch is under way, or the gate is open ─► wait for the fetch
//!                 └─ else ────────────────────────► one that has not quite ended, or the gate's error
//! ```

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{FetchReason, Key, Machine, Moment, OVERDUE, PATIENT, Told, Urgency, gate};
use crate::{TokenError, token::live::Live};

/// How many fetches of its own a caller loses before it gives up.
pub(super) const LOST: u32 = 3;
/// After so many waits a request goes with what it was brought, though that has ended meanwhile: a
/// service that is slower to get ready than the token lives would have it wait for ever.
const WAITS: u32 = 3;

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
#[derive(Debug, Clone)]
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
    /// Stays until the next: an error may be the last of the user's own, which is not to be dropped here.
    pub(super) ended: Option<Ended>,
    pub(super) is_news: bool,
    /// What was brought last.
    pub(super) last: Option<Arc<Live>>,
    pub(super) times: u32,
    pub(super) lost: u32,
    pub(super) held: bool,
    pub(super) for_rejection: bool,
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

impl Machine {
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
            return self.wants_newest(now, ask);
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
            fetching.forced = true;
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

    pub(super) fn wants_without_token(
        &mut self,
        now: Moment,
        ask: &Ask<'_>,
        waited: &Waited,
        ended: Option<Ended>,
    ) -> Want {
        // One that has not quite ended is better than none.
        let last = self
            .tokens
            .served()
            .map(|tracked| Arc::clone(&tracked.live));
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
        let reason = match self.tokens.last_generation {
            0 => FetchReason::First,
            _ => FetchReason::Expired,
        };
        self.start(now, reason);
        Want::Wait(self.wait(now, true))
    }

    /// After a wait for a fetch that a rejection started: the newest. But if the served one has been accepted since, that
    /// rejection was its path's own, and one request is enough to try the newest.
    fn wants_newest(&mut self, now: Moment, ask: &Ask<'_>) -> Want {
        let Some(newer) = self.tokens.newer_candidate() else {
            return self.add_served();
        };
        let newest = Arc::clone(&newer.live);
        // A path whose own rejections are in question would tell nothing.
        let tells = |path: &dyn Fn() -> Key| !self.paths.is_heard_of(&path());
        let is_probe = self.tokens.is_probe_due(now) && ask.path.is_some_and(tells);
        let served = self.tokens.served();
        if !is_probe && served.is_some_and(|served| served.accepted && !served.doubted) {
            return self.add_served();
        }
        Want::Add(newest, is_probe.then(|| self.tokens.begin_probe(now.mono)))
    }

    pub(super) fn add_served(&self) -> Want {
        match self.tokens.served() {
            Some(tracked) => Want::Add(Arc::clone(&tracked.live), None),
            None => Want::Fail(gate::lost()),
        }
    }

    pub(super) fn probe(&mut self, now: Moment, ask: &Ask<'_>) -> Option<Want> {
        let path = ask.path?;
        let doubted = self.tokens.served()?.doubted;
        if !self.tokens.is_probe_due(now) || ask.over_limit && !doubted {
            return None;
        }
        let path = path();
        if self.paths.is_fruitless(&path) {
            return None; // it would refuse any
        }
        let (live, id) = self.tokens.probe(&path, now.mono)?;
        Some(Want::Add(live, Some(id)))
    }

    /// To wait for the fetch under way, until it is taken to be lost.
    pub(super) fn wait(&self, now: Moment, own: bool) -> Wait {
        let fetching = self.fetching.as_ref();
        let limit = fetching.map_or(OVERDUE, |fetching| fetching.left(now));
        Wait::Fetch { own, limit }
    }
}

impl From<Told> for Ended {
    fn from(told: Told) -> Self {
        match told {
            Ok((live, vouches)) => Self::Brought(live, vouches),
            Err(error) => Self::Failed(error),
        }
    }
}

impl Waited {
    pub(crate) fn ended(&mut self, how: Ended) {
        self.ended = Some(how);
        self.is_news = true;
    }

    /// There was no need to tell how the wait has ended.
    pub(crate) fn settle(&mut self) {
        let _ = self.take();
    }

    pub(super) fn take(&mut self) -> Option<Ended> {
        if !std::mem::take(&mut self.is_news) {
            return None;
        }
        let ended = self.ended.clone();
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

pub(super) fn no_runtime() -> TokenError {
    TokenError::internal(
        "a token is fetched in a task with a deadline: call from a tokio runtime that has its timer enabled (`Builder::enable_time`)",
    )
}
