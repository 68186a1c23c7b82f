//! [`SymblAuthLayer`] as a middleware of reqwest-middleware. Feature `reqwest-middleware`.
//!
//! ```
//! use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
//! use tower_symbl_auth::{SymblAuthLayer, TokenError};
//!
//! fn client(auth: SymblAuthLayer) -> reqwest::Result<ClientWithMiddleware> {
//!     let client = reqwest::Client::builder().redirect(auth.redirect_policy()).build()?;
//!     Ok(ClientBuilder::new(client).with(auth).build())
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
//! All rules are those of [`SymblAuth`](crate::SymblAuth), which it drives. Of two attempts each has the
//! request's timeout. [`NotRetried`](crate::NotRetried) is among the extensions of the
//! `reqwest::Response`. Errors of the chain beneath come back as they are.
//!
//! # Redirects
//!
//! reqwest follows them beneath every middleware. It takes `Authorization` off when one leads to another
//! host, port or scheme; but up to 0.13.5 (with tower-http 0.6) puts it on again for the next hop, should
//! that other host redirect to itself. Hence [`SymblAuthLayer::redirect_policy`]: with it,
//! no request to the layer's origins is led away from the one it was sent to.
//!
//! `x-api-key` reqwest never takes off, and whether a client has that policy cannot be seen from here. So
//! with [`Placement::ApiKey`] every request that would be stamped is refused.
//!
//! A 401 from another origin than the request's was not about the token, and is handed back. So is one that
//! a redirect within the origin led to, unless the method is idempotent: the first server may have done what it
//! was asked.

use std::{
    error, fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use http::{Extensions, HeaderName, Uri};
use reqwest::{Body, Request, Response, Url, redirect::Policy};
use reqwest_middleware::{Error, Middleware, Next, Result};
use tokio::sync::Mutex;
use tower::{Layer, Service, ServiceExt};

use crate::{Placement, ReplayBody, SymblAuthLayer, TokenError};

impl SymblAuthLayer {
    /// A policy for [`reqwest::ClientBuilder::redirect`]: a redirect that would lead a request to one of
    /// the layer's origins to any other is not followed, but handed back. Else it is reqwest's default.
    #[must_use]
    pub fn redirect_policy(&self) -> Policy {
        let layer = self.clone();
        Policy::custom(move |attempt| {
            let (sent, next) = (attempt.previous().first(), attempt.url());
            let leaves = sent.is_some_and(|sent| {
                let is_ours = |uri| layer.placement_for(&uri).is_some();
                sent.origin() != next.origin() && sent.as_str().parse().is_ok_and(is_ours)
            });
            if leaves {
                attempt.stop()
            } else {
                Policy::default().redirect(attempt)
            }
        })
    }
}

#[async_trait]
impl Middleware for SymblAuthLayer {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let Ok(uri) = request.url().as_str().parse::<Uri>() else {
            // reqwest will say so in its own words.
            return next.run(request, extensions).await;
        };
        if self.placement_for(&uri) == Some(Placement::ApiKey) {
            return Err(Error::middleware(ApiKeyRefused));
        }
        let in_memory = request.try_clone();
        let mut message = http::Request::new(request.body_mut().take().unwrap_or_default());
        *message.method_mut() = request.method().clone();
        *message.uri_mut() = uri;
        *message.version_mut() = request.version();
        *message.headers_mut() = mem::take(request.headers_mut());
        let chain = Chain {
            next,
            extensions: Arc::new(Mutex::new(extensions)),
            streams: in_memory.is_none(),
            template: Arc::new(in_memory.unwrap_or(request)),
        };
        match self.layer(chain).oneshot(message).await {
            Ok(carrier) => {
                let (parts, mut response) = carrier.into_parts();
                response.extensions_mut().extend(parts.extensions);
                Ok(response)
            }
            Err(error) => Err(match error.downcast::<Error>() {
                Ok(from_beneath) => *from_beneath,
                Err(error) => Error::middleware(TokenError::from_service(error)),
            }),
        }
    }
}

/// The rest of the chain as a service, for one request.
#[derive(Clone)]
struct Chain<'a> {
    next: Next<'a>,
    /// Lent to one attempt after the other, never to both: the lock is always free.
    extensions: Arc<Mutex<&'a mut Extensions>>,
    /// The request with all that `http::Request` has no room for, such as its timeout; and with its body,
    /// if that is in memory. Sent as it was, such a body can still be repeated by reqwest itself, for a
    /// redirect or a connection that went away.
    template: Arc<Request>,
    streams: bool,
}

impl Chain<'_> {
    fn request(&self, message: http::Request<ReplayBody<Body>>) -> Request {
        let (parts, body) = message.into_parts();
        let template = self.template.try_clone();
        let mut request = template.expect("its body is in memory, or was taken out");
        *request.headers_mut() = parts.headers;
        if self.streams {
            *request.body_mut() = Some(Body::wrap(body));
        }
        request
    }
}

impl<'a> Service<http::Request<ReplayBody<Body>>> for Chain<'a> {
    type Response = http::Response<Response>;
    type Error = Error;
    type Future = BoxFuture<'a, Result<Self::Response>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: http::Request<ReplayBody<Body>>) -> Self::Future {
        let request = self.request(message);
        let chain = self.clone();
        Box::pin(async move {
            let mut extensions = chain.extensions.lock().await;
            let response = chain.next.run(request, &mut extensions).await?;
            let is_ours = answers(response.url(), &chain.template);
            Ok(carry(response, is_ours))
        })
    }
}

/// Whether an answer from there may tell of the token that the request carried. After a redirect the
/// request may have been done, and only what is idempotent is done again. A middleware beneath that makes up
/// its own response may give it no URL, for which reqwest has a placeholder.
fn answers(url: &Url, request: &Request) -> bool {
    let mut asked = request.url().clone();
    asked.set_fragment(None);
    let mut answered = url.clone();
    answered.set_fragment(None);
    answered == asked
        || url.host_str() == Some("no.url.provided.local")
        || request.method().is_idempotent() && url.origin() == asked.origin()
}

/// Around a response, as much of its head as tells a rejection: nothing if it is not the answer of the
/// origin that was sent the token.
fn carry(response: Response, is_ours: bool) -> http::Response<Response> {
    const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
    let (status, grpc_status) = (response.status(), response.headers().get(GRPC_STATUS));
    let grpc_status = grpc_status.cloned().filter(|_| is_ours);
    let mut carrier = http::Response::new(response);
    if is_ours {
        *carrier.status_mut() = status;
    }
    if let Some(value) = grpc_status {
        carrier.headers_mut().insert(GRPC_STATUS, value);
    }
    carrier
}

/// Why a request is not sent with [`Placement::ApiKey`].
#[derive(Debug)]
struct ApiKeyRefused;

impl fmt::Display for ApiKeyRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "reqwest would carry `x-api-key` along redirects to other hosts: use `Placement::Bearer`, \
             or the layer as a tower service around a client that follows none",
        )
    }
}

impl error::Error for ApiKeyRefused {}
