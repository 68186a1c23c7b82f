//! The layer: what users build, clone, and put around their clients.

use std::{fmt, sync::Arc};

use futures::Stream;
use http::Request;
use tower::{BoxError, Service};
use tower_layer::Layer;

use crate::{
    AccessToken, NotRetried, TokenError, TokenRequest,
    origin::guard::allows_handshake,
    replay::head::key,
    token::{PATIENT, Refusal},
};

pub(crate) use auth::Auth;
pub use builder::Builder;
pub use future::ResponseFuture;
pub use placement::Placement;
pub use service::SymblAuth;

mod acquire;
mod attempt;
mod auth;
mod builder;
mod future;
mod instances;
mod placement;
mod service;

/// Adds one shared access token to the requests of any tower HTTP client.
///
/// All clones, and all services that they wrap, share the token, its refreshes, and what is known of paths that answer
/// 401. When the last of them is dropped, nothing of theirs stays running.
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
    pub(crate) auth: Arc<Auth>,
}

/// Put it among a request's extensions, and the request is sent as it is, without a token and without a retry.
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
        Builder::new(crate::token::fetching::erase(token_service))
    }

    /// The live token, fetched if there is none.
    ///
    /// # Errors
    ///
    /// What the fetch failed with. Until another is due, calls get the same error at once;
    /// [`retry_after`](TokenError::retry_after) says when that is.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a fetch runs in a task of its own, and others wait for it as well.
    pub async fn token(&self) -> Result<AccessToken, TokenError> {
        Ok(self.auth.cache.token(false).await?.token.clone())
    }

    /// Fetches a new token now, even if a fetch has just failed; or waits for a fetch that is under way. That the endpoint
    /// hands out the same token again is a success.
    ///
    /// # Errors
    ///
    /// What the fetch failed with. A live token stays in use.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: once polled, the fetch goes on.
    pub async fn refresh(&self) -> Result<AccessToken, TokenError> {
        Ok(self.auth.cache.refresh().await?.token.clone())
    }

    /// Adds the token's header to a request that something else will send, such as the handshake of a WebSocket. Fetches a
    /// token if there is none.
    ///
    /// Gives back the token that it added: tell [`accepted`](Self::accepted) or [`rejected`](Self::rejected) what became
    /// of it. `None`: the request's origin is not among the layer's, and the request was left as it is.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the header is added in the last step, or not at all.
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
        let live = self.auth.cache.token(true).await?;
        let key = key(request.method(), request.uri(), request.headers());
        self.auth
            .placement
            .stamp(request.headers_mut(), live.value.clone());
        Ok(Some(live.token.clone().with_stamped_for(key)))
    }

    /// Tells the layer that the API refused that token, and gets another one to try with, for a request that something else
    /// sends. `None`: do not try again.
    ///
    /// Fetches a token if there is no other. The limits are those of the requests that the layer sends. So it is
    /// `None` if the endpoint handed out the same token again, if new tokens have lately not helped, or if too many were
    /// fetched after rejections.
    ///
    /// ```
    /// # use tower_symbl_auth::SymblAuthLayer;
    /// # async fn connect(layer: SymblAuthLayer, mut request: http::Request<()>) -> Result<(), tower::BoxError> {
    /// # let send = async |_: &http::Request<()>| 200;
    /// let token = layer.authorize(&mut request).await?;
    /// let status = send(&request).await; // by whichever client you have
    /// match &token {
    ///     Some(token) if status == 401 => {
    ///         if layer.rejected(token).await?.is_some() {
    ///             layer.authorize(&mut request).await?; // the other token; send it once more
    ///         }
    ///     }
    ///     Some(token) => layer.accepted(token),
    ///     None => {} // another origin: it went without a token
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What the fetch failed with.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: once polled, the fetch goes on.
    pub async fn rejected(&self, token: &AccessToken) -> Result<Option<AccessToken>, TokenError> {
        let path = path_of(token);
        let cache = &self.auth.cache;
        let refusal = Refusal {
            generation: cache.generation_of(token),
            path: Arc::clone(&path),
            probe: None,
            // Only `accepted` will tell of it, if anything does.
            retry: false,
        };
        let refused = refusal.generation;
        let generation = match cache.rejected(refusal, PATIENT).await {
            Ok((_, generation)) => generation,
            Err(NotRetried::Token(error)) => return Err(error),
            Err(_) => return Ok(None),
        };
        let newer = cache.pick(generation, refused);
        let newer = newer.filter(|newer| newer.generation != refused);
        Ok(newer.map(|newer| newer.token.clone().with_stamped_for(path)))
    }

    /// A stream of the token that requests carry now, and of each that replaces it: for code that keeps a token itself,
    /// such as a connection that has to be told of it. A slow reader gets the latest only.
    ///
    /// The stream ends when the last layer and service are dropped; it keeps neither of them, and fetches
    /// nothing by itself. A refresh that only extends the same token yields nothing.
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

    /// Tells the layer that the API accepted that token, which [`authorize`](Self::authorize) added to a request.
    ///
    /// Call it after each success: the layer does not see the answer. Without it the layer cannot know that a
    /// token works. If several such tokens in a row are refused, it waits ever longer before it fetches the next, up to two
    /// minutes; until then [`rejected`](Self::rejected) gives `None`.
    pub fn accepted(&self, token: &AccessToken) {
        let cache = &self.auth.cache;
        cache.accepted(cache.generation_of(token), || Some(path_of(token)));
    }
}

/// What counts as the path of a token that was handed out: of all that were for no request in particular, it is one.
fn path_of(token: &AccessToken) -> Arc<str> {
    let path = token.stamped_for.clone();
    path.unwrap_or_else(|| "token".into())
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
