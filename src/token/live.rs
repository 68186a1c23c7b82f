//! A token in service: what every request reads, and nothing ever writes. A change is a new one.

use http::HeaderValue;
use tokio::time::Instant;

use super::{AccessToken, clock::Moment};

/// A token in service, ready to be added to a request.
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
