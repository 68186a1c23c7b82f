//! A lease on a name in the store, given back however its owner ends, short of being killed.

use std::{fmt, sync::Arc};

use tokio::runtime::Handle;

use super::aid::Aid;

/// Dropped without [`release`](Self::release), it is given back in the background: the fetch was
/// cancelled, ran out of time, or panicked.
pub(super) struct Lease {
    held: Option<Held>,
}

struct Held {
    aid: Arc<Aid>,
    name: String,
    owner: String,
}

impl Lease {
    pub(super) fn new(aid: Arc<Aid>, name: &str, owner: &str) -> Self {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        Self {
            held: Some(Held { aid, name, owner }),
        }
    }

    pub(super) fn name(&self) -> &str {
        self.held.as_ref().map_or("", |held| &held.name)
    }

    pub(super) fn owner(&self) -> &str {
        self.held.as_ref().map_or("", |held| &held.owner)
    }

    pub(super) async fn release(mut self) {
        if let Some(held) = &self.held {
            held.release().await;
        }
        self.held = None;
    }

    /// There is nothing to give back.
    pub(super) fn forget(mut self) {
        self.held = None;
    }
}

impl Held {
    /// Should it fail, that is told, and the lease runs out by itself.
    async fn release(&self) {
        let _ = self.aid.release(&self.name, &self.owner).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(held), Ok(runtime)) = (self.held.take(), Handle::try_current()) else {
            return;
        };
        // A second at most. In a runtime that is being shut down it does not run, and the lease runs out.
        runtime.spawn(async move { held.release().await });
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
