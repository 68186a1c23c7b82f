//! One step: the token machine is told something, and the shell does what the machine then plans.
//!
//! Nothing is decided here. The clock is read before locking, for it may be the user's code; and whatever
//! wakes others, or drops what may be the user's, comes after unlocking.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use futures::{FutureExt, future::Shared as SharedFuture};
use tokio::{sync::oneshot, time::Instant};

use super::{
    AccessToken,
    cache::{Inner, Served},
    clock::Moment,
    fetching::{Handle, InFlight, Launch},
    live::Live,
    machine::{Brought, Machine, Wait},
    service::Fetched,
};
use crate::{
    TokenError,
    sync::{MutexGuard, Ordering},
    telemetry,
};

/// Reading the wall clock costs as much as all the rest of a look at the token. Where interleavings are
/// explored, each request does.
const WALL_EVERY: Duration = Duration::from_millis(if cfg!(shuttle) { 0 } else { 100 });

/// All that is under the lock.
pub(super) struct Locked {
    pub(super) machine: Machine,
    /// The machine's fetch.
    in_flight: Option<InFlight>,
    /// Those who are held for the newest token.
    held: Option<HeldFor>,
    /// The token that is served and its end, and how often either has changed.
    served: Option<(u64, Instant)>,
    changes: u64,
}

struct HeldFor {
    generation: u64,
    handle: HeldHandle,
    /// Dropped, it tells them to ask again.
    _tell: oneshot::Sender<()>,
}

type HeldHandle = SharedFuture<oneshot::Receiver<()>>;

/// What to wait for, taken under the lock of the decision to wait.
#[derive(Debug)]
pub(crate) enum WaitFor {
    Fetch {
        handle: Handle,
        own: bool,
        limit: Duration,
    },
    Held {
        handle: HeldHandle,
        until: Instant,
    },
    Failed(TokenError),
    Nothing,
}

impl Inner {
    /// Tells the machine something, and does what follows from it.
    pub(super) fn step<T>(&self, event: impl FnOnce(&mut Locked, Moment) -> T) -> T {
        let now = self.config.clock.now();
        let mut state = self.lock();
        let out = event(&mut state, now);
        let after = self.follow(&mut state, now);
        drop(state);
        after.go(self);
        out
    }

    /// As [`Self::step`]; what the machine says to wait for is taken under the same lock.
    pub(super) fn step_or_wait<T>(
        &self,
        event: impl FnOnce(&mut Locked, Moment) -> T,
        wait: impl FnOnce(&T) -> Option<Wait>,
    ) -> (T, WaitFor) {
        let now = self.config.clock.now();
        let mut state = self.lock();
        let out = event(&mut state, now);
        let after = self.follow(&mut state, now);
        let wait_for = state.wait_for(wait(&out));
        drop(state);
        after.go(self);
        (out, wait_for)
    }

    pub(super) fn fetched(&self, id: u64, outcome: Result<Fetched, TokenError>) {
        // By the system's clock, as the token's own moment is.
        let arrival = Moment::now();
        let outcome = outcome.map(|Fetched { token, lifetime }| Brought {
            value: (self.config.header)(&token),
            remaining: token.remaining(arrival),
            token,
            lifetime,
        });
        let (told, in_flight) = self.step(|state, now| {
            let told = state.machine.fetched(now, id, outcome);
            let in_flight = told.is_some().then(|| state.in_flight.take()).flatten();
            (told, in_flight)
        });
        let (Some((reason, told, new)), Some(in_flight)) = (told, in_flight) else {
            return; // it was lost before: whatever it brings is dropped
        };
        telemetry::fetched(reason, in_flight.time, new, told.as_ref().err());
        telemetry::left(|| self.life_left());
        in_flight.tell(told);
    }

    pub(super) fn lost(&self, id: u64) {
        self.step(|state, now| state.machine.lost(now, id));
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        // Nothing panics under this lock; were it to, each step leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is left of the live token's life; zero without one.
    fn life_left(&self) -> Duration {
        let live = self.live.load();
        let left = live.as_ref().map(|live| live.token.expires_in());
        left.unwrap_or_default()
    }

    /// Makes everything here what the machine has decided. To be called under the lock.
    fn follow(&self, state: &mut Locked, now: Moment) -> After {
        let plan = state.machine.plan(now);
        let mut after = After {
            dropped: state.machine.take_dropped(),
            warn: state.machine.take_warning(),
            ..After::default()
        };
        let in_flight = state.in_flight.as_ref().map(|in_flight| in_flight.id);
        if in_flight != plan.fetching.map(|(id, _)| id) {
            after.lost = state.in_flight.take();
            if let Some((id, reason)) = plan.fetching {
                let (in_flight, launch) = InFlight::new(id, reason, self.me.clone());
                state.in_flight = Some(in_flight);
                after.launch = Some((launch, state.machine.newest_token()));
            }
        }
        if state.held.as_ref().map(|held| held.generation) != plan.held_for {
            after.held = state.held.take();
            state.held = plan.held_for.map(HeldFor::new);
        }
        self.after_rejection
            .store(plan.after_rejection, Ordering::Relaxed);
        self.listens.store(plan.listens, Ordering::Relaxed);
        self.awaits.store(plan.awaits, Ordering::Relaxed);
        if let Some(live) = &plan.live
            && state.served != Some((live.generation, live.ends.mono))
        {
            let is_another =
                state.served.map(|(generation, _)| generation) != Some(live.generation);
            state.served = Some((live.generation, live.ends.mono));
            state.changes += 1;
            after.served = Some((state.changes, live.token.clone(), is_another));
        }
        self.publish(plan.live, plan.ask, now.mono);
        after
    }

    /// Shows the served token, and when the next request has to ask. What is shown already, or has a
    /// request ask too early, is left as it is.
    fn publish(&self, live: Option<Arc<Live>>, ask: Instant, now: Instant) {
        let ask = ask.min(now + WALL_EVERY);
        let shown = self.live.load();
        let stays = match (&live, shown.as_ref()) {
            (None, None) => true,
            (Some(live), Some(shown)) => {
                let same = live.generation == shown.generation
                    && live.ends.mono == shown.ends.mono
                    && live.expires.mono == shown.expires.mono;
                let asks = if now < shown.ask {
                    shown.ask <= ask
                } else {
                    ask <= now
                };
                same && asks
            }
            _ => false,
        };
        if !stays {
            let live = live.map(|live| {
                let live = (*live).clone();
                Arc::new(Live { ask, ..live })
            });
            self.live.store(live);
        }
    }
}

impl Locked {
    pub(super) fn new(margin: Option<Duration>) -> Self {
        Self {
            machine: Machine::new(margin, Rng::new()),
            in_flight: None,
            held: None,
            served: None,
            changes: 0,
        }
    }

    fn wait_for(&self, wait: Option<Wait>) -> WaitFor {
        match (wait, &self.in_flight, &self.held) {
            (Some(Wait::Fetch { own, limit }), Some(in_flight), _) => WaitFor::Fetch {
                handle: in_flight.handle.clone(),
                own,
                limit,
            },
            (Some(Wait::Hold(until)), _, Some(held)) => WaitFor::Held {
                handle: held.handle.clone(),
                until,
            },
            _ => WaitFor::Nothing,
        }
    }
}

impl HeldFor {
    fn new(generation: u64) -> Self {
        let (tell, told) = oneshot::channel();
        Self {
            generation,
            handle: told.shared(),
            _tell: tell,
        }
    }
}

/// What is to be done once the lock is released.
#[must_use]
#[derive(Default)]
struct After {
    lost: Option<InFlight>,
    launch: Option<(Launch, Option<AccessToken>)>,
    held: Option<HeldFor>,
    dropped: Vec<TokenError>,
    /// What those who watch see from now on; the flag says that it is another token than before.
    served: Option<(u64, AccessToken, bool)>,
    warn: bool,
}

impl After {
    fn go(self, shared: &Inner) {
        let Self {
            lost,
            launch,
            held,
            dropped,
            served,
            warn,
        } = self;
        if let Some((launch, newest)) = launch {
            telemetry::left(|| shared.life_left());
            launch.go(Arc::clone(&shared.config.fetch), newest);
        }
        if let Some(lost) = lost {
            telemetry::lost(lost.reason, lost.time);
            drop(lost);
        }
        drop((held, dropped));
        if let Some((change, token, is_another)) = served {
            // Another thread may have been faster with a later change.
            telemetry::left(|| shared.life_left());
            shared.served.send_if_modified(|served| {
                let is_later = change > served.change;
                if is_later {
                    let token = Some(token);
                    *served = Served { change, token };
                }
                is_later && is_another
            });
        }
        if warn {
            telemetry::limited();
        }
    }
}
