//! What the crate tells of itself. Features `tracing` and `metrics`; without them there is nothing of it.
//!
//! A request that finds a live token and is not rejected tells nothing, and so costs nothing more, with the features
//! on as well. No secret is ever told, no header, and no query. What to make of it all when something is wrong, alert
//! rules and a dashboard: `docs/operating.md` in the repository.
//!
//! # Feature `tracing`
//!
//! A span `symbl_auth.fetch` (info) for each token fetch, with no parent: it *follows from* the span of
//! the request that started it, since it serves others too and may outlast it.
//!
//! | field | what |
//! |---|---|
//! | `reason` | `first`, `expired`, `early`, `rejected`, `forced`: see [`FetchReason`] |
//! | `attempts` | how many [`FetchToken`](crate::FetchToken) made; absent for other token services, and if the fetch was cut short |
//! | `outcome` | as in the metrics; absent if the last layer was dropped meanwhile |
//! | `error` | the [`TokenError`], if it failed |
//!
//! Events, with target `tower_symbl_auth` as the span:
//!
//! | event | level | fields |
//! |---|---|---|
//! | `token rejected` | debug | `method`, `path`, `generation` (the number of the token since the start) |
//! | `request sent again` | debug | `method`, `path`, `generation`, `accepted` |
//! | `rejection handed back` | debug | `method`, `path`, `reason`: the [`NotRetried`] |
//! | `request left unstamped` | debug; warn for the first to each of 16 servers | a request without a token, since its origin is not listed: `origin`; absent if its URI names none |
//! | `redirect led to another origin` | warn, once | `from`, `to`: a reqwest client follows redirects away from the layer's origins, see `SymblAuthLayer::reqwest_client` |
//! | `token fetch failed` | warn | `reason`, `error` |
//! | `too many fetches after rejections` | warn | none; once a minute at most: another process may revoke the tokens, or an API node may know none of them |
//! | `token store trouble` | warn | `operation` (`load`, `lease`, `save`, `release`), `error`; tokens are fetched without the store for 10 s |
//! | `stored token ignored` | warn | `reason`: what is stored was sealed with another key, is damaged, of another version, or older than it was |
//! | `limit of the fleet reached` | warn | none; told once a minute. Something rejects tokens that the issuer vouches for, or revokes ours |
//!
//! # Feature `metrics`
//!
//! | metric | kind | labels | what |
//! |---|---|---|---|
//! | `symbl_auth_fetches_total` | counter | `reason`, `outcome` | token fetches that have ended |
//! | `symbl_auth_fetch_duration_seconds` | histogram | | how long they took |
//! | `symbl_auth_rejections_total` | counter | `outcome` | rejections by the API, and what came of them |
//! | `symbl_auth_unstamped_total` | counter | | requests that went without a token, since their origin is not listed |
//! | `symbl_auth_token_wait_seconds` | histogram | | how long a request, or another caller, waited for a fetch; nothing if it did not have to |
//! | `symbl_auth_store_total` | counter | `outcome` | what came of asking the token store; with feature `store` only |
//! | `symbl_auth_token_seconds_left` | gauge | | what is left of the live token's life, 0 without one |
//!
//! - `reason` is as above.
//! - `outcome` of a fetch: `new_token`; `same_token` as before; `lost` with its runtime; or the
//!   [kind](crate::TokenErrorKind) of its error: `credentials`, `rate_limited`, `unavailable`,
//!   `timeout`, `invalid_response`, `internal`.
//! - `outcome` of a rejection: `retried`; or handed back, for `body`, `cooling_down`, `same_token`,
//!   `second_rejection`, `unproven`, `token_error`: see [`NotRetried`]. A request that is rejected twice counts
//!   twice, as `retried` and as `second_rejection`.
//! - `outcome` of asking the store: `shared`, another process's token was taken; `saved`, one was fetched
//!   for all; `bypassed`, one was fetched for this process alone; `limited`, none was fetched, since the
//!   fleet's limit is reached; and besides, `trouble` for each operation that failed or took over 1 s,
//!   `ignored` for something stored that was not used.
//! - The gauge is as of when it was last set: at the end of each fetch, and when an early one begins.
//!   Alert on it being low for longer than a fetch takes, not on its falling.
#![cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    allow(unused_variables)
)]

#[cfg(feature = "store")]
use std::fmt;
use std::{future::Future, time::Duration};

use http::Uri;
#[cfg(feature = "metrics")]
use tokio::time::Instant;

use crate::{FetchReason, NotRetried, TokenError};

#[cfg(any(feature = "tracing", feature = "metrics"))]
mod labels;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "tracing")]
mod tracing;

/// Since when something has gone on. Nothing at all if nobody asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    #[cfg(feature = "metrics")]
    start: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            start: Instant::now(),
        }
    }
}

/// The fetch's task, in a span of its own.
pub(crate) fn in_fetch<F: Future>(
    reason: FetchReason,
    fetch: F,
) -> impl Future<Output = F::Output> {
    #[cfg(feature = "tracing")]
    let fetch = tracing::in_fetch(reason, fetch);
    fetch
}

/// To be called in the fetch's task, once.
pub(crate) fn attempts(made: u32) {
    #[cfg(feature = "tracing")]
    tracing::attempts(made);
}

/// A fetch has ended in a token, newer or the same, or in an error. Not to be called under a lock, like
/// all of these: what listens is somebody else's.
pub(crate) fn fetched(
    reason: FetchReason,
    took: Stopwatch,
    newer: bool,
    error: Option<&TokenError>,
) {
    #[cfg(feature = "tracing")]
    tracing::fetched(reason, newer, error);
    #[cfg(feature = "metrics")]
    metrics::fetched(reason, labels::outcome(newer, error), took.start.elapsed());
}

/// A fetch went down with its runtime.
pub(crate) fn lost(reason: FetchReason, took: Stopwatch) {
    #[cfg(feature = "tracing")]
    tracing::lost();
    #[cfg(feature = "metrics")]
    metrics::fetched(reason, labels::LOST, took.start.elapsed());
}

/// Somebody waited for a fetch.
pub(crate) fn waited(time: Stopwatch) {
    #[cfg(feature = "metrics")]
    metrics::waited(time.start.elapsed());
}

/// What is left of the live token's life.
pub(crate) fn left(life: impl FnOnce() -> Duration) {
    #[cfg(feature = "metrics")]
    metrics::left(life());
}

/// A token was rejected.
pub(crate) fn rejected(key: &str, generation: u64) {
    #[cfg(feature = "tracing")]
    tracing::rejected(key, generation);
}

/// For a rejected request there is a newer token.
pub(crate) fn retrying() {
    #[cfg(feature = "metrics")]
    metrics::rejected(labels::RETRIED);
}

/// A request was sent again, with a token of that generation.
pub(crate) fn retried(key: &str, generation: u64, accepted: bool) {
    #[cfg(feature = "tracing")]
    tracing::retried(key, generation, accepted);
}

/// A rejection goes to whoever sent the request.
pub(crate) fn handed_back(key: &str, why: &NotRetried) {
    #[cfg(feature = "tracing")]
    tracing::handed_back(key, why);
    #[cfg(feature = "metrics")]
    metrics::rejected(labels::not_retried(why));
}

/// Rejections have made as many fetches as they may.
pub(crate) fn limited() {
    #[cfg(feature = "tracing")]
    tracing::limited();
}

/// The servers that requests went to without a token, since they are not listed.
#[derive(Debug, Default)]
pub(crate) struct Unlisted {
    /// Those that have been warned of.
    #[cfg(feature = "tracing")]
    warned: std::sync::Mutex<Vec<String>>,
    /// No fetch needs to come before them, which would have described the metric.
    #[cfg(feature = "metrics")]
    described: std::sync::OnceLock<()>,
}

impl Unlisted {
    /// The origin guard has let a request pass without a token.
    pub(crate) fn tell(&self, uri: &Uri) {
        #[cfg(feature = "metrics")]
        {
            self.described.get_or_init(metrics::describe_unstamped);
            metrics::unstamped();
        }
        #[cfg(feature = "tracing")]
        tracing::unstamped(uri, self.is_new(uri));
    }

    /// Whether that server is to be warned of: each once, and no more of them than a person reads.
    #[cfg(feature = "tracing")]
    fn is_new(&self, uri: &Uri) -> bool {
        const WARNINGS: usize = 16;
        let Some(server) = crate::origin::server(uri) else {
            return false;
        };
        let warned = self.warned.lock();
        let mut warned = warned.unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_new = warned.len() < WARNINGS && !warned.contains(&server);
        if is_new {
            warned.push(server);
        }
        is_new
    }
}

/// Whether it has been told that redirects lead requests to other origins.
#[cfg(feature = "reqwest-middleware")]
#[derive(Debug, Default)]
pub(crate) struct LedAway {
    #[cfg(feature = "tracing")]
    told: std::sync::OnceLock<()>,
}

#[cfg(feature = "reqwest-middleware")]
impl LedAway {
    /// A request to one of the layer's origins was answered by another.
    pub(crate) fn tell(&self, from: &str, to: &str) {
        #[cfg(feature = "tracing")]
        self.told.get_or_init(|| tracing::led_away(from, to));
    }
}

/// What came of asking the token store.
#[cfg(feature = "store")]
#[derive(Debug, Clone, Copy)]
pub(crate) enum StoreOutcome {
    Shared,
    Saved,
    Bypassed,
    Limited,
}

#[cfg(feature = "store")]
pub(crate) fn store(outcome: StoreOutcome) {
    #[cfg(feature = "metrics")]
    metrics::store(labels::store(outcome));
}

/// An operation of the token store failed, or took too long.
#[cfg(feature = "store")]
pub(crate) fn store_trouble(operation: &'static str, error: &dyn fmt::Display) {
    #[cfg(feature = "tracing")]
    tracing::store_trouble(operation, error);
    #[cfg(feature = "metrics")]
    metrics::store(labels::TROUBLE);
}

/// What is stored is not used.
#[cfg(feature = "store")]
pub(crate) fn store_ignored(reason: &dyn fmt::Display) {
    #[cfg(feature = "tracing")]
    tracing::store_ignored(reason);
    #[cfg(feature = "metrics")]
    metrics::store(labels::IGNORED);
}

/// The fleet's limit of fetches after rejections is reached.
#[cfg(feature = "store")]
pub(crate) fn store_limited() {
    #[cfg(feature = "tracing")]
    tracing::store_limited();
}
