//! A token service of one's own: OAuth 2.0 client credentials (RFC 6749 section 4.4), by the `oauth2` crate.

use std::{
    fmt::Display,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use oauth2::{
    ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    RequestTokenError, Scope, TokenResponse, TokenUrl,
    basic::{BasicClient, BasicErrorResponse},
};
use tower::{BoxError, Service};
use tower_symbl_auth::{AccessToken, TokenError, TokenErrorKind, TokenRequest};

/// Only its token endpoint is set.
type OAuthClient =
    BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;
type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Used for a token whose lifetime the server does not tell, which RFC 6749 allows.
const UNTOLD_LIFETIME: Duration = Duration::from_secs(300);

/// The timeout is the layer's own: a fetch is given 35 s in all.
#[derive(Clone)]
pub(crate) struct ClientCredentials {
    oauth: OAuthClient,
    scope: Scope,
    http: HttpClient,
}

impl ClientCredentials {
    pub(crate) fn new(
        token_url: &str,
        id: &str,
        secret: &str,
        scope: &str,
    ) -> Result<Self, BoxError> {
        let oauth = BasicClient::new(ClientId::new(id.to_owned()))
            .set_client_secret(ClientSecret::new(secret.to_owned()))
            .set_token_uri(TokenUrl::new(token_url.to_owned())?);
        Ok(Self {
            oauth,
            scope: Scope::new(scope.to_owned()),
            http: http_client()?,
        })
    }

    async fn fetch(self) -> Result<AccessToken, TokenError> {
        let send = |request| send(self.http.clone(), request);
        let request = self.oauth.exchange_client_credentials();
        let request = request.add_scope(self.scope).request_async(&send);
        let response = request.await.map_err(explain)?;
        let secret = response.access_token().secret();
        let lifetime = response.expires_in().unwrap_or(UNTOLD_LIFETIME);
        AccessToken::new(secret, lifetime).map_err(invalid)
    }
}

impl Service<TokenRequest> for ClientCredentials {
    type Response = AccessToken;
    type Error = TokenError;
    type Future = BoxFuture<'static, Result<AccessToken, TokenError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TokenError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: TokenRequest) -> Self::Future {
        self.clone().fetch().boxed()
    }
}

fn http_client() -> Result<HttpClient, BoxError> {
    let provider = rustls::crypto::ring::default_provider();
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_platform_verifier(provider)?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// What passes by itself is told by its status here: `oauth2` would only say that it is not JSON.
async fn send(http: HttpClient, request: HttpRequest) -> Result<HttpResponse, TokenError> {
    let response = http.request(request.map(Full::from)).await;
    let (head, body) = response.map_err(unavailable)?.into_parts();
    let kind = match head.status {
        StatusCode::TOO_MANY_REQUESTS => Some(TokenErrorKind::RateLimited),
        status if status.is_server_error() => Some(TokenErrorKind::Unavailable),
        _ => None,
    };
    if let Some(kind) = kind {
        let error = TokenError::new(kind, format!("the token endpoint answered {}", head.status));
        let delay = head
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let delay = delay.and_then(|seconds| seconds.parse().ok());
        return Err(match delay {
            Some(seconds) => error.with_retry_after(Duration::from_secs(seconds)),
            None => error,
        });
    }
    let body = Limited::new(body, 64 << 10).collect().await;
    let body = body.map_err(|error| unavailable(&*error))?.to_bytes();
    Ok(Response::from_parts(head, body.into()))
}

/// The kind decides how soon the layer asks again. `Parse` holds the response, a token perhaps: it is
/// not handed on.
fn explain(error: RequestTokenError<TokenError, BasicErrorResponse>) -> TokenError {
    match error {
        RequestTokenError::Request(error) => error,
        RequestTokenError::ServerResponse(refusal) => {
            TokenError::new(TokenErrorKind::Credentials, refusal.error().to_string())
        }
        RequestTokenError::Parse(..) => invalid("the response is not one of RFC 6749 section 5"),
        RequestTokenError::Other(what) => invalid(what),
    }
}

fn invalid(why: impl Display) -> TokenError {
    TokenError::new(TokenErrorKind::InvalidResponse, why.to_string())
}

fn unavailable(error: impl Display) -> TokenError {
    TokenError::new(TokenErrorKind::Unavailable, error.to_string())
}
