//! The token-fetching service, as the cache sees it: any tower service that answers a
//! [`TokenRequest`] with an [`AccessToken`].

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tower::{BoxError, Service, ServiceExt};

use super::{AccessToken, clock::Moment};
use crate::TokenError;

/// What a token-fetching service is asked: a token, please, and why.
///
/// ```
/// use std::time::Duration;
/// use tower_symbl_auth::{AccessToken, FetchReason, TokenRequest};
///
/// let old = AccessToken::new("s3cr3t", Duration::from_secs(60))?;
/// let request = TokenRequest::new(FetchReason::Early).replacing(old);
/// assert_eq!(request.reason(), FetchReason::Early);
/// assert_eq!(request.replaces().map(AccessToken::expose_secret), Some("s3cr3t"));
/// # Ok::<(), tower_symbl_auth::InvalidToken>(())
/// ```
#[derive(Debug, Clone)]
pub struct TokenRequest {
    pub(super) reason: FetchReason,
    pub(super) replaces: Option<AccessToken>,
}

impl TokenRequest {
    /// A request for a token, in place of none.
    #[must_use]
    pub fn new(reason: FetchReason) -> Self {
        Self {
            reason,
            replaces: None,
        }
    }

    /// The same request, for a token in place of this one.
    #[must_use]
    pub fn replacing(mut self, token: AccessToken) -> Self {
        self.replaces = Some(token);
        self
    }

    /// Why a token is needed. A service that keeps tokens of its own must not answer
    /// [`Rejected`](FetchReason::Rejected) or [`Forced`](FetchReason::Forced) from what it keeps.
    #[must_use]
    pub fn reason(&self) -> FetchReason {
        self.reason
    }

    /// The newest token that whoever asks has, if it has had any: what comes is to be another, unless
    /// the issuer hands out the same one again.
    #[must_use]
    pub fn replaces(&self) -> Option<&AccessToken> {
        self.replaces.as_ref()
    }
}

impl PartialEq for TokenRequest {
    fn eq(&self, other: &Self) -> bool {
        let secrets = [self, other].map(|it| it.replaces().map(AccessToken::expose_secret));
        self.reason == other.reason && secrets[0] == secrets[1]
    }
}

impl Eq for TokenRequest {}

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
    Arc<dyn Fn(TokenRequest) -> BoxFuture<'static, Result<Fetched, TokenError>> + Send + Sync>;

pub(crate) fn erase<T>(service: T) -> Fetch
where
    T: Service<TokenRequest, Response = AccessToken> + Clone + Send + Sync + 'static,
    T::Error: Into<BoxError>,
    T::Future: Send + 'static,
{
    Arc::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move {
            let fail = |error: T::Error| TokenError::from_service(error.into());
            let ready = service.ready().await.map_err(fail)?;
            let sent = Moment::now();
            let answer = ready.call(request);
            let token = answer.await.map_err(fail)?.counted_from(sent);
            let lifetime = token.remaining(sent);
            Ok(Fetched { token, lifetime })
        })
    })
}
