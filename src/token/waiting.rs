//! How requests, and callers who want the token itself, ask for one and wait for it.

use std::{future::pending, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use http::HeaderValue;
use tokio::time::Instant;

use super::{
    cache::{Live, TokenCache},
    clock::Moment,
    machine::{Ask, Ended, Key, Machine, Next, Wait, Waited, Want},
    step::WaitFor,
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
    pub(crate) id: u64,
}

impl Drop for ProbeGuard {
    fn drop(&mut self) {
        let id = self.id;
        (self.cache.shared).step(|machine, _| machine.probe_ended(id));
    }
}

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
        let cache = self.clone();
        let probe = probe.map(|id| Box::new(ProbeGuard { cache, id }));
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
