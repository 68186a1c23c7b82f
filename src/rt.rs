//! What is asked of the runtime: to run a task, and to end a wait.

use std::{future::Future, panic, time::Duration};

use futures::{FutureExt, future::Either};
use tokio::{runtime::Handle, time::Sleep};

pub(crate) use spawner::Runtime;

#[cfg(not(shuttle))]
mod spawner {
    use super::{Future, Handle};

    /// The runtime this is called in, which can run a fetch and end it.
    pub(crate) struct Runtime(Handle);

    impl Runtime {
        /// `None` outside a tokio runtime, or in one that has no timer.
        pub(crate) fn current() -> Option<Self> {
            let runtime = Handle::try_current().ok()?;
            super::has_timer().then_some(Self(runtime))
        }

        /// Runs a task of its own. In a runtime that is being shut down, drops it there and then.
        pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
            self.0.spawn(task);
        }
    }
}

/// The future's output, or `None` after `limit`. Without a timer there is no limit.
pub(crate) fn timeout<F: Future>(
    limit: Duration,
    future: F,
) -> impl Future<Output = Option<F::Output>> {
    if has_timer() {
        Either::Left(tokio::time::timeout(limit, future).map(Result::ok))
    } else {
        Either::Right(future.map(Some))
    }
}

/// Whether a fetch can be started here.
pub(crate) fn is_here() -> bool {
    Runtime::current().is_some()
}

pub(crate) fn has_timer() -> bool {
    sleep(Duration::ZERO).is_some()
}

/// `None` outside a tokio runtime, or in one that has no timer. Tokio says so by a panic only, which is
/// caught here rather than left to a caller (the panic hook prints it all the same).
pub(crate) fn sleep(period: Duration) -> Option<Sleep> {
    Handle::try_current().ok()?;
    panic::catch_unwind(|| tokio::time::sleep(period)).ok()
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
