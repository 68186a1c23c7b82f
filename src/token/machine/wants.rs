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

use super::{FetchReason, Key, Live, Machine, Moment, OVERDUE, PATIENT, Told, Urgency, gate};
use crate::TokenError;

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
    /// By the fetch.
    Told(Told),
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
    ended: Option<Ended>,
    is_news: bool,
    /// What was brought last.
    pub(super) last: Option<Arc<Live>>,
    pub(super) times: u32,
    pub(super) lost: u32,
    pub(super) held: bool,
    pub(super) for_rejection: bool,
}

/// What to do, or what to wait for before asking again.
#[derive(Debug)]
pub(crate) enum Next<T, W = Wait> {
    Do(T),
    Wait(W),
}

/// The token to add, and which probe it makes of the request, if any.
pub(crate) type Want = Next<Result<(Arc<Live>, Option<u64>), TokenError>>;

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
            return Want::Do(Ok((live, None)));
        }
        self.add_served()
    }

    /// Somebody wants a new token, whatever there is.
    pub(crate) fn wants_new(&mut self, now: Moment, can_fetch: bool, waited: &mut Waited) -> Want {
        self.settle(now);
        match waited.take() {
            Some(Ended::Told(Ok((live, _)))) => return Want::Do(Ok((live, None))),
            Some(Ended::Told(Err(error))) => return Want::Do(Err(error)),
            _ => {}
        }
        if let Some(fetching) = &mut self.fetching {
            fetching.forced = true;
            return Want::Wait(self.wait(now, false));
        }
        if waited.lost >= LOST {
            return Want::Do(Err(gate::lost()));
        }
        if !can_fetch {
            return Want::Do(Err(no_runtime()));
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
        let last = self.tokens.served();
        let last = last.map(|tracked| Arc::clone(&tracked.live));
        let or_last = |error| Want::Do(last.map(|last| (last, None)).ok_or(error));
        if let Some(Ended::Told(Err(error))) = ended {
            return or_last(error);
        }
        if let Some(live) = &waited.last
            && (waited.times >= WAITS || !now.has_reached(live.ends))
        {
            return Want::Do(Ok((Arc::clone(live), None)));
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
    /// rejection was its path's own, and one request is enough to try the newest. One that has been refused already is
    /// no better than one that has been accepted once.
    fn wants_newest(&mut self, now: Moment, ask: &Ask<'_>) -> Want {
        let accepted = self.tokens.served().is_some_and(|served| served.accepted);
        let newer = self.tokens.newer_candidate();
        let Some(newer) = newer.filter(|newer| newer.refused.is_none() || !accepted) else {
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
        let probe = is_probe.then(|| self.tokens.begin_probe(now.mono));
        Want::Do(Ok((newest, probe)))
    }

    pub(super) fn add_served(&self) -> Want {
        let served = self.tokens.served();
        let served = served.map(|tracked| (Arc::clone(&tracked.live), None));
        Want::Do(served.ok_or_else(gate::lost))
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
        Some(Want::Do(Ok((live, Some(id)))))
    }

    /// To wait for the fetch under way, until it is taken to be lost.
    pub(super) fn wait(&self, now: Moment, own: bool) -> Wait {
        let fetching = self.fetching.as_ref();
        let limit = fetching.map_or(OVERDUE, |fetching| fetching.left(now));
        Wait::Fetch { own, limit }
    }
}

impl Waited {
    pub(crate) fn ended(&mut self, how: Ended) {
        match &how {
            Ended::Lost { own } => self.lost += u32::from(*own),
            Ended::Held => self.held = true,
            Ended::Told(told) => {
                self.times += 1;
                if let Ok((live, _)) = told {
                    self.last = Some(Arc::clone(live));
                }
            }
            Ended::TimedOut => self.times += 1,
        }
        (self.ended, self.is_news) = (Some(how), true);
    }

    /// There was no need to tell how the wait has ended.
    pub(crate) fn settle(&mut self) {
        self.is_news = false;
    }

    pub(super) fn take(&mut self) -> Option<Ended> {
        let is_news = std::mem::take(&mut self.is_news);
        self.ended.clone().filter(|_| is_news)
    }
}

pub(super) fn no_runtime() -> TokenError {
    TokenError::internal(
        "a token is fetched in a task with a deadline: call from a tokio runtime that has its timer enabled (`Builder::enable_time`)",
    )
}
