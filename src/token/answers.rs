//! What the API answered, and what becomes of a request that it rejected.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    AccessToken,
    cache::TokenCache,
    machine::{Key, Next, Refusal, Waited},
    waiting::wait_for,
};
use crate::{NotRetried, rt, sync::Ordering, telemetry};

/// A rejected request, from its rejection to the answer to its retry.
///
/// Dropped before that answer, it leaves its word to its path's next answer.
pub(crate) struct Rejection {
    cache: TokenCache,
    pub(crate) refusal: Refusal,
    answered: bool,
}

impl TokenCache {
    /// A request was rejected; whether what becomes of its retry will be told is for `refusal` to say. That is
    /// counted here and now, and the future waits for a token to send it again with: that generation's. For
    /// `limit` at most.
    pub(crate) fn rejected(
        &self,
        refusal: Refusal,
        limit: Duration,
    ) -> impl Future<Output = Result<(Rejection, u64), NotRetried>> + Send + use<> {
        telemetry::rejected(&refusal.path, refusal.generation);
        let mut waited = Waited::default();
        let mut answer = (self.shared).step_or_wait(|machine, now, can_fetch| {
            machine.rejected(now, &refusal);
            machine.decide(now, &refusal, can_fetch, &mut waited)
        });
        let rejection = Rejection {
            cache: self.clone(),
            refusal,
            answered: false,
        };
        async move {
            let Rejection { cache, refusal, .. } = &rejection;
            let deadline = Instant::now() + limit;
            let decided = loop {
                match answer {
                    Next::Do(decided) => break decided,
                    Next::Wait(wait) => waited.ended(wait_for(wait, Some(deadline)).await),
                }
                answer = (cache.shared).step_or_wait(|machine, now, can_fetch| {
                    machine.decide(now, refusal, can_fetch, &mut waited)
                });
            };
            match &decided {
                Ok(_) => telemetry::retrying(),
                Err(why) => telemetry::handed_back(&refusal.path, why),
            }
            decided.map(|generation| (rejection, generation))
        }
    }

    /// A request was rejected that cannot be sent again.
    pub(crate) fn rejected_for_good(&self, refusal: &Refusal) {
        telemetry::rejected(&refusal.path, refusal.generation);
        self.reject_for_good(refusal, None);
        telemetry::handed_back(&refusal.path, &NotRetried::Body);
    }

    fn reject_for_good(&self, refusal: &Refusal, first: Option<&Refusal>) {
        let can_fetch = rt::is_here();
        (self.shared)
            .step(|machine, now| machine.rejected_for_good(now, refusal, first, can_fetch));
    }

    /// A request was accepted with the token of that generation.
    #[cold]
    pub(crate) fn accepted(&self, generation: u64, path: impl FnOnce() -> Option<Key>) {
        let awaits = self.shared.awaits.load(Ordering::Relaxed);
        let path = awaits.then(path).flatten();
        (self.shared)
            .step(|machine, now| machine.accepted(now, generation, path.as_deref(), false));
    }

    /// The generation of a token that was handed out; zero if it is kept no more.
    pub(crate) fn generation_of(&self, token: &AccessToken) -> u64 {
        (self.shared).step(|machine, _| machine.generation_of(token.expose_secret()))
    }
}

impl Rejection {
    /// The retry, sent with the token of that generation, was accepted.
    pub(crate) fn accepted(mut self, generation: u64) {
        self.answered = true;
        let path = &self.refusal.path;
        telemetry::retried(path, generation, true);
        (self.cache.shared)
            .step(|machine, now| machine.accepted(now, generation, Some(path), true));
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
            (self.cache.shared).step(|machine, _| machine.unanswered(path));
        }
    }
}
