//! The two limits of fetches after rejections, for all who share a token.

use std::time::Duration;

/// What is left of them: 16 fetches at once and one more every 10 s, and 16 at once and one more a
/// second. Either as milliseconds of credit, a fetch costing as many as it takes until the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FleetLimits {
    pub(super) slow: u32,
    pub(super) fast: u32,
}

const AT_ONCE: u32 = 16;
const SLOW: u32 = 10_000;
const FAST: u32 = 1_000;

impl FleetLimits {
    pub(super) const FULL: Self = Self {
        slow: AT_ONCE * SLOW,
        fast: AT_ONCE * FAST,
    };
    /// After this long without a fetch, nothing is left to be remembered.
    pub(super) const FULL_AFTER: Duration = Duration::from_millis((AT_ONCE * SLOW) as u64);

    /// With what has come in since.
    pub(super) fn after(self, time: Duration) -> Self {
        let credit = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Self {
            slow: self.slow.saturating_add(credit).min(Self::FULL.slow),
            fast: self.fast.saturating_add(credit).min(Self::FULL.fast),
        }
    }

    /// Less one fetch; `None` at a limit.
    pub(super) fn draw(self) -> Option<Self> {
        Some(Self {
            slow: self.slow.checked_sub(SLOW)?,
            fast: self.fast.checked_sub(FAST)?,
        })
    }

    /// A fetch that failed gives its share of the slow limit back, and of the fast one nothing.
    pub(super) fn failed(self) -> Self {
        Self {
            slow: self.slow.saturating_add(SLOW).min(Self::FULL.slow),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(limits: &mut FleetLimits) -> usize {
        let mut count = 0;
        while let Some(less) = limits.draw() {
            (*limits, count) = (less, count + 1);
        }
        count
    }

    #[test]
    fn sixteen_at_once_and_one_more_every_ten_seconds() {
        let mut limits = FleetLimits::FULL;
        assert_eq!(drawn(&mut limits), 16);
        for (seconds, more) in [(9, 0), (1, 1), (25, 2), (5, 1), (3600, 16)] {
            limits = limits.after(Duration::from_secs(seconds));
            assert_eq!(drawn(&mut limits), more, "after {seconds} s");
        }
        assert_eq!(limits.after(FleetLimits::FULL_AFTER), FleetLimits::FULL);
        assert_eq!(limits.after(Duration::MAX), FleetLimits::FULL);
    }

    #[test]
    fn failed_fetches_are_sixteen_at_once_and_one_more_a_second() {
        let mut limits = FleetLimits::FULL;
        let mut failing = || {
            let mut count = 0;
            while let Some(less) = limits.draw() {
                (limits, count) = (less.failed(), count + 1);
            }
            limits = limits.after(Duration::from_secs(3));
            count
        };
        assert_eq!((failing(), failing()), (16, 3));
    }
}
