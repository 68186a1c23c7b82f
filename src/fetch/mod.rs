//! Fetching a token from Symbl's endpoint: a tower service, composed of tower's own timeout and retry
//! over any HTTP client.

use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::Full;
use tower::{BoxError, Service, ServiceExt, retry::Retry, timeout::Timeout};

use crate::{AccessToken, Credentials, TokenError, TokenErrorKind, TokenRequest};
use attempt::Attempt;
use retry::Transient;

#[cfg(feature = "client")]
pub use client::DefaultClient;
pub use endpoint::InvalidEndpoint;

mod attempt;
#[cfg(feature = "client")]
mod client;
mod endpoint;
mod retry;
mod wire;

/// The token-fetching service for Symbl's endpoint: `POST /oauth2/token:generate` with app id and
/// secret.
///
/// Transient failures are tried again: those to connect, timeouts, and the statuses 429, 500, 502, 503
/// and 504, after 200 ms·2ⁿ at most (full jitter), or not at all if a `Retry-After` asks for longer.
/// Redirects are not followed, and a response is read up to 64 KiB.
///
/// ```
/// use std::time::Duration;
/// use tower_symbl_auth::{Credentials, FetchToken, SymblAuthLayer};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "client")] {
/// let fetch = FetchToken::new(Credentials::new("app-id", "app-secret"))
///     .endpoint("https://symbl.internal.example/oauth2/token:generate".parse()?)?
///     .timeout(Duration::from_secs(5))
///     .attempts(2);
/// let layer = SymblAuthLayer::builder(fetch).build();
/// # }
/// # Ok(()) }
/// ```
#[must_use = "a token service does nothing until it is called"]
#[derive(Clone)]
pub struct FetchToken<C> {
    credentials: Credentials,
    client: C,
    endpoint: Uri,
    timeout: Duration,
    attempts: u32,
}

#[cfg(feature = "client")]
impl FetchToken<DefaultClient> {
    /// Over hyper-util's client, with rustls on ring and the platform's root certificates.
    ///
    /// Never fails: should the root certificates not load, token requests fail with
    /// [`Internal`](TokenErrorKind::Internal), saying so.
    pub fn new(credentials: Credentials) -> Self {
        Self::with_client(credentials, DefaultClient::new())
    }
}

impl<C> FetchToken<C> {
    /// Over an HTTP client of your own: any tower service that takes a `Request<Full<Bytes>>`.
    pub fn with_client(credentials: Credentials, client: C) -> Self {
        Self {
            credentials,
            client,
            endpoint: Uri::from_static("https://api.symbl.ai/oauth2/token:generate"),
            timeout: Duration::from_secs(10),
            attempts: 3,
        }
    }

    /// The whole URI of the token request. Default: `https://api.symbl.ai/oauth2/token:generate`.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint`] unless it is an `https` URI, or `http` on the loopback interface: the
    /// request carries the app secret.
    pub fn endpoint(mut self, uri: Uri) -> Result<Self, InvalidEndpoint> {
        endpoint::check(&uri)?;
        self.endpoint = uri;
        Ok(self)
    }

    /// How long one attempt may take, from when it is begun to the last byte of its response.
    /// Default: 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many attempts a token request gets, should they fail for a transient reason; at least one.
    /// Default: 3. All together have 35 s.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// What to seal a shared token with, see [`Builder::store`](crate::Builder::store): derived from the
    /// app secret, for this app id and endpoint. The same for all that have these three.
    ///
    /// The context is the app id's length in bytes, a colon, the app id, and the endpoint as a text.
    #[cfg(feature = "store")]
    #[must_use]
    pub fn sealing_key(&self) -> crate::store::SealingKey {
        let (id, endpoint) = (self.credentials.app_id(), &self.endpoint);
        let context = format!("{}:{id}{endpoint}", id.len());
        crate::store::SealingKey::new(self.credentials.app_secret(), context)
    }
}

impl<C, B> Service<TokenRequest> for FetchToken<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = AccessToken;
    type Error = TokenError;
    type Future = BoxFuture<'static, Result<AccessToken, TokenError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TokenError>> {
        // Each attempt makes an instance of the client ready for itself, within its timeout.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: TokenRequest) -> Self::Future {
        let attempt = Attempt {
            credentials: self.credentials.clone(),
            endpoint: self.endpoint.clone(),
            client: self.client.clone(),
            timeout: self.timeout,
        };
        let limit = self.timeout;
        let timed = Timeout::new(attempt, limit).map_err(move |error| timed_out(error, limit));
        let retried = Retry::new(Transient::new(self.attempts), timed);
        retried.oneshot(request).boxed()
    }
}

fn timed_out(error: BoxError, limit: Duration) -> TokenError {
    if error.is::<tower::timeout::error::Elapsed>() {
        let message = format!("the endpoint gave no answer within {limit:?}");
        return TokenError::new(TokenErrorKind::Timeout, message);
    }
    TokenError::from_service(error)
}

impl<C> fmt::Debug for FetchToken<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchToken")
            .field("credentials", &self.credentials)
            .field("endpoint", &self.endpoint)
            .field("timeout", &self.timeout)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
