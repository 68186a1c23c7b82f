//! What is asked of the runtime: to run a task, and to end a wait.

use std::{future::Future, time::Duration};

use tokio::runtime::Handle;

pub(crate) use spawner::Runtime;

#[cfg(not(shuttle))]
mod spawner {
    use super::{Future, Handle};

    /// The runtime this is called in.
    pub(crate) struct Runtime(Handle);

    impl Runtime {
        /// `None` outside a tokio runtime.
        pub(crate) fn current() -> Option<Self> {
            Handle::try_current().ok().map(Self)
        }

        /// Runs a task of its own. In a runtime that is being shut down, drops it there and then.
        pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
            self.0.spawn(task);
        }
    }
}

/// The future's output, or `None` after `limit`. Outside a tokio runtime there is no limit.
pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    if Handle::try_current().is_err() {
        return Some(future.await);
    }
    tokio::time::timeout(limit, future).await.ok()
}

/// Tasks of the scheduler that explores interleavings; see `sync`.
#[cfg(shuttle)]
mod spawner {
    use super::Future;

    pub(crate) struct Runtime;

    impl Runtime {
        pub(crate) fn current() -> Option<Self> {
            Some(Self)
        }

        pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
            drop(shuttle::future::spawn(task));
        }
    }
}
