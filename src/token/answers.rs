//! What the API answered, and what becomes of a request that it rejected.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    AccessToken,
    cache::TokenCache,
    machine::{Answer, Key, Refusal, Waited},
    step::WaitFor,
    waiting::wait_for,
};
use crate::{NotRetried, rt, sync::Ordering, telemetry};

/// A rejected request, from its rejection to the answer to its retry.
///
/// Dropped before that answer, it leaves its word to its path's next answer.
pub(crate) struct Rejection {
    cache: TokenCache,
    refusal: Refusal,
    answered: bool,
}

/// What there is for a rejected request, at first.
pub(crate) struct Decided(Answer, WaitFor, Waited);

impl TokenCache {
    /// A request was rejected. `retry`: it can be sent again, and what becomes of that will be told.
    pub(crate) fn rejected(&self, refusal: Refusal) -> (Rejection, Decided) {
        telemetry::rejected(&refusal.path, refusal.generation);
        let can_fetch = rt::is_here();
        let mut waited = Waited::default();
        let (answer, wait) = self.shared.step_or_wait(
            |state, now| {
                state
                    .machine
                    .rejected(now, &refusal, can_fetch, &mut waited)
            },
            Answer::wait,
        );
        let rejection = Rejection {
            cache: self.clone(),
            refusal,
            answered: false,
        };
        (rejection, Decided(answer, wait, waited))
    }

    /// A request was rejected that cannot be sent again.
    pub(crate) fn rejected_for_good(&self, refusal: &Refusal) {
        telemetry::rejected(&refusal.path, refusal.generation);
        self.reject_for_good(refusal, None);
        telemetry::handed_back(&refusal.path, &NotRetried::Body);
    }

    fn reject_for_good(&self, refusal: &Refusal, first: Option<&Refusal>) {
        let can_fetch = rt::is_here();
        self.shared.step(|state, now| {
            (state.machine).rejected_for_good(now, refusal, first, can_fetch);
        });
    }

    /// A request was accepted with the token of that generation.
    #[cold]
    pub(crate) fn accepted(&self, generation: u64, path: impl FnOnce() -> Option<Key>) {
        let awaits = self.shared.awaits.load(Ordering::Relaxed);
        let path = awaits.then(path).flatten();
        self.shared.step(|state, now| {
            (state.machine).accepted(now, generation, path.as_deref(), false);
        });
    }

    /// The token of a generation, for a caller who sends again by itself; `None` if it was refused with
    /// that.
    pub(crate) fn replacement(&self, generation: u64, refused: u64) -> Option<AccessToken> {
        let live = self
            .shared
            .step(|state, now| state.machine.pick(now, generation, refused))?;
        (live.generation != refused).then(|| live.token.clone())
    }

    /// The generation of a token that was handed out; zero if it is kept no more.
    pub(crate) fn generation_of(&self, token: &AccessToken) -> u64 {
        self.shared
            .step(|state, _| state.machine.generation_of(token.expose_secret()))
    }
}

impl Rejection {
    /// Waits for a token to send the request again with, for `limit` at most.
    pub(crate) async fn decide(
        self,
        decided: Decided,
        limit: Duration,
    ) -> Result<(Self, u64), NotRetried> {
        let Decided(mut answer, mut wait, mut waited) = decided;
        let deadline = Instant::now() + limit;
        loop {
            let why = match (answer, wait) {
                (Answer::SendAgain(generation), _) => {
                    telemetry::retrying();
                    return Ok((self, generation));
                }
                (Answer::HandBack(why), _) => why,
                (Answer::Wait(_), wait_now) => {
                    waited.ended(wait_for(wait_now, Some(deadline)).await);
                    let can_fetch = rt::is_here();
                    (answer, wait) = self.cache.shared.step_or_wait(
                        |state, now| {
                            (state.machine).decide(now, &self.refusal, can_fetch, &mut waited)
                        },
                        Answer::wait,
                    );
                    continue;
                }
            };
            telemetry::handed_back(&self.refusal.path, &why);
            return Err(why);
        }
    }

    /// That of the token that was refused.
    pub(crate) fn generation(&self) -> u64 {
        self.refusal.generation
    }

    /// The retry, sent with the token of that generation, was accepted.
    pub(crate) fn accepted(mut self, generation: u64) {
        self.answered = true;
        telemetry::retried(&self.refusal.path, generation, true);
        let path = Arc::clone(&self.refusal.path);
        self.cache.shared.step(|state, now| {
            (state.machine).accepted(now, generation, Some(&path), true);
        });
    }

    /// The retry was rejected as well.
    pub(crate) fn rejected(mut self, generation: u64) {
        self.answered = true;
        telemetry::retried(&self.refusal.path, generation, false);
        let second = Refusal {
            generation,
            path: Arc::clone(&self.refusal.path),
            probe: None,
            retry: false,
        };
        self.cache.reject_for_good(&second, Some(&self.refusal));
        telemetry::handed_back(&second.path, &NotRetried::SecondRejection);
    }
}

impl Drop for Rejection {
    fn drop(&mut self) {
        if !self.answered {
            let path = &self.refusal.path;
            (self.cache.shared).step(|state, _| state.machine.unanswered(path));
        }
    }
}
