//! What to do about a rejection.
//!
//! ```text
//!   rejected with token g
//!     ├── it was a probe ────────────────────────────────────────► send again with the other
//!     │ else
//!     │ a new token is wanted: g is the newest and was proven, or the newest has been refused
//!     │ often or long enough, and no other works
//!     ├── and may be had: the path is not cooling down, a fetch is under way, or the gate
//!     │   is open and no limit is met ───────────────────────────► wait for the fetch; or send again at
//!     │                                                            once, if another has been accepted
//!     │ else
//!     ├── the newest was refused in its first second ────────────► be held until it is older
//!     ├── there is another live token ───────────────────────────► send again with that
//!     └── else ──────────────────────────────────────────────────► hand back, and say why
//! ```
//!
//! Meanwhile the rejected token is still served to others.

use std::time::Duration;

use super::{
    Ended, FetchReason, Key, Machine, Moment, Next, PATIENT, Tracked, Urgency, Wait, Waited,
    candidate::SECOND,
    gate,
    tokens::RECENT,
    wants::{self, no_runtime},
};
use crate::{NotRetried, TokenError, TokenErrorKind};

/// A token that was accepted no longer ago than this works: a path that refuses it has reasons of its own.
const LATELY: Duration = Duration::from_secs(10);

/// A request that was refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// That of the token it was sent with.
    pub(crate) generation: u64,
    pub(crate) path: Key,
    /// It was this probe.
    pub(crate) probe: Option<u64>,
    /// Whether a retry will be told of.
    pub(crate) retry: bool,
}

/// The generation of the token to send it again with; or why it goes back.
type Answer = Next<Result<u64, NotRetried>>;

/// Why there will be no fetch.
enum NoFetch {
    CoolingDown,
    AtLimit,
    Failed(TokenError),
}

impl Machine {
    /// A request was refused. Counted here, once; what to do is for [`Self::decide`] to say.
    pub(crate) fn rejected(&mut self, now: Moment, refusal: &Refusal) {
        self.settle(now);
        self.hear(now.mono);
        let Refusal {
            generation, path, ..
        } = refusal;
        let tracked = self.tokens.get(*generation);
        let proven = tracked.is_some_and(|tracked| tracked.proven);
        let works = tracked.is_some_and(|tracked| tracked.accepted_within(LATELY, now.mono));
        let fruitless = self.paths.refused(path, *generation, proven, now.mono);
        let counts = !(fruitless && works);
        self.tokens.refused(*generation, path, counts, now.mono);
        if counts {
            self.next_sample = None; // is it refused by all?
        }
        if (refusal.probe).is_some_and(|id| self.tokens.end_probe(id)) {
            self.tokens.rest(now.mono);
        }
        self.settle(now);
    }

    /// A request was refused that cannot be sent again, or has been, after the refusal `first`. For the
    /// others' sake a fetch is started all the same.
    pub(crate) fn rejected_for_good(
        &mut self,
        now: Moment,
        refusal: &Refusal,
        first: Option<&Refusal>,
        can_fetch: bool,
    ) {
        self.rejected(now, refusal);
        let was_probe =
            |first: &Refusal| first.probe.is_some() && first.generation != refusal.generation;
        if first.is_some_and(was_probe) {
            self.tokens.unrest(now.mono);
        }
        if first.is_some() {
            self.paths.unanswered(&refusal.path);
        }
        let newest = self.tokens.newest();
        let young = newest.is_some_and(|newest| newest.age(now.mono) < SECOND);
        let too_soon = first.is_some() && young;
        let wants_fetch = !too_soon && self.wants_fetch(now, refusal.generation, false);
        if wants_fetch && !self.is_probe(now, refusal) {
            // Whether there is to be one or not, this request goes back.
            let _ = self.fetch_for(now, refusal, can_fetch, false);
        }
    }

    /// What to do with a refused request, at first and after each wait.
    pub(crate) fn decide(
        &mut self,
        now: Moment,
        refusal: &Refusal,
        can_fetch: bool,
        waited: &mut Waited,
    ) -> Answer {
        self.settle(now);
        let ended = waited.take();
        let refused = refusal.generation;
        let other = self.tokens.other(refused, now);
        let known_good = other.is_some_and(|other| other.accepted);
        let other = other.map(Tracked::generation);
        if matches!(ended, Some(Ended::Held))
            && let Some(newest) = self.tokens.newest().map(Tracked::generation)
            && (newest == refused || Some(newest) == other)
        {
            return Answer::Do(Ok(newest)); // it is older now, or has been accepted for another
        }
        let restarted = matches!(ended, Some(Ended::Lost { .. }));
        let no_fetch = match ended {
            Some(Ended::Told(Ok((live, _)))) if live.generation != refused => {
                return Answer::Do(Ok(live.generation));
            }
            Some(Ended::Told(Ok((_, true)))) => return Answer::Do(Err(NotRetried::SameToken)),
            Some(Ended::Told(Err(error))) => Some(NoFetch::Failed(error)),
            Some(Ended::TimedOut) => Some(NoFetch::Failed(timed_out())),
            _ if waited.lost >= wants::LOST => Some(NoFetch::Failed(gate::lost())),
            _ if self.is_probe(now, refusal) => None,
            // A fetch for another reason brought the same token, or there has been none.
            _ if self.wants_fetch(now, refused, true) => {
                match self.fetch_for(now, refusal, can_fetch, restarted) {
                    // What comes may be as little known as the one it replaces; the other has been accepted.
                    Ok(_) if known_good => None,
                    Ok(own) => {
                        let limit = PATIENT;
                        return Answer::Wait(Wait::Fetch { own, limit });
                    }
                    Err(why) => Some(why),
                }
            }
            _ => None,
        };
        let hold = self.tokens.hold_until(Some(refused), now);
        if let Some(until) = hold.filter(|_| !waited.held) {
            return Answer::Wait(Wait::Hold(until));
        }
        if let Some(other) = other {
            return Answer::Do(Ok(other));
        }
        let proven = (self.tokens.get(refused)).is_some_and(|tracked| tracked.proven);
        Answer::Do(match no_fetch {
            Some(NoFetch::AtLimit) if proven => Ok(refused),
            Some(NoFetch::AtLimit | NoFetch::CoolingDown) => Err(NotRetried::CoolingDown),
            Some(NoFetch::Failed(error)) => Err(NotRetried::Token(error)),
            None => Err(NotRetried::Unproven),
        })
    }

    /// Whether it was a probe, with another token left to try: then its refusal is not worth a fetch.
    fn is_probe(&self, now: Moment, refusal: &Refusal) -> bool {
        refusal.probe.is_some() && self.tokens.other(refusal.generation, now).is_some()
    }

    fn wants_fetch(&self, now: Moment, refused: u64, retry: bool) -> bool {
        self.tokens.live(now).is_none() || self.tokens.is_to_be_replaced(refused, retry, now)
    }

    /// Joins the fetch under way, or starts one on the path's account. Whether it was started.
    fn fetch_for(
        &mut self,
        now: Moment,
        refusal: &Refusal,
        can_fetch: bool,
        restarted: bool,
    ) -> Result<bool, NoFetch> {
        if self.paths.cools_down(&refusal.path, now.mono) {
            return Err(NoFetch::CoolingDown);
        }
        if let Some(fetching) = &mut self.fetching {
            fetching.after_rejection = true;
            return Ok(false);
        }
        let served = self.tokens.live(now);
        let works = served.is_some_and(|served| served.accepted_within(RECENT, now.mono));
        let urgency = match works && !restarted {
            true => Urgency::NotUrgent,
            false => Urgency::Urgent,
        };
        if let Some(error) = self.gate.closed(now.mono, urgency) {
            return Err(NoFetch::Failed(error));
        }
        if !can_fetch {
            return Err(NoFetch::Failed(no_runtime()));
        }
        if !self.limits.draw(now.mono) {
            return Err(NoFetch::AtLimit);
        }
        let id = self.start(now, FetchReason::Rejected);
        self.paths.fetch(&refusal.path, id, refusal.retry, now.mono);
        if let Some(fetching) = &mut self.fetching {
            fetching.after_rejection = true;
            fetching.refused = Some(refusal.generation);
        }
        Ok(true)
    }
}

fn timed_out() -> TokenError {
    let message = "the fetch of a new token takes longer than a rejected request waits for it";
    TokenError::new(TokenErrorKind::Timeout, message)
}
