//! The store of one machine: a file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use tower::BoxError;

use super::{Stored, TokenStore};
use disk::Disk;

mod disk;
mod entries;

/// A store in a file, for the processes of one machine: cron jobs, command-line tools, workers.
///
/// The file is written beside its place and moved there, so that a reader sees all of it or nothing, and
/// a writer that is killed leaves nothing half done. It is made with mode 0600, and missing directories
/// above it with 0700. Beside it there are a lock, held for less than a millisecond each time, and while
/// a token is fetched a lease. The system gives up the locks of a process that ends, however it ends; what
/// files it leaves behind do no harm. One that is stopped while it fetches loses its lease in time.
///
/// All of this is done on threads for blocking work, never on the runtime's own.
///
/// # Errors
///
/// Its operations fail, and tokens are then fetched without it, if
/// - others than the owner may read or write the file: `chmod 600` it, or delete it;
/// - the directory cannot be written to, the disk is full, the path is taken by something else;
/// - another process holds the lock for most of a second, as one that was stopped just then does.
///
/// A file that is cut off or holds something else is replaced, as if it were not there.
///
/// # Where it works
///
/// On Unix, on a file system of one machine. Not over NFS or another network file system: locks may there
/// be each machine's own (`nolock`, `local_lock`), and a lifetime in the file is told by the clock of
/// whichever machine wrote it. [`RedisStore`](super::RedisStore) is for more than one machine. On Windows
/// it compiles, and each operation fails, saying so: there are no modes there to keep the file private.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use std::time::Duration;
/// use tower_symbl_auth::store::{FileStore, TokenStore};
///
/// # let folder = std::env::temp_dir().join(format!("tower-symbl-auth-doc-file-{}", std::process::id()));
/// let store = FileStore::new(folder.join("token"));
/// # #[cfg(unix)] {
/// assert!(store.lease("key", "me", Duration::from_secs(40)).await?);
/// assert!(store.save("key", "me", "sealed".into(), Duration::from_secs(60)).await?);
/// store.release("key", "me").await?;
/// assert_eq!(store.load("key").await?.unwrap().bytes, "sealed");
/// # std::fs::remove_dir_all(folder)?;
/// # }
/// # Ok::<(), tower::BoxError>(()) }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FileStore {
    disk: Arc<Disk>,
}

impl FileStore {
    /// A store in the file of that path, or if that is a directory, in the file `token` in it. Nothing is
    /// read or made before it is used.
    ///
    /// One file serves any number of keys.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            disk: Arc::new(Disk::new(path.into())),
        }
    }

    async fn run<R: Send + 'static>(
        &self,
        operation: impl FnOnce(&Disk) -> io::Result<R> + Send + 'static,
    ) -> Result<R, BoxError> {
        if cfg!(not(unix)) {
            return Err(
                "FileStore is for Unix: there are no modes here to keep its file private".into(),
            );
        }
        let disk = Arc::clone(&self.disk);
        let done = tokio::task::spawn_blocking(move || operation(&disk)).await?;
        done.map_err(|error| told_of(self.disk.path(), error))
    }
}

impl TokenStore for FileStore {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, BoxError>> {
        let key = key.to_owned();
        Box::pin(self.run(move |disk| disk.load(&key)))
    }

    fn save<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        bytes: Bytes,
        expires_in: Duration,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        let (key, owner) = (key.to_owned(), owner.to_owned());
        Box::pin(self.run(move |disk| disk.save(&key, &owner, &bytes, expires_in)))
    }

    fn lease<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lasts: Duration,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        let (key, owner) = (key.to_owned(), owner.to_owned());
        Box::pin(self.run(move |disk| disk.lease(&key, &owner, lasts)))
    }

    fn release<'a>(&'a self, key: &'a str, owner: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        let (key, owner) = (key.to_owned(), owner.to_owned());
        Box::pin(self.run(move |disk| disk.release(&key, &owner)))
    }
}

fn told_of(path: &Path, error: io::Error) -> BoxError {
    format!("the token file {}: {error}", path.display()).into()
}
