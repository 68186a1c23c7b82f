//! One step: the token machine is told something, and the shell does what the machine then plans.
//!
//! Nothing is decided here. The clock is read before locking, for it may be the user's code; and whatever
//! wakes others, or drops what may be the user's, comes after unlocking.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use futures::FutureExt;
use tokio::{sync::oneshot, time::Instant};

use super::{
    TokenRequest,
    cache::{Inner, Live, Served},
    clock::Moment,
    fetching::{Fetched, Handle, InFlight, Launch},
    machine::{Brought, Ended, Machine, Next, Told, Wait},
};
use crate::{
    TokenError, rt,
    sync::{MutexGuard, Ordering},
    telemetry,
};

/// Reading the wall clock costs as much as all the rest of a look at the token. Where interleavings are
/// explored, each request does.
const WALL_EVERY: Duration = Duration::from_millis(if cfg!(shuttle) { 0 } else { 100 });

/// All that is under the lock.
pub(super) struct Locked {
    machine: Machine,
    /// The machine's fetch.
    in_flight: Option<InFlight>,
    /// Those who are held for the newest token.
    held: Option<HeldFor>,
    served: Served,
}

struct HeldFor {
    generation: u64,
    handle: Handle,
    /// Dropped, it tells them to ask again.
    _tell: oneshot::Sender<Told>,
}

/// What to wait for, taken under the lock of the decision to wait.
#[derive(Debug)]
pub(crate) enum WaitFor {
    Handle(Handle, Wait),
    /// There is nothing to wait for.
    Ended(Ended),
}

impl Inner {
    /// Tells the machine something, and does what follows from it.
    pub(super) fn step<T>(&self, event: impl FnOnce(&mut Machine, Moment) -> T) -> T {
        self.locked(|state, now| event(&mut state.machine, now), |_, out| out)
    }

    /// As [`Self::step`], told whether a fetch can be started here; what the machine says to wait for is taken
    /// under the same lock.
    pub(super) fn step_or_wait<T>(
        &self,
        event: impl FnOnce(&mut Machine, Moment, bool) -> Next<T>,
    ) -> Next<T, WaitFor> {
        let can_fetch = rt::is_here();
        self.locked(
            |state, now| event(&mut state.machine, now, can_fetch),
            |state, next| match next {
                Next::Do(out) => Next::Do(out),
                Next::Wait(wait) => Next::Wait(state.wait_for(wait)),
            },
        )
    }

    /// `then` is for what is there once all that follows from the event has been done.
    fn locked<T, U>(
        &self,
        event: impl FnOnce(&mut Locked, Moment) -> T,
        then: impl FnOnce(&Locked, T) -> U,
    ) -> U {
        let now = self.config.clock.now();
        let mut state = self.lock();
        let out = event(&mut state, now);
        let after = self.follow(&mut state, now);
        let out = then(&state, out);
        drop(state);
        after.go(self);
        out
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
        let ended = |state: &mut Locked, now| {
            let told = state.machine.fetched(now, id, outcome)?;
            Some((told, state.in_flight.take()?))
        };
        let Some(((reason, told, new), in_flight)) = self.locked(ended, |_, out| out) else {
            return; // it was lost before: whatever it brings is dropped
        };
        telemetry::fetched(reason, in_flight.time, new, told.as_ref().err());
        telemetry::left(|| self.life_left());
        in_flight.tell(told);
    }

    pub(super) fn lost(&self, id: u64) {
        self.step(|machine, now| machine.lost(now, id));
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
                let request = TokenRequest {
                    reason,
                    replaces: state.machine.newest_token(),
                };
                let (in_flight, launch) = InFlight::new(id, request, self.me.clone());
                (state.in_flight, after.launch) = (Some(in_flight), Some(launch));
            }
        }
        if state.held.as_ref().map(|held| held.generation) != plan.held_for {
            after.held = state.held.take();
            state.held = plan.held_for.map(|generation| {
                let (tell, told) = oneshot::channel();
                HeldFor {
                    generation,
                    handle: told.shared(),
                    _tell: tell,
                }
            });
        }
        self.after_rejection
            .store(plan.after_rejection, Ordering::Relaxed);
        self.listens.store(plan.listens, Ordering::Relaxed);
        self.awaits.store(plan.awaits, Ordering::Relaxed);
        let before = state.served.live.as_ref();
        if let Some(live) = &plan.live
            && before.is_none_or(|before| !live.is_same(before))
        {
            state.served.change += 1;
            state.served.live = Some(Arc::clone(live));
            after.served = Some(state.served.clone());
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
            (Some(live), Some(shown)) if now < shown.ask => live.is_same(shown) && shown.ask <= ask,
            (Some(live), Some(shown)) => live.is_same(shown) && ask <= now,
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
            served: Served::default(),
        }
    }

    fn wait_for(&self, wait: Wait) -> WaitFor {
        let handle = match wait {
            Wait::Fetch { .. } => self.in_flight.as_ref().map(|it| &it.handle),
            Wait::Hold(_) => self.held.as_ref().map(|it| &it.handle),
        };
        match handle {
            Some(handle) => WaitFor::Handle(handle.clone(), wait),
            None => WaitFor::Ended(Ended::TimedOut),
        }
    }
}

/// What is to be done once the lock is released.
#[must_use]
#[derive(Default)]
struct After {
    lost: Option<InFlight>,
    launch: Option<Launch>,
    held: Option<HeldFor>,
    dropped: Vec<TokenError>,
    /// What those who watch see from now on.
    served: Option<Served>,
    warn: bool,
}

impl After {
    fn go(self, shared: &Inner) {
        if let Some(launch) = self.launch {
            telemetry::left(|| shared.life_left());
            launch.go(&shared.config.fetch);
        }
        if let Some(lost) = &self.lost {
            telemetry::lost(lost.reason, lost.time);
        }
        drop((self.lost, self.held, self.dropped));
        if let Some(new) = self.served {
            telemetry::left(|| shared.life_left());
            shared.served.send_if_modified(|served| {
                // Another thread may have been faster with a later change.
                if new.change < served.change {
                    return false;
                }
                let before = std::mem::replace(served, new);
                before.generation() != served.generation()
            });
        }
        if self.warn {
            telemetry::limited();
        }
    }
}
