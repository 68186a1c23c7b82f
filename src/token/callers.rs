//! What requests, and callers who want the token itself, ask of the cache and tell it: they want a token,
//! wait for one, were accepted or rejected.

use std::{future::pending, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use http::HeaderValue;
use tokio::time::Instant;

use super::{
    AccessToken,
    cache::{Live, TokenCache},
    clock::Moment,
    machine::{Ask, Ended, Key, Machine, Next, Refusal, Wait, Waited, Want},
    step::WaitFor,
};
use crate::{NotRetried, TokenError, rt, sync::Ordering, telemetry};

const SHORTEST_SLEEP: Duration = Duration::from_millis(100);
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// A token to send a request with.
pub(crate) struct Stamp {
    pub(crate) value: HeaderValue,
    pub(crate) generation: u64,
    pub(crate) probe: Option<Box<ProbeGuard>>,
}

/// Says that the request is a probe. Dropped, it ends the probe: the next request may be one.
pub(crate) struct ProbeGuard {
    cache: TokenCache,
    pub(crate) id: u64,
}

/// A rejected request, from its rejection to the answer to its retry.
///
/// Dropped before that answer, it leaves its word to its path's next answer.
pub(crate) struct Rejection {
    cache: TokenCache,
    pub(crate) refusal: Refusal,
    answered: bool,
}

// === to want a token ===

impl TokenCache {
    /// A token, or what to wait for.
    #[cold]
    pub(crate) fn ask(
        &self,
        path: Option<&dyn Fn() -> Key>,
        over_limit: bool,
        waited: &mut Waited,
    ) -> Result<Next<Stamp, WaitFor>, TokenError> {
        let want = self.shared.step_or_wait(|machine, now, can_fetch| {
            let ask = Ask {
                path,
                over_limit,
                can_fetch,
                handshake: false,
            };
            machine.wants(now, &ask, waited)
        });
        let (live, probe) = match want {
            Next::Do(added) => added?,
            Next::Wait(wait) => return Ok(Next::Wait(wait)),
        };
        let guard = |id| {
            let cache = self.clone();
            Box::new(ProbeGuard { cache, id })
        };
        let probe = probe.map(guard);
        Ok(Next::Do(Stamp {
            probe,
            ..Stamp::new(&live)
        }))
    }

    /// The served token, fetched if there is none. For a `handshake`, which somebody else sends: once the served
    /// token has been refused, a candidate that has not.
    pub(crate) async fn token(&self, handshake: bool) -> Result<Arc<Live>, TokenError> {
        self.obtain(|machine, now, can_fetch, waited| {
            let ask = Ask {
                path: None,
                over_limit: false,
                can_fetch,
                handshake,
            };
            machine.wants(now, &ask, waited)
        })
        .await
    }

    /// A new token, whatever there is; joins a fetch that is under way.
    pub(crate) async fn refresh(&self) -> Result<Arc<Live>, TokenError> {
        self.obtain(Machine::wants_new).await
    }

    async fn obtain(
        &self,
        want: impl Fn(&mut Machine, Moment, bool, &mut Waited) -> Want,
    ) -> Result<Arc<Live>, TokenError> {
        let mut waited = Waited::default();
        loop {
            let want = (self.shared)
                .step_or_wait(|machine, now, can_fetch| want(machine, now, can_fetch, &mut waited));
            match want {
                Next::Do(added) => return added.map(|(live, _)| live),
                Next::Wait(wait) => waited.ended(wait_for(wait, None).await),
            }
        }
    }

    /// Asks for the token whenever it is due to be refreshed. Ends never.
    pub(crate) async fn keep_fresh(&self) {
        loop {
            let wait = match self.token(false).await {
                Ok(_) => self.shared.step(|machine, now| machine.until_refresh(now)),
                Err(error) => error.retry_after().unwrap_or_default(),
            };
            // The wall clock may be ahead of the other by then, after a sleep of the machine's.
            match rt::sleep(wait.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)) {
                Some(sleep) => sleep.await,
                None => pending().await, // without a timer there are no fetches either
            }
        }
    }

    /// The token of that generation for a rejected request, at the moment its instance is ready.
    pub(crate) fn pick(&self, generation: u64, refused: u64) -> Option<Arc<Live>> {
        (self.shared).step(|machine, now| machine.pick(now, generation, refused))
    }
}

// === to be answered ===

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

impl Stamp {
    #[inline]
    pub(crate) fn new(live: &Live) -> Self {
        Self {
            value: live.value.clone(),
            generation: live.generation,
            probe: None,
        }
    }
}

impl Drop for ProbeGuard {
    fn drop(&mut self) {
        let id = self.id;
        (self.cache.shared).step(|machine, _| machine.probe_ended(id));
    }
}

/// Waits, until `deadline` at most. Where there is no timer it waits for as long as the fetch takes.
///
/// Of combinators, for of ten thousand that wait each would keep its parts twice in an async block.
pub(crate) fn wait_for(wait: WaitFor, deadline: Option<Instant>) -> BoxFuture<'static, Ended> {
    let (handle, wait) = match wait {
        WaitFor::Handle(handle, wait) => (handle, wait),
        WaitFor::Ended(ended) => return future::ready(ended).boxed(),
    };
    let now = Instant::now();
    let limit = match wait {
        Wait::Fetch { limit, .. } => limit,
        Wait::Hold(until) => until.saturating_duration_since(now),
    };
    let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
    let limit = left.map_or(limit, |left| limit.min(left));
    match wait {
        Wait::Fetch { own, .. } => {
            let time = telemetry::Stopwatch::start();
            let ended = rt::timeout(limit, handle).map(move |told| {
                telemetry::waited(time);
                match told {
                    Some(Ok(told)) => Ended::Told(told),
                    Some(Err(_lost)) => Ended::Lost { own },
                    None => Ended::TimedOut,
                }
            });
            ended.boxed()
        }
        Wait::Hold(_) if cfg!(shuttle) || rt::has_timer() => {
            rt::timeout(limit, handle).map(|_| Ended::Held).boxed()
        }
        Wait::Hold(_) => future::ready(Ended::Held).boxed(),
    }
}
