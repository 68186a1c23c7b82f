//! When a request's own timeout runs out.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// `None` if it is centuries away.
    pub(crate) fn new(since: Instant, timeout: Duration) -> Option<Self> {
        since.checked_add(timeout).map(Self)
    }

    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}
