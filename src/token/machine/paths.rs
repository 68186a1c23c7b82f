//! Paths that new tokens do not help, and the limits on fetches after rejections.
//!
//! An API can answer 401 on one path for reasons that no token heals. What is known of a path:
//!
//! ```text
//!              a fetch is started      the fetch brought        the path refuses a proven
//!              on its account          a token                  token that is as new
//!   unheard of ─────────────► fetching ─────────► to be tried ─────────────► fruitless, once
//!      ▲                         │ failed, lost                                │ once more
//!      ├─────────────────────────┘                                             ▼
//!      └── an accepted retry, or ten minutes without a word of it ── cools down 1 s, 2 s … 60 s
//! ```
//!
//! An accepted retry says that the path is well. If no retry is to come of a fetch, the path's next
//! accepted answer says so.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::gate::doubled;

/// Method, origin and path, as one string.
pub(crate) type Key = Arc<str>;

const PATHS: usize = 64;
const FORGOTTEN: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(super) struct Paths(Vec<Path>);

#[derive(Debug)]
struct Path {
    key: Key,
    heard: Instant,
    /// The fetch on its account, until that fails or the path has had its say on what it brought.
    fetch: Option<PathFetch>,
    fruitless: u32,
    cool_until: Option<Instant>,
}

#[derive(Debug)]
struct PathFetch {
    id: u64,
    /// The generation that it brought.
    brought: Option<u64>,
    /// The path's next accepted answer counts as that to a retry.
    awaits: bool,
}

impl Paths {
    fn find(&mut self, key: &str) -> Option<&mut Path> {
        self.0.iter_mut().find(|path| *path.key == *key)
    }

    /// The path on whose account that fetch is under way.
    fn find_fetching(&mut self, fetch: u64) -> Option<&mut Path> {
        let is_it = |it: &PathFetch| it.id == fetch && it.brought.is_none();
        (self.0.iter_mut()).find(|path| path.fetch.as_ref().is_some_and(is_it))
    }

    pub(super) fn cools_down(&mut self, key: &str, now: Instant) -> bool {
        let cool_until = self.find(key).and_then(|path| path.cool_until);
        cool_until.is_some_and(|end| now < end)
    }

    /// Whether a fetch has been made on the path's account, and it has not been seen to be well since.
    pub(super) fn is_heard_of(&self, key: &str) -> bool {
        self.0.iter().any(|path| *path.key == *key)
    }

    /// Whether new tokens are known not to have helped the path.
    pub(super) fn is_fruitless(&mut self, key: &str) -> bool {
        self.find(key).is_some_and(|path| path.fruitless > 0)
    }

    /// A fetch is started on that path's account. The longest unheard of makes room.
    pub(super) fn fetch(&mut self, key: &Key, id: u64, retry: bool, now: Instant) {
        if self.find(key).is_none() {
            if self.0.len() == PATHS {
                let oldest = (0..PATHS).min_by_key(|index| self.0[*index].heard);
                self.0.swap_remove(oldest.unwrap_or_default());
            }
            self.0.push(Path {
                key: Arc::clone(key),
                heard: now,
                fetch: None,
                fruitless: 0,
                cool_until: None,
            });
        }
        if let Some(path) = self.find(key) {
            path.heard = now;
            path.fetch = Some(PathFetch {
                id,
                brought: None,
                awaits: !retry,
            });
        }
    }

    /// The fetch came to nothing, which is not the path's doing.
    pub(super) fn fetch_failed(&mut self, fetch: u64) {
        if let Some(path) = self.find_fetching(fetch) {
            path.fetch = None;
        }
        (self.0).retain(|path| path.fetch.is_some() || path.fruitless > 0);
    }

    pub(super) fn fetch_brought(&mut self, fetch: u64, generation: u64) {
        let path = self.find_fetching(fetch);
        if let Some(fetch) = path.and_then(|path| path.fetch.as_mut()) {
            fetch.brought = Some(generation);
        }
    }

    /// The fetch brought the very token that the path refuses: the endpoint vouches for it.
    pub(super) fn fetch_brought_the_same(&mut self, fetch: u64, now: Instant) {
        if let Some(path) = self.find_fetching(fetch) {
            path.fruitless = path.fruitless.max(1);
            path.fruitless(now);
        }
    }

    /// The path refused a token. Whether one of its fetches is known to have been fruitless.
    pub(super) fn refused(
        &mut self,
        key: &str,
        generation: u64,
        proven: bool,
        now: Instant,
    ) -> bool {
        let Some(path) = self.find(key) else {
            return false;
        };
        path.heard = now;
        let brought = path.fetch.as_ref().and_then(|fetch| fetch.brought);
        if proven && brought.is_some_and(|brought| generation >= brought) {
            path.fruitless(now);
        }
        path.fruitless > 0
    }

    /// The path accepted a token. Whether a share of the limit is to be given back.
    pub(super) fn accepted(&mut self, key: &str, retry: bool) -> bool {
        let Some(index) = self.0.iter().position(|path| *path.key == *key) else {
            return false;
        };
        let path = &mut self.0[index];
        if !retry && path.fetch.as_ref().is_none_or(|fetch| !fetch.awaits) {
            return false;
        }
        if let Some(fetch) = path.fetch.as_mut().filter(|it| it.brought.is_none()) {
            // A fetch that is still under way is told by what it brings, and no retry will carry that.
            fetch.awaits = true;
            (path.fruitless, path.cool_until) = (0, None);
            return false;
        }
        self.0.swap_remove(index).fetch.is_some()
    }

    /// A retry that was to come will not be answered: the path's next answer has its word.
    pub(super) fn unanswered(&mut self, key: &str) {
        let path = self.find(key);
        if let Some(fetch) = path.and_then(|path| path.fetch.as_mut()) {
            fetch.awaits = true;
        }
    }

    /// Whether any path's next accepted answer is waited for.
    pub(super) fn await_answers(&self) -> bool {
        let mut fetches = self.0.iter().filter_map(|path| path.fetch.as_ref());
        fetches.any(|fetch| fetch.awaits)
    }

    /// Forgets what nothing has been heard of for ten minutes.
    pub(super) fn forget(&mut self, now: Instant) {
        self.0
            .retain(|path| now.saturating_duration_since(path.heard) < FORGOTTEN);
    }
}

impl Path {
    fn fruitless(&mut self, now: Instant) {
        self.fetch = None;
        self.fruitless = self.fruitless.saturating_add(1);
        if let Some(times) = self.fruitless.checked_sub(2) {
            let period = doubled(Duration::from_secs(1), times, Duration::from_secs(60));
            self.cool_until = Some(now + period);
        }
    }
}

/// The limits on fetches after rejections, over all paths: sixteen at once and one more every ten
/// seconds, of which those that helped are given back; and sixteen at once and one more a second.
#[derive(Debug)]
pub(super) struct Limits {
    helpless: Limit,
    all: Limit,
    warned: Option<Instant>,
    /// It is time to say that a limit is met.
    pub(super) warn: bool,
}

const WARN_EVERY: Duration = Duration::from_secs(60);

impl Limits {
    pub(super) fn new() -> Self {
        Self {
            helpless: Limit::new(Duration::from_secs(10)),
            all: Limit::new(Duration::from_secs(1)),
            warned: None,
            warn: false,
        }
    }

    /// Takes a share for a fetch, if there is one left.
    pub(super) fn draw(&mut self, now: Instant) -> bool {
        self.helpless.refill(now);
        self.all.refill(now);
        if self.helpless.shares > 0 && self.all.shares > 0 {
            self.helpless.shares -= 1;
            self.all.shares -= 1;
            return true;
        }
        let since = self.warned.map(|at| now.saturating_duration_since(at));
        if since.is_none_or(|since| since >= WARN_EVERY) {
            (self.warned, self.warn) = (Some(now), true);
        }
        false
    }

    pub(super) fn give_back(&mut self) {
        self.helpless.shares = (self.helpless.shares + 1).min(SHARES);
    }
}

#[derive(Debug)]
struct Limit {
    shares: u32,
    every: Duration,
    /// From when the next share is counted.
    counted: Option<Instant>,
}

const SHARES: u32 = 16;

impl Limit {
    const fn new(every: Duration) -> Self {
        Self {
            shares: SHARES,
            every,
            counted: None,
        }
    }

    fn refill(&mut self, now: Instant) {
        let since = *self.counted.get_or_insert(now);
        let due = now.saturating_duration_since(since).as_secs() / self.every.as_secs();
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        if self.shares.saturating_add(due) >= SHARES {
            (self.shares, self.counted) = (SHARES, Some(now.max(since)));
        } else {
            self.shares += due;
            self.counted = Some(since + self.every * due);
        }
    }
}
