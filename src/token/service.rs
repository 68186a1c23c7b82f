//! The token-fetching service, as the cache sees it: any tower service that answers a
//! [`TokenRequest`] with an [`AccessToken`].

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tower::{BoxError, Service, ServiceExt};

use super::{AccessToken, clock::Moment};
use crate::TokenError;

/// What a token-fetching service is asked: a token, please, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    reason: FetchReason,
}

impl TokenRequest {
    /// A request for a token.
    #[must_use]
    pub fn new(reason: FetchReason) -> Self {
        Self { reason }
    }

    /// Why a token is needed. A service that keeps tokens of its own must not answer
    /// [`Rejected`](FetchReason::Rejected) or [`Forced`](FetchReason::Forced) from what it keeps.
    #[must_use]
    pub fn reason(&self) -> FetchReason {
        self.reason
    }
}

/// Why a token is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchReason {
    /// There has been none yet.
    First,
    /// The last one has expired.
    Expired,
    /// The live one will expire before long.
    Early,
    /// The API rejected the live one.
    Rejected,
    /// [`SymblAuthLayer::refresh`](crate::SymblAuthLayer::refresh) was called.
    Forced,
}

/// A token, and the lifetime it was told to have when its request was sent.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) token: AccessToken,
    pub(crate) lifetime: Duration,
}

/// A token service with its type erased; each call is answered by a clone of it, made ready first.
pub(crate) type Fetch =
    Arc<dyn Fn(FetchReason) -> BoxFuture<'static, Result<Fetched, TokenError>> + Send + Sync>;

pub(crate) fn erase<T>(service: T) -> Fetch
where
    T: Service<TokenRequest, Response = AccessToken> + Clone + Send + Sync + 'static,
    T::Error: Into<BoxError>,
    T::Future: Send + 'static,
{
    Arc::new(move |reason| {
        let mut service = service.clone();
        Box::pin(async move {
            let fail = |error: T::Error| TokenError::from_service(error.into());
            let ready = service.ready().await.map_err(fail)?;
            let sent = Moment::now();
            let answer = ready.call(TokenRequest::new(reason));
            let token = answer.await.map_err(fail)?.counted_from(sent);
            let lifetime = token.lifetime_at(sent);
            Ok(Fetched { token, lifetime })
        })
    })
}
