//! The gate: how long failed fetches keep the next one from being made.
//!
//! ```text
//!            a fetch failed: both periods begin anew, each twice as long as before
//!   open ──────────────────────────────────────────────► closed to what is not urgent
//!     ▲                                                    and, for less long, to what is
//!     └──────────────── a fetch brought a token ◄──────────┘
//! ```
//!
//! Urgent is a fetch without which requests fail: there is no live token, or the API rejects the one
//! that is served and accepts it from nobody. A fetch that was lost with its runtime says nothing of
//! the endpoint, so it keeps only what is not urgent waiting.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::{TokenError, TokenErrorKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    Urgent,
    NotUrgent,
}

#[derive(Debug)]
pub(super) struct Gate {
    urgent: Backoff,
    not_urgent: Backoff,
    failed: Option<Failed>,
    lost_until: Option<Instant>,
}

#[derive(Debug)]
struct Failed {
    urgent: Closed,
    not_urgent: Closed,
    error: TokenError,
}

#[derive(Debug, Clone, Copy)]
struct Closed {
    until: Instant,
    /// The endpoint has asked for that, whatever it fails with later.
    asked: Instant,
}

/// How long a `Retry-After` is honoured.
const LONGEST_URGENT: Duration = Duration::from_secs(60);
const LONGEST_NOT_URGENT: Duration = Duration::from_secs(300);
/// Other credentials are needed, and take a person to change them.
const CREDENTIALS: Duration = Duration::from_secs(5);

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            urgent: Backoff::new(Duration::from_millis(250), Duration::from_secs(10)),
            not_urgent: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            failed: None,
            lost_until: None,
        }
    }

    /// A fetch failed. Returns the error of the one before, to be dropped where the user's code may run.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        error: TokenError,
        rng: &mut Rng,
    ) -> Option<TokenError> {
        let asked = error.retry_after().unwrap_or_default();
        let urgent = match (error.kind(), self.urgent.fail(rng)) {
            (TokenErrorKind::Credentials, _) => CREDENTIALS,
            (_, delay) => delay,
        };
        let not_urgent = self.not_urgent.fail(rng);
        let before = self.failed.take();
        let period = |before: Option<Closed>, delay, asked| {
            let asked = before.map_or(now, |before| before.asked).max(now + asked);
            let until = asked.max(now + delay);
            Closed { until, asked }
        };
        let closed = before.as_ref();
        self.failed = Some(Failed {
            urgent: period(
                closed.map(|it| it.urgent),
                urgent,
                asked.min(LONGEST_URGENT),
            ),
            not_urgent: period(
                closed.map(|it| it.not_urgent),
                not_urgent,
                asked.min(LONGEST_NOT_URGENT),
            ),
            error,
        });
        before.map(|before| before.error)
    }

    pub(super) fn lost(&mut self, now: Instant, rng: &mut Rng) {
        self.lost_until = Some(now + self.not_urgent.fail(rng));
    }

    /// A fetch succeeded. Returns the error of the one before.
    pub(super) fn open(&mut self) -> Option<TokenError> {
        let before = std::mem::replace(self, Self::new());
        before.failed.map(|before| before.error)
    }

    /// Why it is closed, with what is left of that; `None` if it is open.
    pub(super) fn closed(&self, now: Instant, urgency: Urgency) -> Option<TokenError> {
        if let Some(failed) = &self.failed {
            let until = match urgency {
                Urgency::Urgent => failed.urgent.until,
                Urgency::NotUrgent => failed.not_urgent.until,
            };
            if now < until {
                return Some(failed.error.clone().until(until));
            }
        }
        let until = self.lost_until?;
        (urgency == Urgency::NotUrgent && now < until).then(|| lost().until(until))
    }

    /// When it opens for what is not urgent, if it is not open already.
    pub(super) fn opens(&self) -> Option<Instant> {
        let failed = self.failed.as_ref().map(|failed| failed.not_urgent.until);
        failed.max(self.lost_until)
    }
}

pub(super) fn lost() -> TokenError {
    TokenError::internal("the runtime that was to fetch a token was shut down")
}

/// Exponential backoff, with a jitter of 50 to 100 %.
#[derive(Debug)]
struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    const fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            failures: 0,
        }
    }

    fn fail(&mut self, rng: &mut Rng) -> Duration {
        let delay = doubled(self.first, self.failures, self.cap);
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(0.5 + 0.5 * rng.f64())
    }
}

/// `first`·2ⁿ, `cap` at most. Saturates: the thousandth is like the tenth.
pub(super) fn doubled(first: Duration, times: u32, cap: Duration) -> Duration {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn down() -> TokenError {
        TokenError::new(TokenErrorKind::Unavailable, "down")
    }

    fn closed_for(gate: &Gate, now: Instant, urgency: Urgency) -> Duration {
        let error = gate.closed(now, urgency);
        error.map_or(Duration::ZERO, |error| {
            error.retry_after().unwrap_or_default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn periods_double_up_to_their_caps_with_a_jitter_that_takes_away_half_at_most() {
        let (mut gate, mut rng, now) = (Gate::new(), Rng::with_seed(1), Instant::now());
        for failures in 0..1000 {
            gate.failed(now, down(), &mut rng);
            let full = doubled(SECOND / 4, failures, 10 * SECOND);
            assert!((full / 2..=full).contains(&closed_for(&gate, now, Urgency::Urgent)));
            let full = doubled(SECOND, failures, 60 * SECOND);
            assert!((full / 2..=full).contains(&closed_for(&gate, now, Urgency::NotUrgent)));
        }
        gate.open();
        assert!(gate.closed(now, Urgency::NotUrgent).is_none());
        gate.failed(now, down(), &mut rng);
        assert!(closed_for(&gate, now, Urgency::Urgent) <= SECOND / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_after_holds_for_a_minute_if_urgent_and_else_for_five() {
        let (mut gate, mut rng, now) = (Gate::new(), Rng::with_seed(1), Instant::now());
        let year = 365 * 86_400 * SECOND;
        gate.failed(now, down().with_retry_after(year), &mut rng);
        assert_eq!(closed_for(&gate, now, Urgency::Urgent), 60 * SECOND);
        assert_eq!(closed_for(&gate, now, Urgency::NotUrgent), 300 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_credentials_are_tried_again_after_five_seconds() {
        let (mut gate, mut rng, now) = (Gate::new(), Rng::with_seed(1), Instant::now());
        let refused = TokenError::new(TokenErrorKind::Credentials, "who?");
        gate.failed(now, refused, &mut rng);
        assert_eq!(closed_for(&gate, now, Urgency::Urgent), 5 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_fetch_keeps_only_what_is_not_urgent_waiting() {
        let (mut gate, mut rng, now) = (Gate::new(), Rng::with_seed(1), Instant::now());
        gate.lost(now, &mut rng);
        assert!(gate.closed(now, Urgency::Urgent).is_none());
        assert!(gate.closed(now, Urgency::NotUrgent).is_some());
        assert!(gate.opens() > Some(now));
    }
}
