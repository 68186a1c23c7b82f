//! The budget of refreshes after rejections, over all keys: so many at once, and one more every so often.

use std::time::Duration;

use tokio::time::Instant;

/// How many refreshes there may be.
#[derive(Debug)]
pub(super) struct Budget {
    shares: u32,
    /// From when the next share is counted.
    counted: Option<Instant>,
}

const SHARES: u32 = 16;
const SHARE_EVERY: Duration = Duration::from_secs(10);

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            shares: SHARES,
            counted: None,
        }
    }

    /// Draws a share; `false` if there is none.
    pub(super) fn draw(&mut self, now: Instant) -> bool {
        let since = *self.counted.get_or_insert(now);
        let due = now.saturating_duration_since(since).as_secs() / SHARE_EVERY.as_secs();
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        if self.shares.saturating_add(due) >= SHARES {
            self.shares = SHARES;
            self.counted = Some(now);
        } else {
            self.shares += due;
            self.counted = Some(since + SHARE_EVERY * due);
        }
        let left = self.shares.checked_sub(1);
        self.shares = left.unwrap_or(0);
        left.is_some()
    }

    pub(super) fn give_back(&mut self) {
        self.shares = (self.shares + 1).min(SHARES);
    }

    #[cfg(test)]
    pub(super) fn shares(&self) -> u32 {
        self.shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_budget_is_sixteen_at_once_and_one_more_every_ten_seconds() {
        let (mut budget, start) = (Budget::new(), Instant::now());
        let drawn = |budget: &mut Budget, at| (0..100).filter(|_| budget.draw(at)).count();
        assert_eq!(drawn(&mut budget, start), 16);
        assert_eq!(drawn(&mut budget, start + 9 * SECOND), 0);
        assert_eq!(drawn(&mut budget, start + 25 * SECOND), 2);
        assert_eq!(drawn(&mut budget, start + 30 * SECOND), 1);
        assert_eq!(drawn(&mut budget, start + 3600 * SECOND), 16);
        budget.give_back();
        assert_eq!(drawn(&mut budget, start + 3600 * SECOND), 1);
    }
}
