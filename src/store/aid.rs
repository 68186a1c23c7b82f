//! The store, as an aid: each of its operations is bounded, and one that fails turns it off for a while.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tower::BoxError;

use super::{
    SealingKey, TokenStore,
    envelope::Envelope,
    found::{Found, Ignored},
    lease::Lease,
    memory::Memory,
};
use crate::{rt, telemetry, token::clock::Moment};

/// A store, the key that it does not have, and what is remembered of it; shared by all clones.
pub(super) struct Aid {
    store: Arc<dyn TokenStore>,
    key: SealingKey,
    memory: Mutex<Memory>,
}

/// The store is of no help: go without it.
#[derive(Debug)]
pub(super) struct Unaided;

/// How long an operation may take.
const LONGEST: Duration = Duration::from_secs(1);
/// How long a fetch may take, which has 35 s, and 5 s to spare.
const LEASE: Duration = Duration::from_secs(40);

impl Aid {
    pub(super) fn new(store: impl TokenStore, key: SealingKey) -> Self {
        Self {
            store: Arc::new(store),
            key,
            memory: Mutex::default(),
        }
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing panics under this lock, and each step leaves the memory whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names to store under. The second is for when whoever has the lease of the first seems to have
    /// died with it.
    pub(super) fn names(&self) -> [String; 2] {
        let name = self.key.name();
        [name.to_owned(), format!("{name}-2")]
    }

    /// What is stored, and why it is not used, if it is not.
    pub(super) async fn load(&self, name: &str) -> Result<Result<Option<Found>, Ignored>, Unaided> {
        let asked_at = Moment::now();
        let stored = self.ask("load", async { self.store.load(name).await });
        let Some(stored) = stored.await? else {
            return Ok(Ok(None));
        };
        let found = Found::open(&stored, &self.key, name, asked_at);
        Ok(found.and_then(|found| match self.memory().note(&found) {
            true => Ok(Some(found)),
            false => Err(Ignored::Older),
        }))
    }

    /// `false` if the lease is no longer its owner's.
    pub(super) async fn save(&self, lease: &Lease, envelope: &Envelope) -> Result<bool, Unaided> {
        let (name, owner) = (lease.name(), lease.owner());
        let saved = self.ask("save", async {
            let sealed = envelope.seal(&self.key, name)?;
            self.store.save(name, owner, sealed, envelope.kept).await
        });
        let saved = saved.await?;
        if saved {
            self.memory().saved(envelope.sequence);
        }
        Ok(saved)
    }

    /// The lease, unless another has it.
    pub(super) async fn lease(
        self: &Arc<Self>,
        name: &str,
        owner: &str,
    ) -> Result<Option<Lease>, Unaided> {
        // It may have been given when the answer is lost, or this is dropped.
        let lease = Lease::new(Arc::clone(self), name, owner);
        let given = self.ask("lease", async {
            self.store.lease(name, owner, LEASE).await
        });
        match given.await? {
            true => Ok(Some(lease)),
            false => {
                lease.forget();
                Ok(None)
            }
        }
    }

    pub(super) async fn release(&self, name: &str, owner: &str) -> Result<(), Unaided> {
        self.ask("release", async { self.store.release(name, owner).await })
            .await
    }

    async fn ask<R>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = Result<R, BoxError>>,
    ) -> Result<R, Unaided> {
        if self.memory().is_off() {
            return Err(Unaided);
        }
        let answer = rt::timeout(LONGEST, AssertUnwindSafe(answer).catch_unwind());
        let error = match answer.await {
            Some(Ok(Ok(answer))) => return Ok(answer),
            Some(Ok(Err(error))) => error,
            Some(Err(_panic)) => "it panicked".into(),
            None => "it took longer than 1 s".into(),
        };
        self.memory().turn_off();
        telemetry::store_trouble(operation, &error);
        Err(Unaided)
    }
}
