//! Two clocks. The monotonic one stops while a laptop sleeps, the wall clock jumps when it is set; a
//! token is trusted only as far as both agree.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) mono: Instant,
    pub(crate) wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            mono: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// The time since an earlier moment, by the clock that says more; a wall clock set back says none.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let mono = self.mono.saturating_duration_since(earlier.mono);
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        mono.max(wall)
    }

    /// The time until a later moment, by the clock that says less.
    pub(crate) fn until(self, later: Self) -> Duration {
        let mono = later.mono.saturating_duration_since(self.mono);
        let wall = later.wall.duration_since(self.wall).unwrap_or_default();
        mono.min(wall)
    }

    /// The earlier of two moments, by the clock that sets them further apart.
    pub(crate) fn earlier(self, other: Self) -> Self {
        Self {
            mono: self.mono.min(other.mono),
            wall: self.wall.min(other.wall),
        }
    }

    pub(crate) fn after(self, delay: Duration) -> Self {
        Self {
            mono: self.mono + delay,
            wall: self.wall + delay,
        }
    }

    /// Whether either clock has reached `moment`.
    pub(crate) fn has_reached(self, moment: Self) -> bool {
        self.mono >= moment.mono || self.wall >= moment.wall
    }
}

type Wall = dyn Fn() -> SystemTime + Send + Sync;

/// The monotonic clock is tokio's, so that tests can pause it; the wall clock is the system's, or one
/// that a test sets.
#[derive(Clone)]
pub(crate) struct Clock {
    wall: Arc<Wall>,
}

impl Clock {
    pub(crate) fn new(wall: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            wall: Arc::new(wall),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment {
            mono: Instant::now(),
            wall: (self.wall)(),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(SystemTime::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}
