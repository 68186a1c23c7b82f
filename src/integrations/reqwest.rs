//! [`SymblAuthLayer`] as a middleware of reqwest-middleware. Feature `reqwest-middleware`.
//!
//! ```
//! use reqwest_middleware::{ClientWithMiddleware, Error};
//! use tower_symbl_auth::{SymblAuthLayer, TokenError};
//!
//! fn client(auth: SymblAuthLayer) -> reqwest::Result<ClientWithMiddleware> {
//!     auth.reqwest_client(reqwest::Client::builder())
//! }
//! fn token_error(error: &Error) -> Option<&TokenError> {
//!     if let Error::Middleware(error) = error { error.downcast_ref() } else { None }
//! }
//! # let error = TokenError::new(tower_symbl_auth::TokenErrorKind::Timeout, "late");
//! # assert!(token_error(&Error::middleware(error)).is_some());
//! # let auth = SymblAuthLayer::builder(tower::service_fn(|_| async {
//! #     Err::<tower_symbl_auth::AccessToken, tower::BoxError>("none".into())
//! # }));
//! # client(auth.build()).unwrap();
//! ```
//!
//! All rules are those of [`SymblAuth`](crate::SymblAuth), which it drives.
//! [`NotRetried`](crate::NotRetried) is among the extensions of the `reqwest::Response`. A
//! [`SkipAuth`] is taken from those of the request (`RequestBuilder::with_extension`). Errors of the chain
//! beneath come back as they are.
//!
//! # Redirects
//!
//! reqwest follows them beneath every middleware. It takes `Authorization` off when one leads to another
//! host, port or scheme; but up to 0.13.5 (with tower-http 0.6) puts it on again for the next hop, should
//! that other host redirect to itself. `x-api-key` it never takes off. Hence
//! [`SymblAuthLayer::reqwest_client`]: its redirect policy leads no request to the layer's origins away
//! from the one it was sent to.
//!
//! Of a client that you built yourself, the policy cannot be seen from here; give it
//! [`SymblAuthLayer::redirect_policy`]. With [`Placement::ApiKey`] every request that would get the token is
//! refused there; with [`Placement::Bearer`], the first answer that came from another origin than the
//! request's is warned of (feature `tracing`).
//!
//! An answer from another origin than the request's says nothing of the token: it is handed back, and counts
//! neither as accepted nor as rejected. A rejection that a redirect within the origin led to is handed back as
//! well, unless the method is idempotent: the first server may have done what it was asked.
//!
//! # Timeouts
//!
//! A request's own timeout (`RequestBuilder::timeout`) bounds all of it: the wait for a token, both attempts,
//! and the body of the answer. The second attempt has what is left. If it runs out during an attempt, the error
//! is reqwest's; if before or between them, a [`TokenError`] of the kind
//! [`Timeout`](crate::TokenErrorKind::Timeout). A timeout of the whole client (`ClientBuilder::timeout`) cannot
//! be seen from here: it is for each attempt.

use std::{error, fmt, mem, sync::Arc};

use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use http::{Extensions, Uri};
use reqwest::{Request, Response, redirect::Policy};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next, Result};
use tokio::{sync::Mutex, time::Instant};
use tower::{Layer, ServiceExt};

use self::{
    chain::{Chain, Lent, carry, put_back},
    short::{is_listed, origin},
};
use crate::{
    Placement, SkipAuth, SymblAuthLayer, TokenError, TokenErrorKind, deadline::Deadline, rt,
};

mod chain;
mod short;

impl SymblAuthLayer {
    /// A reqwest client that is authenticated, and takes the token nowhere else: it has
    /// [`redirect_policy`](Self::redirect_policy), whichever the builder had. So
    /// [`Placement::ApiKey`] is safe with it too.
    ///
    /// ```
    /// # use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenRequest};
    /// # let tokens = tower::service_fn(|_: TokenRequest| async {
    /// #     AccessToken::new("token", std::time::Duration::from_secs(60))
    /// # });
    /// let auth = SymblAuthLayer::builder(tokens).build();
    /// let client = auth.reqwest_client(reqwest::Client::builder().user_agent("my-app/1.0"))?;
    /// let request = client.get("https://api.symbl.ai/v1/conversations/1");
    /// # Ok::<(), reqwest::Error>(())
    /// ```
    ///
    /// For more middlewares, give [`redirect_policy`](Self::redirect_policy) to a client of your own, and
    /// the layer to `reqwest_middleware::ClientBuilder::with`.
    ///
    /// # Errors
    ///
    /// Those of [`reqwest::ClientBuilder::build`].
    pub fn reqwest_client(
        &self,
        client: reqwest::ClientBuilder,
    ) -> reqwest::Result<ClientWithMiddleware> {
        let client = client.redirect(self.redirect_policy()).build()?;
        let auth = KeepsWithin(self.clone());
        Ok(ClientBuilder::new(client).with(auth).build())
    }

    /// A policy for [`reqwest::ClientBuilder::redirect`]: a redirect that would lead a request to one of
    /// the layer's origins to any other is not followed, but handed back. Else it is reqwest's default.
    #[must_use]
    pub fn redirect_policy(&self) -> Policy {
        let layer = self.clone();
        Policy::custom(move |attempt| {
            let (sent, next) = (attempt.previous().first(), attempt.url());
            let leaves = sent.is_some_and(|sent| {
                sent.origin() != next.origin() && origin(&layer.auth, sent).is_some()
            });
            if leaves {
                attempt.stop()
            } else {
                Policy::default().redirect(attempt)
            }
        })
    }
}

// By hand what `async_trait` writes, for it would keep each request twice, and another future within its own.
impl Middleware for SymblAuthLayer {
    fn handle<'a, 'b, 'c, 'd>(
        &'a self,
        request: Request,
        extensions: &'b mut Extensions,
        next: Next<'c>,
    ) -> BoxFuture<'d, Result<Response>>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
    {
        send(self, Redirects::Unknown, request, extensions, next)
    }
}

/// The layer in a client with its redirect policy.
struct KeepsWithin(SymblAuthLayer);

impl Middleware for KeepsWithin {
    fn handle<'a, 'b, 'c, 'd>(
        &'a self,
        request: Request,
        extensions: &'b mut Extensions,
        next: Next<'c>,
    ) -> BoxFuture<'d, Result<Response>>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
    {
        send(&self.0, Redirects::Within, request, extensions, next)
    }
}

/// Where the client may carry a request's headers.
#[derive(PartialEq)]
enum Redirects {
    Unknown,
    /// Nowhere but within the origin.
    Within,
}

fn send<'a>(
    layer: &'a SymblAuthLayer,
    redirects: Redirects,
    mut request: Request,
    extensions: &'a mut Extensions,
    next: Next<'a>,
) -> BoxFuture<'a, Result<Response>> {
    if extensions.get::<SkipAuth>().is_some() {
        return next.run(request, extensions);
    }
    let auth = &*layer.auth;
    let is_api_key = auth.placement == Placement::ApiKey;
    if is_api_key && redirects == Redirects::Unknown && is_listed(auth, &request) {
        return future::err(Error::middleware(ApiKeyRefused)).boxed();
    }
    let short = async move {
        // With the token that is live when it is polled, not when it was made.
        let Some(saved) = short::stamp(auth, &mut request) else {
            let long = send_long(layer, request, None, extensions, next);
            return long.boxed().await;
        };
        let response = next.clone().run(request, extensions).await?;
        if !saved.is_rejected(auth, &response) {
            return Ok(response);
        }
        let answer = Some((saved.generation, response));
        // Boxed, for its state is long, and seldom needed.
        let long = send_long(layer, saved.restore(), answer, extensions, next);
        long.boxed().await
    };
    short.boxed()
}

/// As a request of the service. With an answer, that is what became of the first attempt.
async fn send_long(
    layer: &SymblAuthLayer,
    mut request: Request,
    answer: Option<(u64, Response)>,
    extensions: &mut Extensions,
    next: Next<'_>,
) -> Result<Response> {
    let Ok(uri) = request.url().as_str().parse::<Uri>() else {
        return match answer {
            Some((_, response)) => Ok(response),
            // What is no URI, reqwest will say in its own words.
            None => next.run(request, extensions).await,
        };
    };
    let deadline = (request.timeout()).and_then(|timeout| Deadline::new(Instant::now(), *timeout));
    let in_memory = request.try_clone();
    let mut message = http::Request::new(request.body_mut().take().unwrap_or_default());
    *message.method_mut() = request.method().clone();
    *message.uri_mut() = uri;
    *message.version_mut() = request.version();
    *message.headers_mut() = mem::take(request.headers_mut());
    let lent = Arc::new(Mutex::new(Lent::new(extensions)));
    let service = layer.layer(Chain {
        auth: &layer.auth,
        next,
        lent: Arc::clone(&lent),
        streams: in_memory.is_none(),
        template: Arc::new(in_memory.unwrap_or(request)),
        deadline,
    });
    let mut answer = match answer {
        None => service.oneshot(message).boxed(),
        Some((generation, response)) => {
            let rejection = carry(response);
            service.rejected(&message, generation, rejection).boxed()
        }
    };
    let answered = match deadline {
        None => answer.await,
        Some(deadline) => match rt::timeout(deadline.left(), &mut answer).await {
            Some(answered) => answered,
            None => {
                // An attempt that is under way has the same deadline, and says so itself.
                let is_under_way = lent.try_lock().is_err();
                let limit = if is_under_way {
                    chain::GRACE
                } else {
                    Default::default()
                };
                rt::timeout(limit, answer).await.unwrap_or_else(|| {
                    let what = "the request's own timeout has run out";
                    Err(TokenError::new(TokenErrorKind::Timeout, what).into())
                })
            }
        },
    };
    match answered {
        Ok(carrier) => Ok(put_back(carrier)),
        Err(error) => match error.downcast::<Error>() {
            Ok(from_beneath) => match lent.try_lock().ok().and_then(|mut lent| lent.unrelated()) {
                Some(response) => Ok(response),
                None => Err(*from_beneath),
            },
            Err(error) => Err(Error::middleware(TokenError::from_service(error))),
        },
    }
}

/// Why a request is not sent with [`Placement::ApiKey`].
#[derive(Debug)]
struct ApiKeyRefused;

impl fmt::Display for ApiKeyRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this client may carry `x-api-key` along redirects to other hosts: use `Placement::Bearer`, \
             or the client that `SymblAuthLayer::reqwest_client` makes",
        )
    }
}

impl error::Error for ApiKeyRefused {}
