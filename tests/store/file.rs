//! F4 for the file. Covers from elsewhere: a token file cut in half by `kill -9`, after which every start
//! fails until a person deletes it; lock files left behind by a crash; crowds of ten processes reading
//! while one writes; and: a disk that is full, a file that is a directory, a lock held by a stopped process.
#![cfg(unix)]

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures::future::join_all;
use tower::ServiceExt;
use tower_symbl_auth::{
    FetchReason, TokenRequest,
    store::{FileStore, Shared, TokenStore},
};

use crate::{contract, sharing::key, support::*};

const MINUTE: Duration = Duration::from_secs(60);

/// A folder of a test's own, gone with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "store-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn token(issuer: &Issuer, store: FileStore) -> String {
    let shared = Shared::new(issuer.clone(), store, key());
    let token = shared.oneshot(TokenRequest::new(FetchReason::First)).await;
    token.unwrap().expose_secret().to_owned()
}

async fn load_error(path: &Path) -> String {
    FileStore::new(path)
        .load("key")
        .await
        .unwrap_err()
        .to_string()
}

#[tokio::test]
async fn a_file_is_a_store() {
    let folder = Folder::new();
    let store = FileStore::new(folder.join("token"));
    // The file's clock is the machine's, which cannot be paused.
    contract::check(&store, async || {
        tokio::time::sleep(Duration::from_millis(350)).await
    })
    .await;
}

#[tokio::test]
async fn the_file_is_private_and_so_is_a_folder_that_was_missing() {
    let folder = Folder::new();
    let path = folder.join("not/there/token");
    token(&Issuer::fresh(DAY, Duration::ZERO), FileStore::new(&path)).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    for made in ["not", "not/there"] {
        assert_eq!(mode(&folder.join(made)), 0o700, "{made}");
    }
    for beside in fs::read_dir(folder.join("not/there")).unwrap() {
        assert_eq!(mode(&beside.unwrap().path()), 0o600);
    }
}

#[tokio::test]
async fn a_folder_will_do_for_a_path() {
    let (folder, issuer) = (Folder::new(), Issuer::fresh(DAY, Duration::ZERO));
    token(&issuer, FileStore::new(folder.join(""))).await;
    token(&issuer, FileStore::new(folder.join(""))).await;
    assert_eq!(issuer.calls(), 1);
    assert!(folder.join("token").is_file());
}

#[tokio::test]
async fn a_file_that_others_can_read_is_refused_with_what_to_do() {
    let (folder, issuer) = (Folder::new(), Issuer::fresh(DAY, Duration::ZERO));
    let path = folder.join("token");
    token(&issuer, FileStore::new(&path)).await;
    for mode in [0o640, 0o604, 0o660, 0o644] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = load_error(&path).await;
        let command = format!("chmod 600 {}", path.display());
        assert!(
            error.contains(&command) && error.contains("or delete it"),
            "{error}"
        );
        // Requests are served all the same.
        let calls = issuer.calls();
        token(&issuer, FileStore::new(&path)).await;
        assert_eq!(issuer.calls(), calls + 1);
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(token(&issuer, FileStore::new(&path)).await, "token-1");
}

#[tokio::test]
async fn a_file_that_is_cut_off_or_something_else_is_replaced() {
    let (folder, issuer) = (Folder::new(), Issuer::fresh(DAY, Duration::ZERO));
    let path = folder.join("token");
    token(&issuer, FileStore::new(&path)).await;
    let whole = fs::read(&path).unwrap();
    let others = [&b""[..], &whole[..whole.len() / 2], b"[1, 2", &[0xff; 100]];
    for (number, text) in others.into_iter().enumerate() {
        fs::write(&path, text).unwrap();
        let expected = format!("token-{}", number + 2);
        assert_eq!(token(&issuer, FileStore::new(&path)).await, expected);
        assert_eq!(token(&issuer, FileStore::new(&path)).await, expected);
    }
}

#[tokio::test]
async fn files_left_behind_by_a_crash_do_no_harm() {
    let (folder, issuer) = (Folder::new(), Issuer::fresh(DAY, Duration::ZERO));
    let path = folder.join("token");
    token(&issuer, FileStore::new(&path)).await;
    fs::remove_file(&path).unwrap();
    // Half of a new file, the lock, and a lease that has long to run, of a process that is no more.
    fs::write(folder.join("token.new"), "{").unwrap();
    fs::write(folder.join("token.lock"), "").unwrap();
    let store = FileStore::new(&path);
    assert!(store.lease("key", "dead", MINUTE).await.unwrap());
    drop(store);
    let start = Instant::now();
    let next = FileStore::new(&path);
    assert!(next.lease("key", "next", MINUTE).await.unwrap());
    assert!(next.save("key", "next", "x".into(), MINUTE).await.unwrap());
    next.release("key", "next").await.unwrap();
    assert_eq!(token(&issuer, FileStore::new(&path)).await, "token-2");
    assert!(start.elapsed() < SECOND);
    let left: Vec<_> = fs::read_dir(folder.join(""))
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
}

#[tokio::test]
async fn a_lock_that_is_not_given_up_costs_less_than_a_second() {
    let (folder, issuer) = (Folder::new(), Issuer::fresh(DAY, Duration::ZERO));
    let path = folder.join("token");
    // As a process that was stopped at the wrong moment has it.
    let lock = File::create(folder.join("token.lock")).unwrap();
    lock.lock().unwrap();
    let start = Instant::now();
    let error = FileStore::new(&path)
        .lease("key", "me", MINUTE)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("holds the lock"), "{error}");
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    assert_eq!(token(&issuer, FileStore::new(&path)).await, "token-1");
    drop(lock);
    token(&issuer, FileStore::new(&path)).await;
    token(&issuer, FileStore::new(&path)).await;
    assert_eq!(issuer.calls(), 2);
}

#[tokio::test]
async fn the_lease_of_a_process_that_is_stopped_runs_out() {
    let folder = Folder::new();
    // Another store in this process has its lease locked, as another process would.
    let (stopped, next) = (
        FileStore::new(folder.join("token")),
        FileStore::new(folder.join("token")),
    );
    let short = Duration::from_millis(200);
    assert!(stopped.lease("key", "stopped", short).await.unwrap());
    assert!(!next.lease("key", "next", short).await.unwrap());
    tokio::time::sleep(short).await;
    assert!(next.lease("key", "next", MINUTE).await.unwrap());
    assert!(
        !stopped
            .save("key", "stopped", "old".into(), MINUTE)
            .await
            .unwrap()
    );
    stopped.release("key", "stopped").await.unwrap();
    assert!(!stopped.lease("key", "other", MINUTE).await.unwrap());
    assert!(
        next.save("key", "next", "new".into(), MINUTE)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_path_that_cannot_be_used_is_told_and_requests_are_served() {
    let (folder, issuer) = (Folder::new(), Issuer::fresh(DAY, Duration::ZERO));
    fs::write(folder.join("file"), "").unwrap();
    fs::create_dir_all(folder.join("folder/token")).unwrap();
    for path in ["file/below", "folder"] {
        let path = folder.join(path);
        let error = load_error(&path).await;
        assert!(error.contains(&path.display().to_string()), "{error}");
        let calls = issuer.calls();
        token(&issuer, FileStore::new(&path)).await;
        assert_eq!(issuer.calls(), calls + 1, "{}", path.display());
    }
}

#[tokio::test]
async fn readers_see_a_whole_file_while_one_writes() {
    let folder = Folder::new();
    let path = folder.join("token");
    let writer = FileStore::new(&path);
    assert!(writer.lease("key", "writer", MINUTE).await.unwrap());
    let write = async |number: u8| {
        let bytes = vec![number; 1000 + 100 * usize::from(number)];
        assert!(
            writer
                .save("key", "writer", bytes.into(), MINUTE)
                .await
                .unwrap()
        );
    };
    write(0).await;
    let readers = (0..10).map(|_| async {
        let store = FileStore::new(&path);
        for _ in 0..100 {
            let bytes = store.load("key").await.unwrap().unwrap().bytes;
            assert_eq!(bytes.len(), 1000 + 100 * usize::from(bytes[0]));
            assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        }
    });
    let writing = async {
        for number in 1..100 {
            write(number).await;
        }
    };
    futures::join!(join_all(readers), writing);
}
