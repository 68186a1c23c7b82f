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
    /// The fetch that is made on its account.
    fetching: Option<u64>,
    /// The generation that the last such fetch brought, until the path has had its say on that.
    brought: Option<u64>,
    /// The fetch's share of the limit may still be given back.
    share: bool,
    /// Its next accepted answer counts as that to a retry.
    awaits: bool,
    fruitless: u32,
    cool_until: Option<Instant>,
}

impl Paths {
    fn find(&mut self, key: &str) -> Option<&mut Path> {
        self.0.iter_mut().find(|path| *path.key == *key)
    }

    pub(super) fn cools_down(&self, key: &str, now: Instant) -> bool {
        let path = self.0.iter().find(|path| *path.key == *key);
        path.is_some_and(|path| path.cool_until.is_some_and(|end| now < end))
    }

    /// Whether a fetch has been made on the path's account, and it has not been seen to be well since.
    pub(super) fn is_heard_of(&self, key: &str) -> bool {
        self.0.iter().any(|path| *path.key == *key)
    }

    /// Whether new tokens are known not to have helped the path.
    pub(super) fn is_fruitless(&self, key: &str) -> bool {
        let path = self.0.iter().find(|path| *path.key == *key);
        path.is_some_and(|path| path.fruitless > 0)
    }

    /// A fetch is started on that path's account. The longest unheard of makes room.
    pub(super) fn fetch(&mut self, key: &Key, fetch: u64, retry: bool, now: Instant) {
        if self.find(key).is_none() {
            if self.0.len() == PATHS {
                let oldest = (0..PATHS).min_by_key(|index| self.0[*index].heard);
                self.0.swap_remove(oldest.unwrap_or_default());
            }
            self.0.push(Path::new(Arc::clone(key), now));
        }
        if let Some(path) = self.find(key) {
            path.heard = now;
            path.fetching = Some(fetch);
            path.brought = None;
            path.share = true;
            path.awaits = !retry;
        }
    }

    /// The fetch came to nothing, which is not the path's doing.
    pub(super) fn fetch_failed(&mut self, fetch: u64) {
        for path in &mut self.0 {
            if path.fetching.take_if(|it| *it == fetch).is_some() {
                (path.share, path.awaits) = (false, false);
            }
        }
        self.0.retain(|path| !path.is_blank());
    }

    pub(super) fn fetch_brought(&mut self, fetch: u64, generation: u64) {
        for path in &mut self.0 {
            if path.fetching.take_if(|it| *it == fetch).is_some() {
                path.brought = Some(generation);
            }
        }
    }

    /// The fetch brought the very token that the path refuses: the endpoint vouches for it.
    pub(super) fn fetch_brought_the_same(&mut self, fetch: u64, now: Instant) {
        for path in &mut self.0 {
            if path.fetching.take_if(|it| *it == fetch).is_some() {
                path.fruitless = path.fruitless.max(1);
                path.fruitless(now);
            }
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
        if proven && path.brought.is_some_and(|brought| generation >= brought) {
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
        if !retry && !path.awaits {
            return false;
        }
        let share = path.share;
        if path.fetching.is_some() {
            // A fetch that is still under way is told by what it brings.
            (path.fruitless, path.cool_until) = (0, None);
            return false;
        }
        self.0.swap_remove(index);
        share
    }

    /// A retry that was to come will not be answered: the path's next answer has its word.
    pub(super) fn unanswered(&mut self, key: &str) {
        if let Some(path) = self.find(key) {
            path.awaits |= path.fetching.is_some() || path.brought.is_some();
        }
    }

    /// Whether any path's next accepted answer is waited for.
    pub(super) fn await_answers(&self) -> bool {
        self.0.iter().any(|path| path.awaits)
    }

    /// Forgets what nothing has been heard of for ten minutes.
    pub(super) fn forget(&mut self, now: Instant) {
        self.0
            .retain(|path| now.saturating_duration_since(path.heard) < FORGOTTEN);
    }
}

impl Path {
    fn new(key: Key, now: Instant) -> Self {
        Self {
            key,
            heard: now,
            fetching: None,
            brought: None,
            share: false,
            awaits: false,
            fruitless: 0,
            cool_until: None,
        }
    }

    fn fruitless(&mut self, now: Instant) {
        (self.brought, self.share, self.awaits) = (None, false, false);
        self.fruitless = self.fruitless.saturating_add(1);
        if let Some(times) = self.fruitless.checked_sub(2) {
            let period = doubled(Duration::from_secs(1), times, Duration::from_secs(60));
            self.cool_until = Some(now + period);
        }
    }

    fn is_blank(&self) -> bool {
        self.fetching.is_none() && self.brought.is_none() && self.fruitless == 0
    }
}

/// The limits on fetches after rejections, over all paths: sixteen at once and one more every ten
/// seconds, of which those that helped are given back; and sixteen at once and one more a second.
#[derive(Debug)]
pub(super) struct Limits {
    helpless: Limit,
    all: Limit,
    warned: Option<Instant>,
}

/// Why a fetch after a rejection may not be started.
#[derive(Debug, Clone, Copy)]
pub(super) struct AtLimit {
    /// It is time to say so.
    pub(super) warn: bool,
}

const WARN_EVERY: Duration = Duration::from_secs(60);

impl Limits {
    pub(super) fn new() -> Self {
        Self {
            helpless: Limit::new(Duration::from_secs(10)),
            all: Limit::new(Duration::from_secs(1)),
            warned: None,
        }
    }

    pub(super) fn draw(&mut self, now: Instant) -> Result<(), AtLimit> {
        self.helpless.refill(now);
        self.all.refill(now);
        if self.helpless.shares > 0 && self.all.shares > 0 {
            self.helpless.shares -= 1;
            self.all.shares -= 1;
            return Ok(());
        }
        let since = self.warned.map(|at| now.saturating_duration_since(at));
        let warn = since.is_none_or(|since| since >= WARN_EVERY);
        if warn {
            self.warned = Some(now);
        }
        Err(AtLimit { warn })
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
