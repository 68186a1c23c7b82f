//! One attempt at a token: credentials, request and answer, within one timeout.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut, Bytes};
use futures::{FutureExt, future::BoxFuture};
use http::{
    Method, Request, Response, Uri,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT},
};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use secrecy::zeroize::Zeroizing;
use tokio::time::{Instant, timeout};
use tower::{BoxError, Service, ServiceExt};

use super::{
    provider::Provider,
    refusal::{EndpointRefusal, encoding, shown},
    wire,
};
use crate::{
    AccessToken, Credentials, TokenError, TokenErrorKind, TokenRequest,
    token::{LONGEST_LIFETIME, clock::Moment},
};

/// A token response is some 1,000 bytes; one that is longer than this is something else.
const LONGEST_RESPONSE: usize = 64 * 1024;
/// What an error says of itself is worth this much time and no more.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Attempt<C> {
    pub(super) provider: Provider,
    pub(super) endpoint: Uri,
    pub(super) client: C,
    pub(super) timeout: Duration,
}

impl<C, B> Service<TokenRequest> for Attempt<C>
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
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: TokenRequest) -> Self::Future {
        self.clone().run().boxed()
    }
}

impl<C, B> Attempt<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone,
    C::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    async fn run(self) -> Result<AccessToken, TokenError> {
        let start = Instant::now();
        let ask = match &self.provider {
            Provider::Fixed(credentials) => return self.request(credentials, start).await,
            Provider::Asked(ask) => ask,
        };
        let credentials = async || {
            let asked = ask().map(|answer| answer.map_err(provider_failed));
            self.within("the credentials provider", start, asked).await
        };
        let first = credentials().await?;
        let refused = match self.request(&first, start).await {
            Err(error) if error.kind() == TokenErrorKind::Credentials => error,
            result => return result,
        };
        // They may have been rotated since. The same ones would only be refused once more.
        match credentials().await {
            Ok(second) if !second.is_same(&first) => self.request(&second, start).await,
            _ => Err(refused),
        }
    }

    async fn request(
        &self,
        credentials: &Credentials,
        start: Instant,
    ) -> Result<AccessToken, TokenError> {
        let answer = self.answer(credentials, start);
        self.within("the endpoint", start, answer).await
    }

    /// What is left of the attempt's timeout, and whose fault its end is.
    async fn within<T>(
        &self,
        who: &str,
        start: Instant,
        work: impl Future<Output = Result<T, TokenError>>,
    ) -> Result<T, TokenError> {
        let limit = self.timeout;
        let late = |_| {
            let message = format!("{who} gave no answer within {limit:?}");
            Err(TokenError::new(TokenErrorKind::Timeout, message))
        };
        let left = limit.saturating_sub(start.elapsed());
        timeout(left, work).await.unwrap_or_else(late)
    }

    async fn answer(
        &self,
        credentials: &Credentials,
        start: Instant,
    ) -> Result<AccessToken, TokenError> {
        let request = self.message(credentials);
        let fail = |error: C::Error| TokenError::transport(error.into());
        let mut client = self.client.clone();
        let client = client.ready().await.map_err(fail)?;
        let sent = Moment::now();
        let response = client.call(request).await.map_err(fail)?;
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            // The status is what counts: reading on must end before the attempt times out.
            let left = self.timeout.saturating_sub(start.elapsed());
            let body = timeout(MESSAGE_TIMEOUT.min(left / 2), read(body)).await;
            let refusal = EndpointRefusal {
                status: parts.status,
                headers: &parts.headers,
                body: body.ok().and_then(Result::ok),
            };
            return Err(refusal.into_error(&self.endpoint, credentials));
        }
        let body = read(body).await?;
        let (secret, lifetime) = wire::decode(&body)
            .map_err(|why| invalid(explained(why, &parts.headers, &body, credentials)))?;
        let lifetime = lifetime.unwrap_or(LONGEST_LIFETIME);
        AccessToken::sent_at(secret, lifetime, sent).map_err(|error| invalid(error.to_string()))
    }

    fn message(&self, credentials: &Credentials) -> Request<Full<Bytes>> {
        const OURS: &str = concat!("tower-symbl-auth/", env!("CARGO_PKG_VERSION"));
        let json = HeaderValue::from_static("application/json");
        let mut request = Request::new(Full::new(wire::encode(credentials)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        let headers = request.headers_mut();
        headers.insert(ACCEPT, json.clone());
        headers.insert(CONTENT_TYPE, json);
        // Some firewalls refuse whoever does not say.
        headers.insert(USER_AGENT, HeaderValue::from_static(OURS));
        #[cfg(feature = "client")]
        request
            .extensions_mut()
            .insert(super::client::ConnectTimeout(self.timeout / 3));
        request
    }
}

fn provider_failed(error: BoxError) -> TokenError {
    TokenError::because(
        TokenErrorKind::Unavailable,
        "the credentials provider failed",
        error,
    )
}

fn invalid(why: String) -> TokenError {
    TokenError::new(TokenErrorKind::InvalidResponse, why)
}

/// Why an answer is no token, with the endpoint's own words should it be an error with status 200.
fn explained(why: String, headers: &HeaderMap, body: &[u8], credentials: &Credentials) -> String {
    match wire::words(body) {
        Ok(Some(words)) => format!("{why}, but says: {}", shown(&words, credentials)),
        Ok(None) => why,
        Err(_) => encoding(headers).unwrap_or(why),
    }
}

/// Reads an answer, which may hold a token: in a buffer that never moves, and is wiped when it is dropped.
async fn read<B>(body: B) -> Result<Zeroizing<Vec<u8>>, TokenError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let hint = body.size_hint().upper();
    let length = hint.and_then(|length| usize::try_from(length).ok());
    let capacity = length.unwrap_or(LONGEST_RESPONSE).min(LONGEST_RESPONSE);
    let mut answer = Zeroizing::new(Vec::with_capacity(capacity));
    let mut body = pin!(Limited::new(body, LONGEST_RESPONSE));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(unreadable)?.into_data() {
            answer.put(data);
        }
    }
    Ok(answer)
}

fn unreadable(error: BoxError) -> TokenError {
    if error.is::<LengthLimitError>() {
        return invalid("it is longer than 64 KiB".to_owned());
    }
    TokenError::because(TokenErrorKind::Unavailable, "the answer broke off", error)
}
