//! The live token: what every request reads, and nothing ever writes. A change is a new one.

use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::{AccessToken, clock::Moment};

/// A token in service, ready to be stamped.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) token: AccessToken,
    /// Built once for each token; cloning it counts a reference.
    pub(crate) value: HeaderValue,
    /// Counts the tokens there have been. The same secret keeps its generation.
    pub(crate) generation: u64,
    /// Its expiry, less the hard margin.
    pub(crate) expires: Moment,
    /// When it is to be refreshed.
    pub(crate) due: Moment,
    /// From when on the next request starts a refresh: `due`, or later while one is under way or has
    /// lately failed.
    pub(crate) refresh: Moment,
    /// From when on the next request looks what is due: `expires`, `refresh`, or a look at the wall
    /// clock. It is all that the others compare.
    pub(crate) look: Instant,
}

/// Reading the wall clock costs as much as all the rest of a look at the token. Where interleavings are
/// explored, each request does.
const WALL_EVERY: Duration = Duration::from_millis(if cfg!(shuttle) { 0 } else { 100 });

impl Live {
    /// The same, but the next request that starts a refresh comes at `refresh` or later.
    pub(crate) fn with_refresh(&self, refresh: Moment) -> Self {
        Self {
            refresh,
            ..self.clone()
        }
    }

    /// The same, with nothing that was due at `now` left to do.
    pub(crate) fn looked_at(self, now: Instant) -> Self {
        let wall = now + WALL_EVERY;
        let look = wall.min(self.expires.mono).min(self.refresh.mono);
        Self { look, ..self }
    }
}
