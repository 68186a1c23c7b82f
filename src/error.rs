//! Why there is no token.

use std::{error::Error, fmt, io, iter, sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::Instant;
use tower::BoxError;

use crate::InvalidToken;

/// Why there is no token: what the token request failed with.
///
/// Clones are cheap: one failed token request answers every caller that waited for it. Neither its
/// `Display` nor its `Debug` ever shows a secret.
///
/// It reaches a caller of the middleware boxed, so downcast it:
///
/// ```
/// use tower_symbl_auth::{TokenError, TokenErrorKind};
///
/// fn http_status(error: &tower::BoxError) -> u16 {
///     match error.downcast_ref::<TokenError>().map(TokenError::kind) {
///         Some(TokenErrorKind::RateLimited | TokenErrorKind::Unavailable) => 503,
///         Some(_) => 502,
///         None => 500, // an error of the wrapped service, boxed as it is
///     }
/// }
/// # let error = TokenError::new(TokenErrorKind::RateLimited, "slow down");
/// # assert_eq!(http_status(&error.into()), 503);
/// ```
#[derive(Clone)]
pub struct TokenError {
    details: Arc<Details>,
    retry: Again,
}

struct Details {
    kind: TokenErrorKind,
    message: String,
    status: Option<StatusCode>,
    source: Option<BoxError>,
}

/// When another attempt is worth it.
#[derive(Debug, Clone, Copy)]
enum Again {
    Unknown,
    /// The endpoint's own word, counted from its answer.
    After(Duration),
    /// The end of the time for which the gate answers calls with this error.
    At(Instant),
}

/// What went wrong with a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenErrorKind {
    /// The endpoint refused the credentials (status 400, 401 or 403). Trying again will not help;
    /// other credentials will.
    Credentials,
    /// Too many token requests (status 429).
    RateLimited,
    /// The endpoint could not be reached, broke off, or answered 408 or 5xx. Also any failure of a credentials provider
    /// or of a token service of your own that does not say otherwise.
    Unavailable,
    /// No answer in time.
    Timeout,
    /// The endpoint answered with something else than a token: HTML, a redirect, or JSON without one.
    InvalidResponse,
    /// A fault in this process: a token service that panicked, a call outside a tokio runtime or in one
    /// without a timer, no root certificates, no crypto provider, or a proxy of an unknown kind.
    Internal,
}

impl TokenError {
    /// An error for a token service of your own to fail with. Its kind decides how soon the layer asks again, and its
    /// message is shown to users: keep secrets out of it.
    pub fn new(kind: TokenErrorKind, message: impl Into<String>) -> Self {
        Self::from_details(kind, message.into(), None, None)
    }

    fn from_details(
        kind: TokenErrorKind,
        message: String,
        status: Option<StatusCode>,
        source: Option<BoxError>,
    ) -> Self {
        Self {
            details: Arc::new(Details {
                kind,
                message,
                status,
                source,
            }),
            retry: Again::Unknown,
        }
    }

    /// Sets how long the issuer asks to be left alone.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry = Again::After(delay);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> TokenErrorKind {
        self.details.kind
    }

    /// How long until another attempt is worth it: until then, the layer answers with this error at once. Of an error that
    /// did not come through a layer, the endpoint's `Retry-After`. `None` if neither is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.retry {
            Again::Unknown => None,
            Again::After(delay) => Some(delay),
            Again::At(end) => Some(end.saturating_duration_since(Instant::now())),
        }
    }

    /// The status that the token endpoint answered with, if it was that which failed.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.details.status
    }

    pub(crate) fn refused(kind: TokenErrorKind, status: StatusCode, message: String) -> Self {
        Self::from_details(kind, message, Some(status), None)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(TokenErrorKind::Internal, message)
    }

    /// What a token service failed with: the `TokenError` among its error and the sources of that;
    /// failing that `Unavailable`, or `InvalidResponse` if what it brought was no token.
    pub(crate) fn from_service(error: BoxError) -> Self {
        let kind = match chain(&*error).any(|error| error.is::<InvalidToken>()) {
            true => TokenErrorKind::InvalidResponse,
            false => TokenErrorKind::Unavailable,
        };
        Self::because(kind, "the token service failed", error)
    }

    /// What an HTTP client failed with: the `TokenError` among its error and the sources of that;
    /// failing that the endpoint is unavailable, for the deepest of them.
    pub(crate) fn transport(error: BoxError) -> Self {
        Self::because(TokenErrorKind::Unavailable, "", error)
    }

    /// The `TokenError` among an error and its sources; failing that an error of that kind, with the
    /// deepest source in its message, where "the request failed" would help nobody.
    pub(crate) fn because(kind: TokenErrorKind, what: &str, error: BoxError) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(own) => return *own,
            Err(other) => other,
        };
        if let Some(own) = chain(&*error).find_map(|error| error.downcast_ref::<Self>()) {
            return own.clone();
        }
        let cause = cause(&*error);
        let message = match what {
            "" => cause,
            what => format!("{what}: {cause}"),
        };
        Self::from_details(kind, message, None, Some(error))
    }

    /// The same error, with `retry_after` counting down to the end of the backoff.
    pub(crate) fn until(mut self, end: Instant) -> Self {
        self.retry = Again::At(end);
        self
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &*self.details;
        let what = match details.kind {
            TokenErrorKind::Credentials => "token request refused",
            TokenErrorKind::RateLimited => "too many token requests",
            TokenErrorKind::Unavailable => "token endpoint unavailable",
            TokenErrorKind::Timeout => "token request timed out",
            TokenErrorKind::InvalidResponse => "invalid answer to a token request",
            TokenErrorKind::Internal => "internal error",
        };
        f.write_str(what)?;
        if let Some(status) = details.status {
            write!(f, " ({})", status.as_u16())?;
        }
        write!(f, ": {}", details.message)
    }
}

impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenError")
            .field("kind", &self.details.kind)
            .field("status", &self.details.status)
            .field("message", &self.details.message)
            .field("retry_after", &self.retry_after())
            .field("source", &self.details.source)
            .finish()
    }
}

impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.details.source.as_ref()?;
        Some(&**source)
    }
}

/// An error and its sources.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}

/// The deepest source of an error. A timeout does not say of itself what took so long: what it is the
/// source of does.
fn cause(error: &(dyn Error + 'static)) -> String {
    let (mut above, mut deepest) = (None, error);
    while let Some(source) = deepest.source() {
        above = Some(deepest);
        deepest = source;
    }
    match above {
        Some(above) if is_timeout(deepest) => format!("{above}: {deepest}"),
        _ => deepest.to_string(),
    }
}

fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    let within = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    error.is::<tower::timeout::error::Elapsed>()
        || within.is_some_and(|within| within.is::<tokio::time::error::Elapsed>())
}
