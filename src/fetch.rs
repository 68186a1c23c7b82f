//! Fetching a token from Symbl's endpoint: a tower service, composed of tower's own retry over attempts
//! that each have a timeout, over any HTTP client.

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
use tower::{BoxError, Service, ServiceExt, retry::Retry};

use crate::{AccessToken, Credentials, TokenError, TokenRequest, rt};
use attempt::Attempt;
use provider::Provider;
use retry::Transient;

#[cfg(feature = "client")]
pub use client::DefaultClient;
pub use endpoint::InvalidEndpoint;

mod attempt;
#[cfg(feature = "client")]
mod client;
mod endpoint;
mod provider;
mod refusal;
mod retry;
#[cfg(feature = "client")]
mod tls;
mod wire;

/// The token-fetching service for Symbl's endpoint: `POST /oauth2/token:generate` with app id and
/// secret.
///
/// Transient failures are tried again: those to connect, timeouts, answers that break off, and the
/// statuses 408, 429, 500, 502, 503 and 504. The next attempt comes after 200 ms·2ⁿ at most (full jitter),
/// or after what a `Retry-After` asks for, up to 5 s; one that asks for more ends the attempts and is
/// handed on. Redirects are not followed, and a response is read up to 64 KiB.
///
/// It needs a tokio runtime with a timer, and fails with
/// [`Internal`](crate::TokenErrorKind::Internal) elsewhere.
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
pub struct FetchToken<
    #[cfg(feature = "client")] C = DefaultClient,
    #[cfg(not(feature = "client"))] C,
> {
    provider: Provider,
    client: C,
    endpoint: Uri,
    timeout: Duration,
    attempts: u32,
}

#[cfg(feature = "client")]
impl FetchToken {
    /// Over the [`DefaultClient`].
    ///
    /// Never fails: should the root certificates not load, token requests fail with
    /// [`Internal`](crate::TokenErrorKind::Internal), saying so.
    pub fn new(credentials: Credentials) -> Self {
        Self::with_client(credentials, DefaultClient::default())
    }

    /// With credentials that rotate: `provider` is asked before every token request. If the endpoint refuses them,
    /// `provider` is asked again at once. Should it then give other credentials, they are tried; once in each attempt.
    ///
    /// Asking counts in an attempt's [`timeout`](Self::timeout). A provider that fails or is late is tried
    /// again like the endpoint, and its error is [`Unavailable`](crate::TokenErrorKind::Unavailable) or
    /// [`Timeout`](crate::TokenErrorKind::Timeout); a [`TokenError`] of its own, or among the sources of
    /// its error, is handed on instead.
    ///
    /// ```
    /// use tower_symbl_auth::{Credentials, FetchToken};
    ///
    /// let fetch = FetchToken::with_provider(|| async {
    ///     let secret = std::fs::read_to_string("/run/secrets/symbl")?; // or ask a vault
    ///     Ok(Credentials::new("app-id", secret.trim()))
    /// });
    /// ```
    pub fn with_provider<P, F>(provider: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<Credentials, BoxError>> + Send + 'static,
    {
        let provider = Provider::Asked(std::sync::Arc::new(move || provider().boxed()));
        Self::of(provider, DefaultClient::default())
    }
}

impl<C> FetchToken<C> {
    /// Over an HTTP client of your own: any tower service that takes a `Request<Full<Bytes>>`. It must not
    /// follow redirects, which could carry the app secret to another host.
    pub fn with_client(credentials: Credentials, client: C) -> Self {
        Self::of(Provider::Fixed(credentials), client)
    }

    fn of(provider: Provider, client: C) -> Self {
        Self {
            provider,
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
    /// Default: 10 s. The [default client](Self::new) gives a third of it to connecting.
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
    ///
    /// With [`with_provider`](Self::with_provider) the secret is not known here, so the key is a random one,
    /// and nothing is shared: give the store a [`SealingKey`](crate::store::SealingKey) of your own.
    ///
    /// # Panics
    ///
    /// With `with_provider`, if the system has no random bytes.
    #[cfg(feature = "store")]
    #[must_use]
    pub fn sealing_key(&self) -> crate::store::SealingKey {
        match &self.provider {
            Provider::Fixed(credentials) => {
                let (id, endpoint) = (credentials.app_id(), &self.endpoint);
                let context = format!("{}:{id}{endpoint}", id.len());
                crate::store::SealingKey::new(credentials.app_secret(), context)
            }
            Provider::Asked(_) => {
                let secret = crate::store::random().expect("the system has random bytes");
                crate::store::SealingKey::new(secret, "unshared")
            }
        }
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
            provider: self.provider.clone(),
            endpoint: self.endpoint.clone(),
            client: self.client.clone(),
            timeout: self.timeout,
        };
        let retried = Retry::new(Transient::new(self.attempts), attempt);
        async move {
            if !rt::has_timer() {
                return Err(TokenError::internal(
                    "a token request needs a tokio runtime with a timer: see `Builder::enable_time`",
                ));
            }
            retried.oneshot(request).await
        }
        .boxed()
    }
}

impl<C> fmt::Debug for FetchToken<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchToken")
            .field("credentials", &self.provider)
            .field("endpoint", &self.endpoint)
            .field("timeout", &self.timeout)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
