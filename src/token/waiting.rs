//! What requests ask of the token cache, and how they wait.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::time::Instant;

use super::{
    AccessToken,
    cache::{State, TokenCache, WaitFor},
    clock::Moment,
    live::Live,
    machine::{Answer, Ask, Ended, Key, Refusal, Waited, Want},
};
use crate::{NotRetried, TokenError, rt, telemetry};

/// How often one accepted answer is told, if that is enough.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// A token to send a request with.
pub(crate) struct Stamp {
    pub(crate) value: HeaderValue,
    pub(crate) generation: u64,
    pub(crate) probe: Option<Box<Probe>>,
}

/// Says that the request is a probe. Dropped, it ends the probe: the next request may be one.
pub(crate) struct Probe {
    cache: TokenCache,
    id: u64,
}

impl Drop for Probe {
    fn drop(&mut self) {
        let id = self.id;
        self.cache
            .shared
            .step(|state, _| state.machine.probe_ended(id));
    }
}

/// What there is for a request.
pub(crate) enum Asked {
    Stamp(Stamp),
    /// What to wait for, before it asks again.
    Wait(WaitFor),
}

impl TokenCache {
    /// A token, or what to wait for.
    #[cold]
    pub(crate) fn ask(
        &self,
        path: Option<&dyn Fn() -> Key>,
        over_limit: bool,
        waited: &mut Waited,
    ) -> Result<Asked, TokenError> {
        let ask = Ask {
            path,
            over_limit,
            can_fetch: rt::Runtime::current().is_some(),
            handshake: false,
        };
        let (want, wait) = self.shared.step_or_wait(
            |state, now| state.machine.wants(now, &ask, waited),
            Want::wait,
        );
        match want {
            Want::Add(live, probe) => {
                let probe = probe.map(|id| {
                    let cache = self.clone();
                    Box::new(Probe { cache, id })
                });
                Ok(Asked::Stamp(Stamp {
                    probe,
                    ..Stamp::new(&live)
                }))
            }
            Want::Fail(error) => Err(error),
            Want::Wait(_) => Ok(Asked::Wait(wait)),
        }
    }

    /// The served token, fetched if there is none.
    pub(crate) async fn token(&self) -> Result<Arc<Live>, TokenError> {
        self.token_for(false).await
    }

    /// The same for a request that somebody else sends: once the served token has been refused, a candidate
    /// that has not.
    pub(crate) async fn token_for_handshake(&self) -> Result<Arc<Live>, TokenError> {
        self.token_for(true).await
    }

    async fn token_for(&self, handshake: bool) -> Result<Arc<Live>, TokenError> {
        self.obtain(|state, now, can_fetch, waited| {
            let ask = Ask {
                path: None,
                over_limit: false,
                can_fetch,
                handshake,
            };
            state.machine.wants(now, &ask, waited)
        })
        .await
    }

    /// A new token, whatever there is; joins a fetch that is under way.
    pub(crate) async fn refresh(&self) -> Result<Arc<Live>, TokenError> {
        self.obtain(|state, now, can_fetch, waited| state.machine.wants_new(now, can_fetch, waited))
            .await
    }

    async fn obtain(
        &self,
        want: impl Fn(&mut State, Moment, bool, &mut Waited) -> Want,
    ) -> Result<Arc<Live>, TokenError> {
        let mut waited = Waited::default();
        loop {
            let can_fetch = rt::Runtime::current().is_some();
            let (want, wait) = self.shared.step_or_wait(
                |state, now| want(state, now, can_fetch, &mut waited),
                Want::wait,
            );
            match (want, wait) {
                (Want::Add(live, _), _) => return Ok(live),
                (Want::Fail(error), _) => return Err(error),
                (Want::Wait(_), wait) => waited.ended(wait_for(wait, None).await),
            }
        }
    }

    /// Asks for the token whenever it is due to be refreshed. Ends never.
    pub(crate) async fn keep_fresh(&self) {
        loop {
            let wait = match self.token().await {
                Ok(_) => (self.shared).step(|state, now| state.machine.until_refresh(now)),
                Err(error) => error.retry_after().unwrap_or_default(),
            };
            // The wall clock may be ahead of the other by then, after a sleep of the machine's.
            tokio::time::sleep(wait.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)).await;
        }
    }

    /// The token to send a rejected request with, at the moment its instance is ready.
    pub(crate) fn pick(&self, generation: u64, refused: u64) -> Option<Stamp> {
        let live = self
            .shared
            .step(|state, now| state.machine.pick(now, generation, refused))?;
        Some(Stamp::new(&live))
    }
}

impl Stamp {
    #[inline]
    pub(super) fn new(live: &Live) -> Self {
        Self {
            value: live.value.clone(),
            generation: live.generation,
            probe: None,
        }
    }
}

impl Probe {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

/// Waits, until `deadline` at most.
pub(crate) async fn wait_for(wait: WaitFor, deadline: Option<Instant>) -> Ended {
    let now = Instant::now();
    let left = |limit: Duration| match deadline {
        Some(deadline) => limit.min(deadline.saturating_duration_since(now)),
        None => limit,
    };
    match wait {
        WaitFor::Fetch { handle, own, limit } => {
            let time = telemetry::Stopwatch::start();
            let told = rt::timeout(left(limit), handle).await;
            telemetry::waited(time);
            match told {
                Some(Ok(Ok((live, vouches)))) => Ended::Brought(live, vouches),
                Some(Ok(Err(error))) => Ended::Failed(error),
                Some(Err(_lost)) => Ended::Lost { own },
                None => Ended::TimedOut,
            }
        }
        WaitFor::Held { handle, until } => {
            let limit = left(until.saturating_duration_since(now));
            rt::timeout(limit, handle).await;
            Ended::Held
        }
        WaitFor::Failed(error) => Ended::Failed(error),
        WaitFor::Nothing => Ended::TimedOut,
    }
}

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
        let can_fetch = rt::Runtime::current().is_some();
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
        let can_fetch = rt::Runtime::current().is_some();
        self.shared.step(|state, now| {
            (state.machine).rejected_for_good(now, refusal, first, can_fetch);
        });
    }

    /// A request was accepted with the token of that generation.
    #[cold]
    pub(crate) fn accepted(&self, generation: u64, path: impl FnOnce() -> Option<Key>) {
        self.shared.step(|state, now| {
            state.machine.accepted(now, generation, path, false);
            state.next_sample = now.mono + SAMPLE_EVERY;
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
                    let can_fetch = rt::Runtime::current().is_some();
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
            (state.machine).accepted(now, generation, || Some(path), true);
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
