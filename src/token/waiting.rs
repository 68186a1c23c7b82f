//! How requests, and callers who want the token itself, ask for one and wait for it.

use std::{future::pending, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use http::HeaderValue;
use tokio::time::Instant;

use super::{
    cache::TokenCache,
    clock::Moment,
    live::Live,
    machine::{Ask, Ended, Key, Waited, Want},
    step::{Locked, WaitFor},
};
use crate::{TokenError, rt, telemetry};

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
    id: u64,
}

impl Drop for ProbeGuard {
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
            can_fetch: rt::is_here(),
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
                    Box::new(ProbeGuard { cache, id })
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
        want: impl Fn(&mut Locked, Moment, bool, &mut Waited) -> Want,
    ) -> Result<Arc<Live>, TokenError> {
        let mut waited = Waited::default();
        loop {
            let can_fetch = rt::is_here();
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
            match rt::sleep(wait.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)) {
                Some(sleep) => sleep.await,
                None => pending().await, // without a timer there are no fetches either
            }
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

impl ProbeGuard {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

/// Waits, until `deadline` at most. Where there is no timer it waits for as long as the fetch takes.
///
/// Of combinators, for of ten thousand that wait each would keep its parts twice in an async block.
pub(crate) fn wait_for(wait: WaitFor, deadline: Option<Instant>) -> BoxFuture<'static, Ended> {
    let now = Instant::now();
    let left = |limit: Duration| match deadline {
        Some(deadline) => limit.min(deadline.saturating_duration_since(now)),
        None => limit,
    };
    match wait {
        WaitFor::Fetch { handle, own, limit } => {
            let time = telemetry::Stopwatch::start();
            let ended = rt::timeout(left(limit), handle).map(move |told| {
                telemetry::waited(time);
                match told {
                    Some(Ok(told)) => told.into(),
                    Some(Err(_lost)) => Ended::Lost { own },
                    None => Ended::TimedOut,
                }
            });
            ended.boxed()
        }
        WaitFor::Held { handle, until } if cfg!(shuttle) || rt::has_timer() => {
            let limit = left(until.saturating_duration_since(now));
            rt::timeout(limit, handle).map(|_| Ended::Held).boxed()
        }
        WaitFor::Held { .. } => future::ready(Ended::Held).boxed(),
        WaitFor::Failed(error) => future::ready(Ended::Failed(error)).boxed(),
        WaitFor::Nothing => future::ready(Ended::TimedOut).boxed(),
    }
}
