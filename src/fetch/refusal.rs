//! What an answer that is no success says, and what it is called.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, StatusCode, Uri,
    header::{CONTENT_ENCODING, HeaderValue, LOCATION, RETRY_AFTER},
};
use secrecy::zeroize::Zeroizing;

use super::wire;
use crate::{Credentials, TokenError, TokenErrorKind};

/// The longest text of the endpoint's that an error shows, in characters.
const LONGEST_MESSAGE: usize = 200;

pub(super) struct EndpointRefusal<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    /// `None` if it could not be read, or was too long.
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
}

impl EndpointRefusal<'_> {
    pub(super) fn into_error(self, endpoint: &Uri, credentials: &Credentials) -> TokenError {
        let kind = match self.status.as_u16() {
            400 | 401 | 403 => TokenErrorKind::Credentials,
            408 | 500.. => TokenErrorKind::Unavailable,
            429 => TokenErrorKind::RateLimited,
            _ => TokenErrorKind::InvalidResponse,
        };
        let message = match self.redirect(endpoint) {
            Some(host) => format!("it redirects to {host}, which is not followed"),
            None => self.message(credentials),
        };
        let error = TokenError::refused(kind, self.status, message);
        match self.headers.get(RETRY_AFTER).and_then(retry_after) {
            Some(delay) => error.with_retry_after(delay),
            None => error,
        }
    }

    fn message(&self, credentials: &Credentials) -> String {
        let status = self.status.canonical_reason().unwrap_or("no message");
        let Some(body) = &self.body else {
            return status.to_owned();
        };
        match wire::words(body) {
            Ok(Some(words)) => shown(&words, credentials),
            Ok(None) => status.to_owned(),
            // A firewall or a proxy on the way, whose page is not the endpoint's word.
            Err(why) => {
                let why = encoding(self.headers).unwrap_or_else(|| why.to_owned());
                format!("{status}; of its body: {why}, so it may not be the endpoint's own answer")
            }
        }
    }

    /// The host that a redirect leads to. Nothing else of its target, which may have secrets in it.
    fn redirect(&self, endpoint: &Uri) -> Option<String> {
        let target = self.headers.get(LOCATION)?;
        if !self.status.is_redirection() {
            return None;
        }
        let target = target.to_str().ok()?.parse::<Uri>().ok()?;
        let host = target.host().or(endpoint.host())?;
        match target.port() {
            Some(port) => Some(format!("{host}:{port}")),
            None => Some(host.to_owned()),
        }
    }
}

/// That an answer came encoded in a way that nobody asked for.
pub(super) fn encoding(headers: &HeaderMap) -> Option<String> {
    let encoding = headers.get(CONTENT_ENCODING)?.to_str().ok()?;
    let encoding: String = encoding.chars().take(20).collect();
    let plain = encoding.eq_ignore_ascii_case("identity");
    (!plain).then(|| format!("it is encoded as {encoding}, which was not asked for"))
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
pub(super) fn shown(message: &str, credentials: &Credentials) -> String {
    let secret = credentials.app_secret();
    // As it is, as JSON writes it, and without the line break that a file may have added.
    let escaped = serde_json::Value::from(secret).to_string();
    let mut masked = message.to_owned();
    for form in [secret, &escaped[1..escaped.len() - 1], secret.trim()] {
        if !form.is_empty() {
            masked = masked.replace(form, "[redacted]");
        }
    }
    let plain = masked.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LONGEST_MESSAGE).collect()
}
