//! What is done on disk, by threads that may block.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::entries::{Entries, millis, now};
use crate::store::Stored;

/// Three kinds of files: the entries; the lock, under which all but reading is done; and for each key
/// with a lease, that lease. It names its owner and its end, and is locked by its owner's process, so that
/// the end of that process ends it too.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    held: Mutex<Vec<HeldLease>>,
}

/// A lease of this process, locked as long as this is there.
#[derive(Debug)]
struct HeldLease {
    key: String,
    owner: String,
    ends: u64,
    _file: File,
}

/// Somewhat less than an operation may take.
const LONGEST_WAIT: Duration = Duration::from_millis(900);
const POLL: Duration = Duration::from_millis(2);

impl Disk {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            held: Mutex::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn load(&self, key: &str) -> io::Result<Option<Stored>> {
        Ok(self.read()?.get(key, now()))
    }

    pub(super) fn save(
        &self,
        key: &str,
        owner: &str,
        bytes: &Bytes,
        expires_in: Duration,
    ) -> io::Result<bool> {
        let _lock = self.lock()?;
        let lease = read(&self.beside(key))?;
        if !LeaseFile::parse(&lease).is_some_and(|lease| lease.owner == owner && now() < lease.ends)
        {
            return Ok(false);
        }
        let mut entries = self.read()?;
        entries.insert(key, bytes, expires_in, now());
        // Left behind, if its writer was killed.
        let new = self.beside("new");
        remove(&new)?;
        private()
            .write(true)
            .create_new(true)
            .open(&new)?
            .write_all(entries.text().as_bytes())?;
        // What a power failure makes of a file that is not synchronised is no JSON, and so replaced.
        fs::rename(&new, self.file())?;
        Ok(true)
    }

    pub(super) fn lease(&self, key: &str, owner: &str, lasts: Duration) -> io::Result<bool> {
        let _lock = self.lock()?;
        let path = self.beside(key);
        let mut file = private()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        if !try_lock(&file)? {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let lease = LeaseFile::parse(text.as_bytes());
            if let Some(lease) = lease.filter(|lease| lease.is_alive(lasts)) {
                return Ok(lease.owner == owner);
            }
            // Its owner was stopped, and keeps its lock on a file that is there no more.
            remove(&path)?;
            file = private().write(true).create_new(true).open(&path)?;
            try_lock(&file)?;
        }
        let ends = now().saturating_add(millis(lasts));
        file.set_len(0)?;
        file.write_all(format!("{owner} {ends}").as_bytes())?;
        let mut held = self.held();
        held.retain(|held| now() < held.ends);
        held.push(HeldLease {
            key: key.to_owned(),
            owner: owner.to_owned(),
            ends,
            _file: file,
        });
        Ok(true)
    }

    pub(super) fn release(&self, key: &str, owner: &str) -> io::Result<()> {
        let _lock = self.lock()?;
        let path = self.beside(key);
        if LeaseFile::parse(&read(&path)?).is_some_and(|lease| lease.owner == owner) {
            remove(&path)?;
        }
        self.held()
            .retain(|held| (&*held.key, &*held.owner) != (key, owner));
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Vec<HeldLease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of the entries.
    fn file(&self) -> PathBuf {
        match self.path.is_dir() {
            true => self.path.join("token"),
            false => self.path.clone(),
        }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.file().into_os_string();
        path.push(".");
        path.push(ending);
        path.into()
    }

    fn read(&self) -> io::Result<Entries> {
        let path = self.file();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Entries::default()),
            Err(error) => return Err(error),
        };
        check_mode(&path, &file)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(Entries::parse(&text))
    }

    /// Among all processes and threads. Never waited for by the system's own means: a thread that does
    /// would keep its runtime from ending.
    fn lock(&self) -> io::Result<File> {
        let path = self.beside("lock");
        if let Some(folder) = path.parent() {
            make(folder)?;
        }
        let file = private()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let start = Instant::now();
        while !try_lock(&file)? {
            if start.elapsed() > LONGEST_WAIT {
                let told = format!("another process holds the lock {}", path.display());
                return Err(io::Error::new(ErrorKind::TimedOut, told));
            }
            thread::sleep(POLL);
        }
        Ok(file)
    }
}

struct LeaseFile<'a> {
    owner: &'a str,
    ends: u64,
}

impl<'a> LeaseFile<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (owner, ends) = str::from_utf8(text).ok()?.split_once(' ')?;
        let ends = ends.parse().ok()?;
        Some(Self { owner, ends })
    }

    /// One that ends later than any does was made before the clock was set back.
    fn is_alive(&self, longest: Duration) -> bool {
        let now = now();
        (now..=now.saturating_add(millis(longest))).contains(&self.ends)
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Empty, if there is none.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// New files are the owner's alone.
fn private() -> OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn make(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

#[cfg(unix)]
fn check_mode(path: &Path, file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let path = path.display();
    let told = format!("it is not private (mode {mode:04o}): run `chmod 600 {path}`, or delete it");
    Err(io::Error::new(ErrorKind::PermissionDenied, told))
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &File) -> io::Result<()> {
    Ok(())
}
