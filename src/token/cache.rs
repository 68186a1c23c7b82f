//! The token cache: one live token for all clones of a layer, and at most one flight to get another.
//!
//! ```text
//!   no token ──► flight ──► live ──(refresh time)──► live + flight ──► live, newer
//!      ▲           │          │                            │
//!      │ cool-down │ failed   │ expired by either clock    └ failed: live, backoff
//!      └───────────┴──────────┘
//! ```
//!
//! The live token is one atomic pointer to something immutable, which is all that a request reads.
//! Everything else is under one lock, taken only when there is something to decide; nobody is woken
//! and nothing is spawned under it.

use std::{
    fmt,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use http::HeaderValue;
use tokio::time::Instant;

use super::{
    AccessToken, FetchReason, TokenRequest,
    book::Key,
    clock::{Clock, Moment},
    flight::{Flight, Landed, Landing},
    live::Live,
    service::Fetch,
    state::{Launch, State},
};
use crate::{
    TokenError,
    sync::{ArcSwapOption, AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering},
    telemetry,
};

/// How often a wait is begun anew because its flight was lost.
pub(crate) const RESTARTS: usize = 3;
/// What the cache is made of; see [`Builder`](crate::Builder).
pub(crate) struct Config {
    pub(crate) fetch: Fetch,
    pub(crate) header: fn(&AccessToken) -> HeaderValue,
    pub(crate) margin: Option<Duration>,
    pub(crate) clock: Clock,
}

/// A handle on the one token; clones share it.
#[derive(Clone)]
pub(crate) struct TokenCache {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    live: ArcSwapOption<Live>,
    /// Trials in the book that wait for their key's next answer.
    pub(super) unjudged: AtomicUsize,
    /// Whether there is a flight that a rejection started or joined.
    pub(super) after_rejection: AtomicBool,
    state: Mutex<State>,
    pub(super) config: Config,
    pub(super) me: Weak<Self>,
}

/// What there is for someone without a token.
enum Boarding {
    Live(Arc<Live>),
    Flight(Landing),
    CoolingDown(TokenError),
}

impl TokenCache {
    pub(crate) fn new(config: Config) -> Self {
        let shared = Arc::new_cyclic(|me| Shared {
            live: ArcSwapOption::empty(),
            unjudged: AtomicUsize::new(0),
            after_rejection: AtomicBool::new(false),
            state: Mutex::new(State::new()),
            config,
            me: me.clone(),
        });
        Self { shared }
    }

    /// The live token's header value and generation.
    #[inline]
    pub(crate) fn stamp(&self) -> Option<(HeaderValue, u64)> {
        self.with_live(|live| (live.value.clone(), live.generation))
    }

    /// What of the live token is asked for. This is the hot path: one atomic load and a look at the
    /// monotonic clock, unless something is due.
    #[inline]
    fn with_live<T>(&self, take: impl Fn(&Arc<Live>) -> T) -> Option<T> {
        let live = self.shared.live.load();
        let live = live.as_ref()?;
        let now = Instant::now();
        if now < live.look {
            Some(take(live))
        } else {
            self.shared.attend(now).as_ref().map(take)
        }
    }

    /// The live token, or the one that a flight brings.
    pub(crate) async fn get(&self) -> Landed {
        if let Some(live) = self.with_live(Arc::clone) {
            return Ok(live);
        }
        for _ in 0..=RESTARTS {
            let landing = match self.shared.board() {
                Boarding::Live(live) => return Ok(live),
                Boarding::CoolingDown(error) => return Err(error),
                Boarding::Flight(landing) => landing,
            };
            if let Some(landed) = landing.wait().await {
                return landed;
            }
        }
        Err(lost())
    }

    /// A new token, whatever cool-down there is; joins a flight that is under way.
    pub(crate) async fn refresh(&self) -> Landed {
        for _ in 0..=RESTARTS {
            let landing = self.shared.join_or_start(FetchReason::Forced);
            if let Some(landed) = landing.wait().await {
                return landed;
            }
        }
        Err(lost())
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let newest = self.shared.lock().newest.clone();
        f.debug_struct("TokenCache")
            .field(
                "newest",
                &newest.map(|live| (live.generation, live.token.clone())),
            )
            .finish_non_exhaustive()
    }
}

pub(super) fn lost() -> TokenError {
    TokenError::internal("the runtimes that fetched a token were shut down, one after the other")
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under this lock; were it to, each step leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Moment {
        self.config.clock.now()
    }

    /// The live token at that moment. To be called under the lock.
    pub(super) fn live_at(&self, now: Moment) -> Option<Arc<Live>> {
        let live = self.live.load();
        let live = live.as_ref()?;
        if now.has_reached(live.expires) {
            self.live.store(None);
            return None;
        }
        Some(Arc::clone(live))
    }

    /// Whether a newer token than that generation's is live. To be called under the lock.
    pub(super) fn is_superseded(&self, generation: u64, now: Moment) -> bool {
        let live = self.live_at(now);
        live.is_some_and(|live| live.generation > generation)
    }

    /// What is left of the live token's life; zero without one.
    pub(super) fn life_left(&self) -> Duration {
        let live = self.live.load();
        let left = live.as_ref().map(|live| live.token.expires_in());
        left.unwrap_or_default()
    }

    /// Something may be due: the token's end, its refresh, or a look at the wall clock. Whatever it is,
    /// the next look is put behind it: until then no request takes the lock. `None` without a live token.
    #[cold]
    fn attend(&self, now: Instant) -> Option<Arc<Live>> {
        let now = Moment {
            mono: now,
            ..self.now()
        };
        let mut state = self.lock();
        let live = self.live_at(now)?;
        if now.mono < live.look {
            return Some(live); // another request was first
        }
        let mut launch = None;
        let mut refresh = live.refresh;
        if now.has_reached(refresh) {
            if state.running(now.mono).is_none() {
                launch = Some(self.start(&mut state, FetchReason::Early, None, now.mono));
            }
            if let Some(flight) = &state.flight {
                let wait = flight.overdue().saturating_duration_since(now.mono);
                refresh = now.after(wait);
            }
        }
        let live = self.publish(&mut state, live.with_refresh(refresh), now.mono);
        drop(state);
        if let Some(launch) = launch {
            telemetry::left(|| self.life_left());
            drop(launch.go(self));
        }
        Some(live)
    }

    fn board(&self) -> Boarding {
        let now = self.now();
        let mut state = self.lock();
        if let Some(live) = self.live_at(now) {
            return Boarding::Live(live);
        }
        if let Some(flight) = state.running(now.mono) {
            return Boarding::Flight(flight.landing.clone());
        }
        if let Some(error) = state.cooling_down(now.mono) {
            return Boarding::CoolingDown(error);
        }
        let reason = match state.newest {
            None => FetchReason::First,
            Some(_) => FetchReason::Expired,
        };
        let launch = self.start(&mut state, reason, None, now.mono);
        drop(state);
        Boarding::Flight(launch.go(self))
    }

    fn join_or_start(&self, reason: FetchReason) -> Landing {
        let now = self.now();
        let mut state = self.lock();
        if let Some(flight) = state.running(now.mono) {
            return flight.landing.clone();
        }
        let launch = self.start(&mut state, reason, None, now.mono);
        drop(state);
        launch.go(self)
    }

    /// Puts a flight into the slot. It is launched once the lock is released.
    pub(super) fn start(
        &self,
        state: &mut State,
        reason: FetchReason,
        made_for: Option<Key>,
        now: Instant,
    ) -> Launch {
        let id = state.next_flight();
        state.flights = id;
        let (flight, registration) = Flight::new(id, reason, made_for, now);
        self.after_rejection
            .store(flight.after_rejection, Ordering::Relaxed);
        let landing = flight.landing.clone();
        let replaced = state.flight.replace(flight);
        if let Some(overdue) = &replaced {
            overdue.judge_nobody(&mut state.book);
        }
        let mut request = TokenRequest::new(reason);
        if let Some(newest) = &state.newest {
            request = request.replacing(newest.token.clone());
        }
        Launch {
            id,
            request,
            landing,
            registration,
            replaced,
        }
    }

    /// Makes a token the live one. To be called under the lock.
    pub(super) fn publish(&self, state: &mut State, live: Live, now: Instant) -> Arc<Live> {
        let live = Arc::new(live.looked_at(now));
        state.newest = Some(Arc::clone(&live));
        self.live.store(Some(Arc::clone(&live)));
        live
    }
}
