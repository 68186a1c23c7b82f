//! The layer: what users build, clone, and put around their clients.

use std::{fmt, sync::Arc};

use futures::Stream;
use http::{HeaderMap, Request, StatusCode};
use tower::{BoxError, Service};
use tower_layer::Layer;

use crate::{
    AccessToken, NotRetried, Origin, TokenError, TokenRequest,
    origin::allows_handshake,
    replay::head::key,
    telemetry,
    token::{PATIENT, Refusal, cache::TokenCache},
};

pub use builder::Builder;
pub use future::ResponseFuture;
pub use placement::Placement;
pub use service::SymblAuth;

mod acquire;
mod attempt;
mod builder;
mod future;
mod placement;
mod service;
mod shared;

/// Authenticates the requests of any tower HTTP client with one shared access token.
///
/// All clones, and all services that they wrap, share the token, its refresher and the book of
/// rejections. When the last of them is dropped, nothing of theirs stays running.
///
/// ```
/// # #[cfg(feature = "mock")] {
/// use http_body_util::Empty;
/// use tower::{Layer, Service, ServiceExt};
/// use tower_symbl_auth::{SymblAuth, SymblAuthLayer, mock::MockSymbl};
/// # use bytes::Bytes;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let symbl = MockSymbl::start().await?;
/// let layer: SymblAuthLayer = symbl.layer();
///
/// let client = Client::builder(TokioExecutor::new()).build_http();
/// let mut client = layer.layer(client);
///
/// let request = http::Request::get(symbl.url("/v1/conversations/1")).body(Empty::<Bytes>::new())?;
/// let response = client.ready().await?.call(request).await?;
/// assert_eq!(response.status(), 404); // not 401
/// # Ok::<(), tower::BoxError>(()) }).unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct SymblAuthLayer {
    auth: Arc<Auth>,
}

/// What every request of a layer shares.
pub(crate) struct Auth {
    pub(crate) cache: TokenCache,
    pub(crate) origins: Box<[Origin]>,
    pub(crate) placement: Placement,
    pub(crate) replay_limit: usize,
    rejected_when: Option<RejectedWhen>,
    unlisted: telemetry::Unlisted,
    #[cfg(feature = "reqwest-middleware")]
    led_away: telemetry::LedAway,
}

/// What counts as a rejection besides those that always do.
pub(crate) type RejectedWhen = Arc<dyn Fn(StatusCode, &HeaderMap) -> bool + Send + Sync>;

/// In a request's extensions: it is sent as it is, without a token and without a retry.
///
/// ```
/// use tower_symbl_auth::SkipAuth;
///
/// let request = http::Request::get("https://api.symbl.ai/health").extension(SkipAuth).body(())?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SkipAuth;

impl SymblAuthLayer {
    /// A layer for Symbl's own endpoint and APIs, with all defaults.
    #[cfg(feature = "client")]
    #[must_use]
    pub fn new(credentials: crate::Credentials) -> Self {
        Self::builder(crate::FetchToken::new(credentials)).build()
    }

    /// A layer that gets its tokens from a service: [`FetchToken`](crate::FetchToken), or any other.
    ///
    /// The service is cloned for each token request and made ready first. Its errors are searched along
    /// `source()` for a [`TokenError`], which says what kind they are of; without one they are
    /// [`Unavailable`](crate::TokenErrorKind::Unavailable). A lifetime is counted from when the
    /// service was called.
    pub fn builder<T>(token_service: T) -> Builder
    where
        T: Service<TokenRequest, Response = AccessToken> + Clone + Send + Sync + 'static,
        T::Error: Into<BoxError>,
        T::Future: Send + 'static,
    {
        Builder::new(crate::token::service::erase(token_service))
    }

    /// The live token, fetched if there is none.
    ///
    /// # Errors
    ///
    /// What the fetch failed with; during the cool-down that follows, the same error at once.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a fetch runs in a task of its own, and others wait for it as well.
    pub async fn token(&self) -> Result<AccessToken, TokenError> {
        Ok(self.auth.cache.token().await?.token.clone())
    }

    /// A new token now, past any cool-down; joins a fetch that is under way. That the endpoint hands
    /// out the same token again is a success.
    ///
    /// # Errors
    ///
    /// What the fetch failed with. A live token stays in service.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: once polled, the fetch goes on.
    pub async fn refresh(&self) -> Result<AccessToken, TokenError> {
        Ok(self.auth.cache.refresh().await?.token.clone())
    }

    /// Stamps a request that something else will send, such as the handshake of a WebSocket. The same
    /// origin guard applies: `None` means that the request was left as it is.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the request is stamped in the last step, or not at all.
    pub async fn authorize<B>(
        &self,
        request: &mut Request<B>,
    ) -> Result<Option<AccessToken>, TokenError> {
        if request.extensions().get::<SkipAuth>().is_some() {
            return Ok(None);
        }
        if !allows_handshake(&self.auth.origins, request.uri(), request.headers()) {
            self.auth.unlisted.tell(request.uri());
            return Ok(None);
        }
        let live = self.auth.cache.token_for_handshake().await?;
        let key = key(request.method(), request.uri(), request.headers());
        self.auth
            .placement
            .stamp(request.headers_mut(), live.value.clone());
        Ok(Some(live.token.clone().with_stamped_for(key)))
    }

    /// The API refused that token: `Some`, a newer one, when sending again is worth it. The same rules
    /// keep it from becoming a storm as for the requests that the layer sends: `None` if the endpoint
    /// handed out the same token again, or if new tokens have lately not helped.
    ///
    /// # Errors
    ///
    /// What the fetch failed with.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: once polled, the fetch goes on.
    pub async fn rejected(&self, token: &AccessToken) -> Result<Option<AccessToken>, TokenError> {
        let path = match token.stamped_for() {
            Some(path) => Arc::clone(path),
            None => "token".into(),
        };
        let cache = &self.auth.cache;
        let refusal = Refusal {
            generation: cache.generation_of(token),
            path: Arc::clone(&path),
            probe: None,
            // Only `accepted` will tell of it, if anything does.
            retry: false,
        };
        let refused = refusal.generation;
        let (rejection, decided) = cache.rejected(refusal);
        let generation = match rejection.decide(decided, PATIENT).await {
            Ok((_, generation)) => generation,
            Err(NotRetried::Token(error)) => return Err(error),
            Err(_) => return Ok(None),
        };
        let newer = cache.replacement(generation, refused);
        Ok(newer.map(|newer| newer.with_stamped_for(path)))
    }

    /// The served token, and each one that takes its place: for what keeps a token of its own, such as a
    /// connection that has to be told. A slow reader gets the latest only.
    ///
    /// The stream ends when the last layer and service are dropped; it keeps neither of them, and fetches
    /// nothing by itself. A refresh that brings the same token with a later end is not told.
    ///
    /// ```
    /// # use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenRequest};
    /// # let tokens = tower::service_fn(|_: TokenRequest| async {
    /// #     AccessToken::new("token", std::time::Duration::from_secs(60))
    /// # });
    /// use futures::StreamExt;
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let layer = SymblAuthLayer::builder(tokens).build();
    /// let mut tokens = Box::pin(layer.watch());
    /// layer.token().await?;
    /// let token = tokens.next().await.expect("the layer is there");
    /// assert_eq!(token.expose_secret(), "token");
    /// # Ok::<(), tower::BoxError>(()) }).unwrap();
    /// ```
    pub fn watch(&self) -> impl Stream<Item = AccessToken> + Send + 'static {
        self.auth.cache.watch()
    }

    /// Refreshes the token ahead of its end without waiting for a request to do so, until dropped: for a
    /// service whose first request after a quiet night must not wait. To be spawned.
    ///
    /// Fetches a token at once if there is none. It never ends by itself: a failed fetch is repeated
    /// after the same backoff as for requests.
    ///
    /// ```no_run
    /// # async fn run(layer: tower_symbl_auth::SymblAuthLayer) {
    /// let fresh = tokio::spawn({
    ///     let layer = layer.clone();
    ///     async move { layer.keep_fresh().await }
    /// });
    /// // … as long as the service runs …
    /// fresh.abort();
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a fetch that is under way goes on.
    pub async fn keep_fresh(&self) {
        self.auth.cache.keep_fresh().await
    }

    /// For other skins than the service: what a request to that URI is stamped with, if it is at all.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn placement_for(&self, uri: &http::Uri) -> Option<Placement> {
        let headers = http::HeaderMap::new();
        crate::origin::allows(&self.auth.origins, uri, &headers).then_some(self.auth.placement)
    }

    /// Whether a response counts as a rejection.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn is_rejection<R>(&self, response: &http::Response<R>) -> bool {
        self.auth.is_rejection(response)
    }

    /// A redirect led that request to another origin.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn led_away(&self, uri: &http::Uri, from: &str, to: &str) {
        if self.placement_for(uri).is_some() {
            self.auth.led_away.tell(from, to);
        }
    }

    /// The API accepted that token, which [`authorize`](Self::authorize) stamped a request with.
    ///
    /// Only this tells a new token that helped from one that did not. Without it, a token that is revoked
    /// within a minute after [`rejected`](Self::rejected) brought it counts as one that did not help, and
    /// its rejection is handed back.
    pub fn accepted(&self, token: &AccessToken) {
        let cache = &self.auth.cache;
        let path = token.stamped_for().map(Arc::clone);
        cache.accepted(cache.generation_of(token), || path);
    }
}

impl<S> Layer<S> for SymblAuthLayer {
    type Service = SymblAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SymblAuth::new(inner, Arc::clone(&self.auth))
    }
}

impl fmt::Debug for SymblAuthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.auth.fmt(f)
    }
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
