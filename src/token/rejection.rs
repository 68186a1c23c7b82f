//! What is to be done about a rejection of a token.
//!
//! ```text
//!   rejected, generation g
//!     ├─ a newer token is live ──────────────► send again
//!     ├─ the key is cooling down ────────────► hand back
//!     ├─ a flight is under way ──────────────► wait for it
//!     ├─ no live token, and a cool-down ─────► hand back
//!     ├─ within an endpoint's Retry-After ───► hand back
//!     ├─ the budget is empty ────────────────► hand back
//!     └─ else start a flight for this key ───► wait for it; its retry is the verdict on it
//! ```
//!
//! Meanwhile the rejected token is still served to others.

use std::sync::Arc;

use super::{
    AccessToken, FetchReason,
    book::Key,
    cache::{RESTARTS, Shared, TokenCache, lost},
    flight::Landing,
};
use crate::{NotRetried, TokenError, sync::Ordering, telemetry};

enum Ruling {
    SendAgain,
    Wait(Landing, Option<Claim>),
    HandBack(NotRetried),
}

impl TokenCache {
    /// A rejection of a request that can be sent again. Resolves once there is a newer token, with
    /// the claim on the refresh if it was made for this request.
    pub(crate) async fn newer_than(
        self,
        generation: u64,
        key: Key,
    ) -> Result<Option<Claim>, NotRetried> {
        telemetry::rejected(&key, generation);
        let newer = self.wait_for_newer(generation, &key).await;
        match &newer {
            Ok(_) => telemetry::retrying(),
            Err(why) => telemetry::handed_back(&key, why),
        }
        newer
    }

    async fn wait_for_newer(
        &self,
        generation: u64,
        key: &Key,
    ) -> Result<Option<Claim>, NotRetried> {
        for _ in 0..=RESTARTS {
            let (landing, claim) = match self.rejected(generation, key, true) {
                Ruling::SendAgain => return Ok(None),
                Ruling::HandBack(why) => return Err(why),
                Ruling::Wait(landing, claim) => (landing, claim),
            };
            match landing.wait().await {
                Some(Ok(live)) if live.generation > generation => return Ok(claim),
                Some(Ok(_)) => return Err(NotRetried::SameToken),
                Some(Err(error)) => return Err(NotRetried::Token(error)),
                None => {}
            }
        }
        Err(NotRetried::Token(lost()))
    }

    /// A rejection of a request that cannot be sent again: for the others' sake a flight is started
    /// all the same.
    pub(crate) fn rejected_for_good(&self, generation: u64, key: &Key) {
        telemetry::rejected(key, generation);
        self.rejected(generation, key, false);
        telemetry::handed_back(key, &NotRetried::Body);
    }

    /// Whether any key's next answer is a verdict.
    #[inline]
    pub(crate) fn awaits_answers(&self) -> bool {
        self.shared.unjudged.load(Ordering::Relaxed) > 0
    }

    /// An answer to a request stamped with that generation, for whoever waits for it.
    pub(crate) fn answered(&self, generation: u64, key: &Key, accepted: bool) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        if !accepted && self.shared.is_superseded(generation, now) {
            return;
        }
        state.book.answered(key, generation, accepted, now.mono);
        self.shared.count_unjudged(&mut state);
    }

    /// The answer to a retry for which no refresh was made.
    pub(crate) fn retried(&self, generation: u64, key: &Key, accepted: bool) {
        self.answered(generation, key, accepted);
        if accepted {
            self.shared.lock().book.clear(key);
        }
    }

    /// The flight that a rejection started or joined, if there is one: who cannot replay its body had
    /// better wait for it.
    pub(crate) fn flight_after_rejection(&self) -> Option<Landing> {
        if !self.shared.after_rejection.load(Ordering::Relaxed) {
            return None;
        }
        let now = self.shared.now().mono;
        let mut state = self.shared.lock();
        let flight = state.running(now)?;
        flight.after_rejection.then(|| flight.landing.clone())
    }

    /// The generation of a token that was handed out. One that is not the newest is older.
    pub(crate) fn generation_of(&self, token: &AccessToken) -> u64 {
        let state = self.shared.lock();
        let newest = state.newest.as_ref();
        let is_newest =
            newest.is_some_and(|live| live.token.expose_secret() == token.expose_secret());
        state.generation().saturating_sub(u64::from(!is_newest))
    }

    fn rejected(&self, generation: u64, key: &Key, replayable: bool) -> Ruling {
        let shared = &self.shared;
        let now = shared.now();
        let mut state = shared.lock();
        if shared.is_superseded(generation, now) {
            return Ruling::SendAgain;
        }
        state.book.answered(key, generation, false, now.mono);
        shared.count_unjudged(&mut state);
        if state.book.is_cooling_down(key, now.mono) {
            return Ruling::HandBack(NotRetried::CoolingDown);
        }
        if let Some(flight) = state.running(now.mono) {
            flight.after_rejection = true;
            shared.after_rejection.store(true, Ordering::Relaxed);
            return Ruling::Wait(flight.landing.clone(), None);
        }
        let asked_to_wait = match shared.live_at(now) {
            Some(_) => state.asked_to_wait(now.mono),
            None => state.cooling_down(now.mono),
        };
        if let Some(error) = asked_to_wait {
            return Ruling::HandBack(NotRetried::Token(error));
        }
        let decided = &mut *state;
        if let Some(overdue) = &decided.flight {
            overdue.judge_nobody(&mut decided.book);
        }
        let id = state.next_flight();
        if !state.book.open(key, id, replayable, now.mono) {
            return Ruling::HandBack(NotRetried::CoolingDown);
        }
        shared.count_unjudged(&mut state);
        let made_for = Some(Arc::clone(key));
        let launch = shared.start(&mut state, FetchReason::Rejected, made_for, now.mono);
        drop(state);
        let claim = replayable.then(|| Claim {
            shared: Arc::clone(shared),
            key: Arc::clone(key),
            flight: id,
        });
        Ruling::Wait(launch.go(shared), claim)
    }
}

/// The right, and the duty, to say whether a refresh has helped: its request's retry will tell.
/// Dropped without a word, it leaves the verdict to the key's next answer.
pub(crate) struct Claim {
    shared: Arc<Shared>,
    key: Key,
    flight: u64,
}

impl Claim {
    /// The retry was accepted.
    pub(crate) fn accepted(self) {
        let mut state = self.shared.lock();
        state.book.accepted(&self.key, self.flight);
    }

    /// The retry, stamped with that generation, was rejected.
    pub(crate) fn rejected(self, generation: u64) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        // What the refresh brought has been replaced meanwhile: that rejection tells nothing of it.
        if !self.shared.is_superseded(generation, now) {
            state.book.fruitless(&self.key, self.flight, now.mono);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state
            .book
            .leave(&self.key, self.flight, self.shared.now().mono);
        self.shared.count_unjudged(&mut state);
    }
}

/// For callers who stamp and send by themselves.
impl TokenCache {
    /// As [`newer_than`](Self::newer_than), with the token itself.
    pub(crate) async fn replacement(
        &self,
        token: &AccessToken,
        key: Key,
    ) -> Result<Option<AccessToken>, TokenError> {
        let generation = self.generation_of(token);
        match self.clone().newer_than(generation, key).await {
            Ok(_claim) => Ok(Some(self.get().await?.token.clone())),
            Err(NotRetried::Token(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }
}
