//! The token, and the machinery that keeps one live. It knows nothing of requests or bodies.

use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use clock::Moment;

pub(crate) mod cache;
mod callers;
pub(crate) mod clock;
pub(crate) mod fetching;
#[cfg(all(test, shuttle))]
mod interleavings;
pub(crate) mod machine;
#[cfg(all(test, not(shuttle)))]
mod simulation;
mod step;

pub(crate) use callers::{ProbeGuard, Rejection, Stamp, wait_for};
pub use fetching::{FetchReason, TokenRequest};
pub(crate) use machine::{Ended, Key, Next, PATIENT, Refusal, Waited};
pub(crate) use step::WaitFor;

/// An access token and how long it is good for.
///
/// Clones share one copy of the secret, which is zeroized when the last is dropped.
///
/// ```
/// use std::time::Duration;
/// use tower_symbl_auth::AccessToken;
///
/// let token = AccessToken::new("s3cr3t", Duration::from_secs(86_400))?;
/// assert_eq!(token.expose_secret(), "s3cr3t");
/// assert!(!format!("{token:?}").contains("s3cr3t"));
/// assert!(AccessToken::new("two\r\nlines", Duration::MAX).is_err());
/// # Ok::<(), tower_symbl_auth::InvalidToken>(())
/// ```
#[derive(Clone)]
pub struct AccessToken {
    secret: Arc<SecretString>,
    lifetime: Duration,
    from: Moment,
    /// Whether `from` is known to be the moment the token's request was sent.
    sent: bool,
    /// What the token was handed out for, if it was handed out for one request.
    pub(crate) stamped_for: Option<Arc<str>>,
}

impl AccessToken {
    /// A token that is good for `expires_in` from now; absurdly long lifetimes are cut to ten years.
    ///
    /// A token service need not know when its request was sent: should that have been earlier, the
    /// cache counts from there.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`] if `secret` cannot stand in a header: if it is empty, begins or ends with a
    /// space, or has characters other than visible ASCII and spaces in it.
    pub fn new(secret: impl Into<String>, expires_in: Duration) -> Result<Self, InvalidToken> {
        let token = Self::sent_at(secret.into(), expires_in, Moment::now())?;
        Ok(Self {
            sent: false,
            ..token
        })
    }

    /// A token whose request was sent at that moment.
    pub(crate) fn sent_at(
        secret: String,
        expires_in: Duration,
        sent: Moment,
    ) -> Result<Self, InvalidToken> {
        let secret = SecretString::from(secret);
        check(secret.expose_secret())?;
        Ok(Self {
            secret: Arc::new(secret),
            lifetime: expires_in.min(LONGEST_LIFETIME),
            from: sent,
            sent: true,
            stamped_for: None,
        })
    }

    /// The token itself, for a header. Keep it out of logs and URLs.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.secret.expose_secret()
    }

    /// What remains of its life, by whichever of the two clocks says less; zero once it has expired.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.remaining(Moment::now())
    }

    /// When it expires, by the wall clock.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.from.wall + self.lifetime
    }

    pub(crate) fn remaining(&self, now: Moment) -> Duration {
        self.lifetime.saturating_sub(now.since(self.from))
    }

    /// Counts the lifetime from when the request was sent, unless it counts from there or earlier.
    pub(crate) fn counted_from(mut self, sent: Moment) -> Self {
        if !self.sent {
            self.from = self.from.earlier(sent);
            self.sent = true;
        }
        self
    }

    pub(crate) fn with_stamped_for(mut self, key: Arc<str>) -> Self {
        self.stamped_for = Some(key);
        self
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("secret", &"[redacted]")
            .field("expires_in", &self.expires_in())
            .finish()
    }
}

/// Ten years: no issuer means more, and no clock overflows by it.
pub(crate) const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

fn check(secret: &str) -> Result<(), InvalidToken> {
    if secret.is_empty() {
        return Err(InvalidToken("it is empty"));
    }
    if secret.starts_with(' ') || secret.ends_with(' ') {
        return Err(InvalidToken("it begins or ends with a space"));
    }
    if !secret.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(InvalidToken(
            "it holds a control character, a line break or a character beyond ASCII",
        ));
    }
    Ok(())
}

/// Bytes with a secret among them, zeroized when their last clone is dropped.
pub(crate) fn secret_bytes(parts: &[&str]) -> Bytes {
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        parts.iter().map(|part| part.len()).sum(),
    ));
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
    }
    Bytes::from_owner(bytes)
}

/// A token that cannot stand in a header. Does not show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidToken(&'static str);

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token cannot stand in a header: {}", self.0)
    }
}

impl Error for InvalidToken {}
