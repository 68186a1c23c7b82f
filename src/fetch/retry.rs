//! Which failures are worth another attempt, and when.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Sleep, sleep};
use tower::retry::Policy;

use crate::{AccessToken, TokenError, TokenErrorKind, TokenRequest, telemetry};

/// Transient failures are tried again, after 200 ms·2ⁿ with full jitter.
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
        let delay = longest.mul_f64(fastrand::f64());
        // Who is told to stay away for longer hands that on, rather than to wait and hold others up.
        let hands_on = error.retry_after().is_some_and(|asked| asked > delay);
        (!hands_on).then_some(delay)
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
            StatusCode::TOO_MANY_REQUESTS
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
