//! The token cache: the shell around the token machine, one for all clones of a layer.
//!
//! ```text
//!   request ──► live (one atomic pointer) ── nothing is due ──► add it
//!                  ▲           └── something is ──┐
//!                  │ publish                      ▼
//!               ┌──┴─────────── step, under the lock ───────────┐
//!    event ────►│ the machine decides ─► the shell follows:     │──► unlocked: spawn, tell, wake, drop
//!               │ fetch in flight, flags, held requests, live   │
//!               └───────────────────────────────────────────────┘
//! ```
//!
//! Here is what requests read without a lock; `step` has what is under it.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{Stream, stream};
use http::HeaderValue;
use tokio::{sync::watch, time::Instant};

use super::{
    AccessToken,
    callers::Stamp,
    clock::{Clock, Moment},
    fetching::Fetch,
    step::Locked,
};
use crate::sync::{ArcSwapOption, AtomicBool, Mutex, Ordering};

/// A token in service, ready to be added to a request. Every request reads it, and nothing ever writes
/// it: a change is a new one.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) token: AccessToken,
    /// Built once for each token; cloning it counts a reference.
    pub(crate) value: HeaderValue,
    /// Counts the tokens there have been. The same secret keeps its generation.
    pub(crate) generation: u64,
    /// Its end, less the hard margin.
    pub(crate) expires: Moment,
    pub(crate) ends: Moment,
    /// From when on the next request has to ask the machine. It is all that the others compare.
    pub(crate) ask: Instant,
}

/// What the cache is made of; see [`Builder`](crate::Builder).
pub(crate) struct Config {
    pub(crate) fetch: Fetch,
    pub(crate) header: fn(&AccessToken) -> HeaderValue,
    pub(crate) margin: Option<Duration>,
    pub(crate) clock: Clock,
}

/// A handle on the tokens; clones share them.
#[derive(Clone)]
pub(crate) struct TokenCache {
    pub(super) shared: Arc<Inner>,
}

pub(super) struct Inner {
    /// The served token, while it is live.
    pub(super) live: ArcSwapOption<Live>,
    /// Whether the next accepted answer is told.
    pub(super) listens: AtomicBool,
    /// Whether its path is of interest then.
    pub(super) awaits: AtomicBool,
    /// Whether a fetch is under way that a rejection started or joined.
    pub(super) after_rejection: AtomicBool,
    pub(super) state: Mutex<Locked>,
    pub(super) served: watch::Sender<Served>,
    pub(super) config: Config,
    pub(super) me: Weak<Self>,
}

/// The served token for those who watch, and the number of the change it came with.
#[derive(Debug, Clone, Default)]
pub(super) struct Served {
    pub(super) change: u64,
    pub(super) live: Option<Arc<Live>>,
}

impl TokenCache {
    pub(crate) fn new(config: Config) -> Self {
        let shared = Arc::new_cyclic(|me| Inner {
            live: ArcSwapOption::empty(),
            listens: AtomicBool::new(false),
            awaits: AtomicBool::new(false),
            after_rejection: AtomicBool::new(false),
            state: Mutex::new(Locked::new(config.margin)),
            served: watch::Sender::default(),
            config,
            me: me.clone(),
        });
        Self { shared }
    }

    /// The served token's header value and generation, unless there is something to ask. This is the hot
    /// path: one atomic load and a look at the monotonic clock.
    #[inline(always)]
    pub(crate) fn live(&self) -> Option<Stamp> {
        let live = self.shared.live.load();
        let live = live.as_ref()?;
        (Instant::now() < live.ask).then(|| Stamp::new(live))
    }

    /// Whether a request that cannot be sent again had better ask before it goes.
    #[inline]
    pub(crate) fn is_fetching_after_rejection(&self) -> bool {
        self.shared.after_rejection.load(Ordering::Relaxed)
    }

    /// Whether an accepted answer is to be told.
    #[inline]
    pub(crate) fn listens(&self) -> bool {
        self.shared.listens.load(Ordering::Relaxed)
    }
}

impl TokenCache {
    /// The served token, and each that takes its place.
    pub(crate) fn watch(&self) -> impl Stream<Item = AccessToken> + Send + 'static {
        let mut changes = self.shared.served.subscribe();
        changes.mark_changed();
        stream::unfold(changes, |mut changes| async move {
            loop {
                changes.changed().await.ok()?;
                let live = changes.borrow_and_update().live.clone();
                if let Some(live) = live.filter(|live| !live.token.expires_in().is_zero()) {
                    return Some((live.token.clone(), changes));
                }
            }
        })
    }
}

impl Served {
    pub(super) fn generation(&self) -> Option<u64> {
        self.live.as_ref().map(|live| live.generation)
    }
}

impl Live {
    /// But for when to ask.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.generation == other.generation
            && self.ends.mono == other.ends.mono
            && self.expires.mono == other.expires.mono
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let live = self.shared.live.load();
        let live = live.as_ref();
        f.debug_struct("TokenCache")
            .field(
                "live",
                &live.map(|live| (live.generation, live.token.clone())),
            )
            .finish_non_exhaustive()
    }
}
