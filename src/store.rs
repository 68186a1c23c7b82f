//! One token for a whole fleet: replicas, cron jobs and command-line tools share it through a store.
//! Feature `store`; [`FileStore`] with `file-store`, [`RedisStore`] with `redis-store`.
//!
//! [`Builder::store`](crate::Builder::store) is all that a layer needs. Before it fetches a token, it
//! looks into the store for one that another process has fetched; while one fetches, the others wait for
//! what it brings. How to run it: `docs/fleet.md` in the repository.
//!
//! ```
//! # #[cfg(all(feature = "client", feature = "file-store"))] {
//! use tower_symbl_auth::{Credentials, FetchToken, SymblAuthLayer, store::FileStore};
//!
//! let fetch = FetchToken::new(Credentials::new("app-id", "app-secret"));
//! let key = fetch.sealing_key();
//! let layer = SymblAuthLayer::builder(fetch)
//!     .store(FileStore::new("/var/lib/my-app/token"), key)
//!     .build();
//! # }
//! ```
//!
//! # What it guarantees
//!
//! - The store is an aid, and nothing depends on it. Each operation has 1 s; one that fails or takes
//!   longer means that the token is fetched without it, and that it is not asked again for 10 s.
//! - Stored tokens are sealed with a key that the store does not have. Whoever reads the store learns
//!   nothing; whoever writes it can make the fleet fetch more often, and no more than that.
//! - Whoever fetches has a lease for 40 s, and gives it back. One who dies meanwhile is replaced: within
//!   25 s by one of those who wait, and after 30 s each fetches for itself.
//! - The limits of fetches after rejections hold for all processes together: 16 at once and one more
//!   every 10 s, and 16 at once and one more a second. At a limit the newest token is the answer, as if
//!   the issuer had handed it out again: the path cools down, and no other request is delayed. An error
//!   would have closed the gate for all paths.
//! - No two machines' clocks are compared. What is left of a token's life, the store tells.
//!
//! # A store of your own
//!
//! Anything that keeps bytes for a while can be a [`TokenStore`] if it has one conditional write.
//! `examples/sqlite_store` is one in SQL.
//!
//! # How a token is stored
//!
#![doc = include_str!("store/envelope.md")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use tower::BoxError;

#[cfg(feature = "file-store")]
pub use file::FileStore;
pub use key::SealingKey;
pub(crate) use key::random;
#[cfg(feature = "redis-store")]
pub use redis::RedisStore;
pub use shared::Shared;

mod aid;
mod criteria;
mod envelope;
#[cfg(feature = "file-store")]
mod file;
mod found;
mod key;
mod lease;
mod limits;
mod memory;
#[cfg(feature = "redis-store")]
mod redis;
mod shared;
mod turn;

/// Where the processes of a fleet keep the token that they share: opaque bytes under an opaque key, and
/// a lease on that key.
///
/// A key is 32 to 40 characters of `[0-9a-z-]`, the same for all who share a token; bytes are a few
/// hundred to a few thousand; an owner is a text of up to 64 characters of `[0-9a-z]`, new for each lease.
///
/// Times to live are counted by the store, or by one clock that all users of the store share, and never
/// from a time of day that two machines tell. The futures need not be quick, and may be dropped at any
/// point: each has 1 s. What an operation fails with is shown in telemetry: keep secrets out of it.
///
/// A lease is on the key and not on the value: it is there before there is a value, and a value outlives
/// it. It ends with [`release`](Self::release), or by itself, since its owner may die.
///
/// ```
/// use std::{collections::HashMap, sync::Mutex, time::Duration};
/// use bytes::Bytes;
/// use futures::future::{BoxFuture, FutureExt, ready};
/// use tokio::time::Instant;
/// use tower::BoxError;
/// use tower_symbl_auth::store::{Stored, TokenStore};
///
/// #[derive(Default)]
/// struct InMemory {
///     values: Mutex<HashMap<String, (Bytes, Instant)>>,
///     leases: Mutex<HashMap<String, (String, Instant)>>,
/// }
///
/// impl InMemory {
///     fn has_lease(&self, key: &str, owner: &str) -> Option<bool> {
///         let leases = self.leases.lock().unwrap();
///         let (holder, end) = leases.get(key)?;
///         (Instant::now() < *end).then(|| holder == owner)
///     }
/// }
///
/// impl TokenStore for InMemory {
///     fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, BoxError>> {
///         let values = self.values.lock().unwrap();
///         let stored = values.get(key).map(|(bytes, end)| Stored {
///             bytes: bytes.clone(),
///             expires_in: end.saturating_duration_since(Instant::now()),
///         });
///         ready(Ok(stored.filter(|stored| !stored.expires_in.is_zero()))).boxed()
///     }
///
///     fn save<'a>(&'a self, key: &'a str, owner: &'a str, bytes: Bytes, expires_in: Duration)
///         -> BoxFuture<'a, Result<bool, BoxError>>
///     {
///         let is_owner = self.has_lease(key, owner) == Some(true);
///         if is_owner {
///             let value = (bytes, Instant::now() + expires_in);
///             self.values.lock().unwrap().insert(key.to_owned(), value);
///         }
///         ready(Ok(is_owner)).boxed()
///     }
///
///     fn lease<'a>(&'a self, key: &'a str, owner: &'a str, lasts: Duration)
///         -> BoxFuture<'a, Result<bool, BoxError>>
///     {
///         let free = self.has_lease(key, owner) != Some(false);
///         if free {
///             let lease = (owner.to_owned(), Instant::now() + lasts);
///             self.leases.lock().unwrap().insert(key.to_owned(), lease);
///         }
///         ready(Ok(free)).boxed()
///     }
///
///     fn release<'a>(&'a self, key: &'a str, owner: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
///         self.leases.lock().unwrap().retain(|of, (holder, _)| of != key || holder != owner);
///         ready(Ok(())).boxed()
///     }
/// }
/// ```
pub trait TokenStore: Send + Sync + 'static {
    /// What is stored under the key, and how much is left of its time to live; both as of one moment.
    /// `None` if there is nothing, or its time is over.
    ///
    /// # Errors
    ///
    /// Whatever kept the store from answering. That nothing is there is no error.
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, BoxError>>;

    /// Stores bytes under the key, in place of what is there, for that time and no longer; but only
    /// while that owner has the lease on the key, checked and stored in one step. `false`: it has not,
    /// and nothing was stored.
    ///
    /// # Errors
    ///
    /// Whatever kept the store from answering. The bytes may be stored all the same.
    fn save<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        bytes: Bytes,
        expires_in: Duration,
    ) -> BoxFuture<'a, Result<bool, BoxError>>;

    /// Gives that owner the lease on the key for that time, unless another has it: `false`. An owner that
    /// has it already keeps it, so that an operation can be tried again whose answer was lost.
    ///
    /// # Errors
    ///
    /// Whatever kept the store from answering.
    fn lease<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lasts: Duration,
    ) -> BoxFuture<'a, Result<bool, BoxError>>;

    /// Ends that owner's lease on the key. If another has it, or nobody, does nothing.
    ///
    /// # Errors
    ///
    /// Whatever kept the store from answering.
    fn release<'a>(&'a self, key: &'a str, owner: &'a str) -> BoxFuture<'a, Result<(), BoxError>>;
}

/// What a [`TokenStore`] has under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The bytes, as they were saved.
    pub bytes: Bytes,
    /// How much is left of their time to live, by the store's own clock.
    pub expires_in: Duration,
}

impl<S: TokenStore + ?Sized> TokenStore for Arc<S> {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, BoxError>> {
        (**self).load(key)
    }

    fn save<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        bytes: Bytes,
        expires_in: Duration,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        (**self).save(key, owner, bytes, expires_in)
    }

    fn lease<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lasts: Duration,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        (**self).lease(key, owner, lasts)
    }

    fn release<'a>(&'a self, key: &'a str, owner: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        (**self).release(key, owner)
    }
}
