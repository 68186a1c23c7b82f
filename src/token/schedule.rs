//! When a token is refreshed, and how long failures keep us from trying again.

use std::time::Duration;

/// A request must arrive before its token expires.
pub(crate) fn hard_margin(lifetime: Duration) -> Duration {
    (lifetime / 20).min(Duration::from_secs(10))
}

/// How long before its expiry a token is refreshed: up to 20 % longer at random, so that a fleet
/// spreads. A margin set by the user ends up at half the lifetime at most, or a margin longer than
/// the token's whole life would have it refreshed without pause.
pub(crate) fn refresh_margin(lifetime: Duration, user: Option<Duration>) -> Duration {
    let margin = user.unwrap_or_else(|| (lifetime / 10).min(Duration::from_secs(3600)));
    let spread = 1.0 + 0.2 * fastrand::f64();
    let jittered = margin.min(lifetime).mul_f64(spread);
    match user {
        Some(_) => jittered.min(lifetime / 2),
        None => jittered,
    }
}

/// When to ask again after the endpoint has handed out the token we had: after half of what remains,
/// and never so soon that it becomes a loop.
pub(crate) fn after_same_token(remaining: Duration) -> Duration {
    (remaining / 2).max(Duration::from_secs(10))
}

/// Exponential backoff, with a jitter of 50 to 100 %.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            failures: 0,
        }
    }

    /// The delay after one more failure. Saturates: the thousandth is like the tenth.
    pub(crate) fn fail(&mut self) -> Duration {
        self.step().mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// The same, without jitter.
    pub(crate) fn step(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        self.first.saturating_mul(factor).min(self.cap)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn backoff_saturates_so_the_thousandth_failure_is_like_the_tenth() {
        let mut backoff = Backoff::new(SECOND, 60 * SECOND);
        let steps: Vec<_> = (0..1000).map(|_| backoff.step().as_secs()).collect();
        assert_eq!(steps[..7], [1, 2, 4, 8, 16, 32, 60]);
        assert!(steps[7..].iter().all(|step| *step == 60));
    }

    #[test]
    fn jitter_takes_away_half_at_most() {
        for _ in 0..1000 {
            let delay = Backoff::new(SECOND, SECOND).fail();
            assert!((SECOND / 2..=SECOND).contains(&delay));
        }
    }

    #[test]
    fn margins_scale_with_the_lifetime() {
        let day = 86_400 * SECOND;
        assert_eq!(hard_margin(day), 10 * SECOND);
        assert_eq!(hard_margin(100 * SECOND), 5 * SECOND);
        for _ in 0..1000 {
            let margin = refresh_margin(day, None);
            assert!((3600 * SECOND..=4320 * SECOND).contains(&margin));
            let short = refresh_margin(100 * SECOND, None);
            assert!((10 * SECOND..=12 * SECOND).contains(&short));
            assert_eq!(refresh_margin(day, Some(Duration::MAX)), day / 2);
        }
    }

    #[test]
    fn a_vouched_for_token_is_asked_about_at_half_of_its_rest_and_never_within_ten_seconds() {
        assert_eq!(after_same_token(100 * SECOND), 50 * SECOND);
        assert_eq!(after_same_token(SECOND), 10 * SECOND);
    }
}
