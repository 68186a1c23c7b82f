//! What all services of a layer share, and how they read an answer.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, Response, StatusCode};

use super::Placement;
use crate::{
    Origin, telemetry,
    token::{Key, cache::TokenCache},
};

/// What every request of a layer shares.
pub(crate) struct Auth {
    pub(crate) cache: TokenCache,
    pub(crate) origins: Box<[Origin]>,
    pub(crate) placement: Placement,
    pub(crate) replay_limit: usize,
    pub(super) rejected_when: Option<RejectedWhen>,
    pub(super) unlisted: telemetry::Unlisted,
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) led_away: telemetry::LedAway,
}

/// What counts as a rejection besides status 401 and gRPC status 16.
pub(crate) type RejectedWhen = Arc<dyn Fn(StatusCode, &HeaderMap) -> bool + Send + Sync>;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

impl Auth {
    /// Whether a response says that the token was refused: status 401, or a gRPC answer that consists of
    /// nothing but its trailers and says `UNAUTHENTICATED` (16); or what the user takes for one.
    #[inline]
    pub(super) fn is_rejection<R>(&self, response: &Response<R>) -> bool {
        self.means_rejection(response.status(), response.headers())
    }

    #[inline]
    pub(crate) fn means_rejection(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let says_so = match status {
            StatusCode::UNAUTHORIZED => true,
            StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN => false,
            _ => {
                let status = headers.get(&GRPC_STATUS);
                status.is_some_and(|status| status == "16")
            }
        };
        let is_taken_for = |is: &RejectedWhen| is(status, headers);
        says_so || self.rejected_when.as_ref().is_some_and(is_taken_for)
    }

    /// A first attempt was answered, and not rejected.
    #[inline]
    pub(crate) fn answered(&self, generation: u64, status: StatusCode, path: impl FnOnce() -> Key) {
        if self.cache.listens() && is_acceptance(status) {
            self.cache.accepted(generation, || Some(path()));
        }
    }
}

/// Whether an answer that is no rejection says that the API has looked at the token: not if it failed
/// itself, or is asked too much.
pub(super) fn is_acceptance(status: StatusCode) -> bool {
    status < StatusCode::INTERNAL_SERVER_ERROR && status != StatusCode::TOO_MANY_REQUESTS
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SymblAuthLayer")
            .field("origins", &self.origins)
            .field("placement", &self.placement)
            .field("replay_limit", &self.replay_limit)
            .field("token", &self.cache)
            .finish()
    }
}
