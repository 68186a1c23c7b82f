//! Which failures are worth another attempt, and when.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Sleep, sleep};
use tower::retry::Policy;

use crate::{AccessToken, TokenError, TokenErrorKind, TokenRequest, telemetry};

/// A `Retry-After` of up to this much is waited for; whoever asks for more would hold callers up.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Transient failures are tried again, after 200 ms·2ⁿ with full jitter, or as long as they ask for.
#[derive(Debug, Clone)]
pub(super) struct Transient {
    attempts: u32,
    done: u32,
}

impl Transient {
    pub(super) fn new(attempts: u32) -> Self {
        Self { attempts, done: 0 }
    }

    /// How long to wait after that failure; `None` if another attempt is not worth it.
    fn delay(&self, error: &TokenError) -> Option<Duration> {
        if self.done >= self.attempts || !is_transient(error) {
            return None;
        }
        let doublings = (self.done - 1).min(16);
        let longest = Duration::from_millis(200).saturating_mul(1 << doublings);
        let backoff = longest.mul_f64(fastrand::f64());
        match error.retry_after() {
            Some(asked) if asked > LONGEST_WAIT => None,
            // One of 0 s must not make the attempts a volley.
            asked => Some(backoff.max(asked.unwrap_or_default())),
        }
    }
}

impl Policy<TokenRequest, AccessToken, TokenError> for Transient {
    type Future = Sleep;

    fn retry(
        &mut self,
        _request: &mut TokenRequest,
        result: &mut Result<AccessToken, TokenError>,
    ) -> Option<Sleep> {
        self.done += 1;
        let delay = result.as_ref().err().and_then(|error| self.delay(error));
        if delay.is_none() {
            telemetry::attempts(self.done);
        }
        delay.map(sleep)
    }

    fn clone_request(&mut self, request: &TokenRequest) -> Option<TokenRequest> {
        Some(request.clone())
    }
}

fn is_transient(error: &TokenError) -> bool {
    match error.status() {
        Some(status) => matches!(
            status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::INTERNAL_SERVER_ERROR
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
        None => matches!(
            error.kind(),
            TokenErrorKind::Unavailable | TokenErrorKind::Timeout
        ),
    }
}
