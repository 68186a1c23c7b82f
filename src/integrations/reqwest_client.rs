//! A `reqwest::Client` for token requests. Feature `reqwest`.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body_util::Full;
use reqwest::{Body, Client, Url};
use tower::{BoxError, Service};

use crate::{TokenError, TokenErrorKind};

/// A [`reqwest::Client`] that fetches tokens, for
/// [`FetchToken::with_client`](crate::FetchToken::with_client): with the proxy, the roots, the client
/// certificate and the resolver that it was built with.
///
/// The app secret never follows a redirect, whatever the client's policy is: reqwest cannot repeat this
/// body for a 307 or 308, and sends none after a 301, 302 or 303. An answer that a redirect led to is an
/// [`InvalidResponse`](crate::TokenErrorKind::InvalidResponse) that names the host. Best is a client with
/// `Policy::none()`, which asks nobody else.
///
/// Timeouts of its own apply besides [`FetchToken::timeout`](crate::FetchToken::timeout). Give it a
/// `connect_timeout` of a third of that, so that a dead first address leaves time for the second.
///
/// ```
/// use std::time::Duration;
/// use reqwest::redirect::Policy;
/// use tower_symbl_auth::{Credentials, FetchToken, SymblAuthLayer, integrations::ReqwestClient};
///
/// # fn main() -> reqwest::Result<()> {
/// let client = reqwest::Client::builder()
///     .redirect(Policy::none())
///     .connect_timeout(Duration::from_secs(3))
///     .build()?;
/// let credentials = Credentials::new("app-id", "app-secret");
/// let fetch = FetchToken::with_client(credentials, ReqwestClient(client));
/// let layer = SymblAuthLayer::builder(fetch).build();
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct ReqwestClient(pub Client);

impl Service<Request<Full<Bytes>>> for ReqwestClient {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let client = self.0.clone();
        async move {
            // Wrapped, a body is one that reqwest cannot clone and so not send twice.
            let request = reqwest::Request::try_from(request.map(Body::wrap))?;
            let asked = request.url().clone();
            let response = client.execute(request).await?;
            match redirected(&asked, response.url()) {
                Some(error) => Err(error.into()),
                None => Ok(response.into()),
            }
        }
        .boxed()
    }
}

fn redirected(asked: &Url, answered: &Url) -> Option<TokenError> {
    if asked == answered {
        return None;
    }
    let host = answered.host_str().unwrap_or("no host");
    let host = match answered.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let why = format!("it redirects to {host}, where the credentials do not go");
    Some(TokenError::new(TokenErrorKind::InvalidResponse, why))
}
