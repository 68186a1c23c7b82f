//! An instance of the inner service that is ready, and a token to send with: both, at once.
//!
//! A reservation is never held while waiting for a token, for a permit or a buffer slot kept that long
//! starves others; and getting ready may outlast the token. So it is token first, then ready; and should
//! the token have expired by then, the reservation is given up and it begins again.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{FutureExt, future::BoxFuture};
use tower::{BoxError, Service};

use super::instances::Instances;
use crate::token::{Ended, Key, Next, Stamp, WaitFor, Waited, wait_for};

pub(super) struct Acquire<S> {
    pub(super) shared: Arc<Instances<S>>,
    pub(super) service: S,
    wanted: Wanted,
    wait: Wait,
    waited: Waited,
}

/// What stands between a request and a ready instance.
enum Wait {
    Nothing,
    /// It has still to ask: it was made outside a runtime.
    Ask,
    /// Begun with the first poll, in whose runtime it has to end.
    For(WaitFor),
    Until(BoxFuture<'static, Ended>),
}

/// Which token is wanted.
enum Wanted {
    /// Whichever is served, for a first attempt.
    Served { over_limit: bool },
    /// That of a generation, for a retry of a request that was refused with another.
    Chosen { generation: u64, refused: u64 },
}

impl<S> Acquire<S> {
    /// For the first attempt, which has to wait, or to ask once it is polled.
    pub(super) fn first(
        shared: Arc<Instances<S>>,
        service: S,
        over_limit: bool,
        (wait, waited): (Option<WaitFor>, Waited),
    ) -> Self {
        Self {
            shared,
            service,
            wanted: Wanted::Served { over_limit },
            wait: wait.map_or(Wait::Ask, Wait::For),
            waited,
        }
    }

    pub(super) fn retry(
        shared: Arc<Instances<S>>,
        service: S,
        generation: u64,
        refused: u64,
    ) -> Self {
        Self {
            shared,
            service,
            wanted: Wanted::Chosen {
                generation,
                refused,
            },
            wait: Wait::Nothing,
            waited: Waited::default(),
        }
    }

    /// Resolves with `service` ready, and what to send with.
    pub(super) fn poll<Request>(
        &mut self,
        cx: &mut Context<'_>,
        path: &dyn Fn() -> Key,
    ) -> Poll<Result<Stamp, BoxError>>
    where
        S: Service<Request> + Clone,
        S::Error: Into<BoxError>,
    {
        loop {
            ready!(self.poll_wait(cx))?;
            ready!(self.service.poll_ready(cx)).map_err(Into::into)?;
            if let Some(stamp) = self.ask(Some(path))? {
                return Poll::Ready(Ok(stamp));
            }
            // The ready instance goes, and its permit or slot with it; a clone has none.
            self.service = self.service.clone();
        }
    }

    /// Nothing is made ready for a request that fails, or has to wait again.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            match mem::replace(&mut self.wait, Wait::Nothing) {
                Wait::Nothing => return Poll::Ready(Ok(())),
                Wait::For(wait) => {
                    self.wait = Wait::Until(wait_for(wait, None));
                    continue;
                }
                Wait::Until(mut wait) => match wait.poll_unpin(cx) {
                    Poll::Ready(ended) => self.waited.ended(ended),
                    Poll::Pending => {
                        self.wait = Wait::Until(wait);
                        return Poll::Pending;
                    }
                },
                Wait::Ask => {}
            }
            self.ask(None)?;
        }
    }

    /// What to send with; or else there is something to wait for.
    fn ask(&mut self, path: Option<&dyn Fn() -> Key>) -> Result<Option<Stamp>, BoxError> {
        let cache = &self.shared.auth.cache;
        let over_limit = match self.wanted {
            Wanted::Served { over_limit } => {
                // As of any request: while nothing is due, there is nothing to ask.
                let live = if over_limit { None } else { cache.live() };
                if live.is_some() {
                    self.waited.settle();
                    return Ok(live);
                }
                over_limit
            }
            Wanted::Chosen {
                generation,
                refused,
            } => {
                if let Some(live) = cache.pick(generation, refused) {
                    return Ok(Some(Stamp::new(&live)));
                }
                false
            }
        };
        match cache.ask(path, over_limit, &mut self.waited)? {
            Next::Do(stamp) => Ok(Some(stamp)),
            Next::Wait(wait) => {
                self.wait = Wait::Until(wait_for(wait, None));
                Ok(None)
            }
        }
    }
}
