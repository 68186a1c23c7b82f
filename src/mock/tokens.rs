//! IssuedTokens: issued, cached as Symbl does, checked, revoked.

use std::{collections::HashMap, iter, time::Duration};

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{APP_ID, APP_SECRET};
use crate::token::LONGEST_LIFETIME;

pub(super) struct IssuedTokens {
    pub(super) lifetime: Duration,
    pub(super) cache: bool,
    pub(super) cache_margin: Duration,
    /// Those that are not revoked, with their expiry.
    known: HashMap<String, Instant>,
    newest: Option<String>,
}

impl Default for IssuedTokens {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(24 * 60 * 60),
            cache: true,
            cache_margin: Duration::from_secs(60),
            known: HashMap::new(),
            newest: None,
        }
    }
}

impl IssuedTokens {
    /// The body of a token response.
    pub(super) fn issue(&mut self) -> Value {
        let now = Instant::now();
        if let Some((token, expires)) = self.cached() {
            let rest = expires.saturating_duration_since(now);
            if rest > self.cache_margin {
                return response(token, rest);
            }
        }
        let token = new_token();
        let lifetime = self.lifetime.min(LONGEST_LIFETIME);
        self.known.insert(token.clone(), now + lifetime);
        let response = response(&token, lifetime);
        self.newest = Some(token);
        response
    }

    pub(super) fn revoke(&mut self) {
        self.known.clear();
        self.newest = None;
    }

    /// Whether a request carries a token that is known and has not expired.
    pub(super) fn accepts(&self, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
        match bearer.or_else(|| text("x-api-key")) {
            Some(token) => self.is_good(token),
            None => self.subprotocol(headers).is_some(),
        }
    }

    /// The good token among the subprotocols that a WebSocket's handshake offers, which is where
    /// `@symblai/symbl-js` 1.4.10 has it: a browser's WebSocket can send no headers.
    pub(super) fn subprotocol(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
        let mut offered = offered
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim);
        let token = offered.find(|offer| self.is_good(offer))?;
        HeaderValue::from_str(token).ok()
    }

    fn is_good(&self, token: &str) -> bool {
        let expires = self.known.get(token);
        expires.is_some_and(|expires| Instant::now() < *expires)
    }

    fn cached(&self) -> Option<(&str, Instant)> {
        let newest = self.newest.as_deref().filter(|_| self.cache)?;
        Some((newest, *self.known.get(newest)?))
    }
}

/// Whether the body of a token request is one, and from whom.
pub(super) fn check(body: &[u8]) -> Result<(), TokenRefusal> {
    let body: Value = serde_json::from_slice(body).map_err(|_| TokenRefusal::Malformed)?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let (Some("application"), Some(id), Some(secret)) =
        (text("type"), text("appId"), text("appSecret"))
    else {
        return Err(TokenRefusal::Malformed);
    };
    if (id, secret) != (APP_ID, APP_SECRET) {
        return Err(TokenRefusal::Credentials);
    }
    Ok(())
}

pub(super) enum TokenRefusal {
    Malformed,
    Credentials,
}

fn response(token: &str, rest: Duration) -> Value {
    // Whole seconds, rounded down, unless that would be most of it. Symbl's schemas allow for both.
    if rest >= Duration::from_secs(60) || rest.subsec_nanos() == 0 {
        json!({ "accessToken": token, "expiresIn": rest.as_secs() })
    } else {
        json!({ "accessToken": token, "expiresIn": rest.as_secs_f64() })
    }
}

/// As long as a recorded token, 843 characters in three parts, and like it in nothing else.
fn new_token() -> String {
    let part = |length| iter::repeat_with(fastrand::alphanumeric).take(length);
    let dot = || iter::once('.');
    let (header, claims, signature) = (part(36), part(463), part(342));
    header
        .chain(dot())
        .chain(claims)
        .chain(dot())
        .chain(signature)
        .collect()
}
