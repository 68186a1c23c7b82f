//! The live token: what every request reads, and nothing ever writes. A change is a new one.

use http::HeaderValue;

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
}

impl Live {
    /// The same, but the next request that starts a refresh comes at `refresh` or later.
    pub(crate) fn with_refresh(&self, refresh: Moment) -> Self {
        Self {
            refresh,
            ..self.clone()
        }
    }
}
