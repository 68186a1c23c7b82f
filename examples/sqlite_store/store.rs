//! A store of one's own: a `TokenStore` in SQL. The statements are those of Postgres too, but for its name
//! of the current time; DynamoDB and etcd have conditional writes for the same four operations.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::task::spawn_blocking;
use tower::BoxError;
use tower_symbl_auth::store::{Stored, TokenStore};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS tokens (key TEXT PRIMARY KEY, bytes BLOB NOT NULL, ends REAL NOT NULL);
    CREATE TABLE IF NOT EXISTS leases (key TEXT PRIMARY KEY, owner TEXT NOT NULL, ends REAL NOT NULL);";
const LOAD: &str = "
    SELECT bytes, ends - unixepoch('subsec') FROM tokens WHERE key = ?1 AND ends > unixepoch('subsec')";
const SAVE: &str = "
    INSERT INTO tokens SELECT ?1, ?3, unixepoch('subsec') + ?4
    WHERE EXISTS (SELECT 1 FROM leases WHERE key = ?1 AND owner = ?2 AND ends > unixepoch('subsec'))
    ON CONFLICT (key) DO UPDATE SET bytes = excluded.bytes, ends = excluded.ends";
const LEASE: &str = "
    INSERT INTO leases VALUES (?1, ?2, unixepoch('subsec') + ?3)
    ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, ends = excluded.ends
    WHERE leases.owner = excluded.owner OR leases.ends <= unixepoch('subsec')";
const RELEASE: &str = "DELETE FROM leases WHERE key = ?1 AND owner = ?2";

/// Clones share a connection. Times are the database's.
#[derive(Clone)]
pub(crate) struct SqliteStore(Arc<Mutex<Connection>>);

impl SqliteStore {
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_millis(500))?;
        connection.execute_batch(TABLES)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// Off the runtime's threads, since SQLite blocks.
    fn run<R: Send + 'static>(
        &self,
        statement: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> BoxFuture<'static, Result<R, BoxError>> {
        let connection = Arc::clone(&self.0);
        Box::pin(async move {
            let run = move || statement(&connection.lock().unwrap_or_else(PoisonError::into_inner));
            Ok(spawn_blocking(run).await??)
        })
    }
}

impl TokenStore for SqliteStore {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, BoxError>> {
        let key = key.to_owned();
        self.run(move |connection| {
            let stored = connection.query_row(LOAD, [key], |row| {
                Ok(Stored {
                    bytes: row.get::<_, Vec<u8>>(0)?.into(),
                    expires_in: Duration::from_secs_f64(row.get::<_, f64>(1)?.max(0.0)),
                })
            });
            stored.optional()
        })
    }

    fn save<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        bytes: Bytes,
        expires_in: Duration,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        let (key, owner) = (key.to_owned(), owner.to_owned());
        self.run(move |connection| {
            let values = params![key, owner, &*bytes, expires_in.as_secs_f64()];
            Ok(connection.execute(SAVE, values)? == 1)
        })
    }

    fn lease<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lasts: Duration,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        let (key, owner) = (key.to_owned(), owner.to_owned());
        self.run(move |connection| {
            Ok(connection.execute(LEASE, params![key, owner, lasts.as_secs_f64()])? == 1)
        })
    }

    fn release<'a>(&'a self, key: &'a str, owner: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        let (key, owner) = (key.to_owned(), owner.to_owned());
        self.run(move |connection| connection.execute(RELEASE, [key, owner]).map(|_| ()))
    }
}
