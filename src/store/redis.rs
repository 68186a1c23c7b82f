//! The store of many machines: Redis, or what speaks its protocol.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use redis::{
    Client, Cmd, FromRedisValue, RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
};
use tower::BoxError;

use super::{Stored, TokenStore};

/// A store in Redis or Valkey, for any number of machines: a single server, Sentinel, or Cluster.
///
/// Under each key there are two entries, in one hash slot, both with a time to live: the token,
/// `PREFIX{KEY}`, and while one is fetched the lease, `PREFIX{KEY}:lease`. They are read and written by
/// scripts (`EVAL`; from the commands `GET`, `SET`, `PTTL` and `DEL`), so that a lease is given up by its
/// owner only, and a token is stored by the owner of the lease only.
///
/// An operation whose connection broke is tried once more, with a new one: connections that are idle for
/// a day are cut by firewalls, proxies and Redis itself.
///
/// ```no_run
/// # async fn example(fetch: tower_symbl_auth::FetchToken) -> Result<(), tower::BoxError> {
/// use tower_symbl_auth::{SymblAuthLayer, store::RedisStore};
///
/// let store = RedisStore::connect("rediss://user:password@redis.internal:6380").await?;
/// let key = fetch.sealing_key();
/// let layer = SymblAuthLayer::builder(fetch).store(store, key).build();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    connection: Arc<dyn Connection>,
    prefix: Arc<str>,
}

impl RedisStore {
    /// A store on the server of a URL: `redis://`, or `rediss://` with TLS (the platform's root
    /// certificates), with user, password and number of the database if there are any, as the redis crate
    /// has them.
    ///
    /// The connection is made when it is first needed, and again whenever it is lost: a server that is
    /// down when a process starts does not keep it from starting.
    ///
    /// # Errors
    ///
    /// A URL that is none.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: there is nothing to wait for yet.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, BoxError> {
        let url = url.as_ref();
        if url.starts_with("rediss:") {
            // The redis crate takes the process's default.
            crate::crypto::provider().ok_or(crate::crypto::MISSING)?;
        }
        Ok(Self::over(Reconnecting::new(url)?))
    }

    /// A store on a connection of your own: any cloneable asynchronous connection of the redis crate, such
    /// as a `ConnectionManager` with settings of its own (for Sentinel, from a `SentinelClient`), or a
    /// `ClusterConnection`. It should reconnect by itself, and give up after less than a second.
    ///
    /// With TLS, it is for you to say which provider rustls is to use.
    #[must_use]
    pub fn new(connection: impl ConnectionLike + Clone + Send + Sync + 'static) -> Self {
        Self::over(connection)
    }

    fn over(connection: impl Connection) -> Self {
        Self {
            connection: Arc::new(connection),
            prefix: "symbl-auth:".into(),
        }
    }

    /// What the names of its entries begin with. Default: `symbl-auth:`. Without braces, or with a pair of
    /// them that is for Cluster.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into().into();
        self
    }

    async fn run<R: FromRedisValue>(
        &self,
        script: &str,
        key: &str,
        arguments: impl FnOnce(&mut Cmd),
    ) -> Result<R, BoxError> {
        let name = format!("{}{{{key}}}", self.prefix);
        let mut command = redis::cmd("EVAL");
        command
            .arg(script)
            .arg(2)
            .arg(&name)
            .arg(format!("{name}:lease"));
        arguments(&mut command);
        let answer = match self.connection.ask(&command).await {
            // The answer may be lost, and the operation done: each of them can be done twice.
            Err(error) if error.is_io_error() => self.connection.ask(&command).await,
            answer => answer,
        };
        Ok(R::from_redis_value(answer?)?)
    }
}

/// KEYS[1] is the token, KEYS[2] the lease.
const LOAD: &str = "return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}";
const SAVE: &str = "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end \
     redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1";
const LEASE: &str = "if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end \
     if redis.call('GET', KEYS[2]) == ARGV[1] then return 1 end return 0";
const RELEASE: &str = "if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end \
     return 1";

impl TokenStore for RedisStore {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, BoxError>> {
        Box::pin(async move {
            let (bytes, left): (Option<Vec<u8>>, i64) = self.run(LOAD, key, |_| ()).await?;
            // Negative: somebody else's, without a time to live.
            Ok(bytes
                .zip(u64::try_from(left).ok())
                .map(|(bytes, left)| Stored {
                    bytes: bytes.into(),
                    expires_in: Duration::from_millis(left),
                }))
        })
    }

    fn save<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        bytes: Bytes,
        expires_in: Duration,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        Box::pin(async move {
            let saved = self.run(SAVE, key, |command| {
                command.arg(owner).arg(&*bytes).arg(millis(expires_in));
            });
            saved.await
        })
    }

    fn lease<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lasts: Duration,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        Box::pin(async move {
            let leased = self.run(LEASE, key, |command| {
                command.arg(owner).arg(millis(lasts));
            });
            leased.await
        })
    }

    fn release<'a>(&'a self, key: &'a str, owner: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async move {
            let released = self.run(RELEASE, key, |command| {
                command.arg(owner);
            });
            released.await.map(|_: i64| ())
        })
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

trait Connection: Send + Sync + 'static {
    fn ask<'a>(&'a self, command: &'a Cmd) -> BoxFuture<'a, RedisResult<Value>>;
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Connection for C {
    fn ask<'a>(&'a self, command: &'a Cmd) -> BoxFuture<'a, RedisResult<Value>> {
        let mut connection = self.clone();
        Box::pin(async move {
            connection
                .req_packed_command(command)
                .await?
                .extract_error()
        })
    }
}

/// A connection manager, and a new one after each error. A manager reconnects by itself only when the
/// connection was lost: not when the server refused the password, and not when it has become a replica of
/// another, to which the same name may lead by now.
struct Reconnecting {
    client: Client,
    manager: Mutex<ConnectionManager>,
}

impl Reconnecting {
    fn new(url: &str) -> RedisResult<Self> {
        let client = Client::open(url)?;
        let manager = Mutex::new(Self::connect(&client)?);
        Ok(Self { client, manager })
    }

    fn manager(&self) -> MutexGuard<'_, ConnectionManager> {
        self.manager.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it is first used.
    fn connect(client: &Client) -> RedisResult<ConnectionManager> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(LONGEST))
            .set_response_timeout(Some(LONGEST));
        ConnectionManager::new_lazy_with_config(client.clone(), config)
    }
}

impl Connection for Reconnecting {
    fn ask<'a>(&'a self, command: &'a Cmd) -> BoxFuture<'a, RedisResult<Value>> {
        Box::pin(async move {
            let connection = self.manager().clone();
            let answer = connection.ask(command).await;
            if answer.is_err() {
                let new = Self::connect(&self.client)?;
                let old = std::mem::replace(&mut *self.manager(), new);
                drop(old);
            }
            answer
        })
    }
}

/// For a connection, and for an answer. An operation has 1 s in all.
const LONGEST: Duration = Duration::from_millis(900);

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
