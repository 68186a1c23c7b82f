//! One token request: sent, answered, and understood.

use std::{
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tower::{BoxError, Service, ServiceExt};

use super::wire;
use crate::{
    AccessToken, Credentials, TokenError, TokenErrorKind, TokenRequest, rt,
    token::{LONGEST_LIFETIME, clock::Moment},
};

/// A token response is some 1,000 bytes; one that is longer than this is something else.
const LONGEST_RESPONSE: usize = 64 * 1024;
/// What an error says of itself is worth this much time and no more.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Attempt<C> {
    pub(super) credentials: Credentials,
    pub(super) endpoint: Uri,
    pub(super) client: C,
    pub(super) timeout: Duration,
}

impl<C, B> Service<TokenRequest> for Attempt<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
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
        self.clone().fetch().boxed()
    }
}

impl<C, B> Attempt<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<B>>,
    C::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    async fn fetch(mut self) -> Result<AccessToken, TokenError> {
        let request = self.request();
        let fail = |error: C::Error| TokenError::from_service(error.into());
        let client = self.client.ready().await.map_err(fail)?;
        let sent = Moment::now();
        let response = client.call(request).await.map_err(fail)?;
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            // The status is what counts: reading on must end before the attempt times out.
            let left = self.timeout.saturating_sub(Moment::now().since(sent));
            let body = rt::timeout(MESSAGE_TIMEOUT.min(left / 2), read(body)).await;
            let message = body.and_then(|read| wire::message(&read.ok()?));
            return Err(self.refused(parts.status, &parts.headers, message));
        }
        let body = read(body).await?;
        let (secret, lifetime) = wire::decode(&body).map_err(invalid)?;
        let lifetime = lifetime.unwrap_or(LONGEST_LIFETIME);
        AccessToken::sent_at(secret, lifetime, sent).map_err(|error| invalid(error.to_string()))
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(wire::encode(&self.credentials)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        request
    }

    fn refused(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        message: Option<String>,
    ) -> TokenError {
        let kind = match status.as_u16() {
            400 | 401 | 403 => TokenErrorKind::Credentials,
            429 => TokenErrorKind::RateLimited,
            500.. => TokenErrorKind::Unavailable,
            _ => TokenErrorKind::InvalidResponse,
        };
        let message = match message {
            Some(message) => shown(&message, self.credentials.app_secret()),
            None => status.canonical_reason().unwrap_or("no message").to_owned(),
        };
        let error = TokenError::refused(kind, status, message);
        match headers.get(RETRY_AFTER).and_then(retry_after) {
            Some(delay) => error.with_retry_after(delay),
            None => error,
        }
    }
}

fn invalid(why: String) -> TokenError {
    TokenError::new(TokenErrorKind::InvalidResponse, why)
}

async fn read<B>(body: B) -> Result<Bytes, TokenError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, LONGEST_RESPONSE).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(invalid("it is longer than 64 KiB".to_owned()))
        }
        Err(_) => Err(invalid("it ended early".to_owned())),
    }
}

/// Seconds, or an HTTP date (RFC 9110, section 10.2.3).
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let value = value.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than that many seconds is as good as for ever.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What of the endpoint's message is shown: 200 characters in one line, without the secret.
fn shown(message: &str, secret: &str) -> String {
    // As it is, as JSON writes it, and without the line break that a file may have added.
    let escaped = serde_json::Value::from(secret).to_string();
    let mut masked = message.to_owned();
    for form in [secret, &escaped[1..escaped.len() - 1], secret.trim()] {
        if !form.is_empty() {
            masked = masked.replace(form, "[redacted]");
        }
    }
    let plain = masked.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(200).collect()
}
