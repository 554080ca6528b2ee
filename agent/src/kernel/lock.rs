//! One writer at a time: `flock` on a file that outlives its holders.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};

/// Pause between two attempts.
const RETRY: Duration = Duration::from_millis(10);

/// Why no lock was had.
#[derive(Debug, thiserror::Error)]
#[error("lock {}: {source}", path.display())]
pub struct LockError {
    path: PathBuf,
    source: io::Error,
}

/// A held lock; dropping it, or dying, gives it back.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock is held for as long as it lives")] Flock<File>);

impl Lock {
    /// Waits for the lock of a file, which is created if missing.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn wait(path: &Path) -> Result<Self, LockError> {
        let locked = Flock::lock(open(path)?, FlockArg::LockExclusive);
        locked.map(Self).map_err(|(_, errno)| LockError { path: path.to_owned(), source: errno.into() })
    }

    /// The lock of a file, or `None` while somebody else holds it.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn attempt(path: &Path) -> Result<Option<Self>, LockError> {
        match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(LockError { path: path.to_owned(), source: errno.into() }),
        }
    }

    /// The lock of a file, or `None` when somebody else holds it for as long as `limit`.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn attempt_for(path: &Path, limit: Duration) -> Result<Option<Self>, LockError> {
        let end = Instant::now() + limit;
        loop {
            let lock = Self::attempt(path)?;
            if lock.is_some() || Instant::now() >= end {
                return Ok(lock);
            }
            thread::sleep(RETRY);
        }
    }
}

fn open(path: &Path) -> Result<File, LockError> {
    let failed = |source| LockError { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_gets_the_lock_only_after_the_first_gave_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/lock");
        let first = Lock::wait(&path).unwrap();
        assert!(Lock::attempt(&path).unwrap().is_none());
        drop(first);
        assert!(Lock::attempt(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_that_is_held_for_a_moment_only_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::wait(&path).unwrap();
        assert!(Lock::attempt_for(&path, Duration::from_millis(30)).unwrap().is_none());
        let holder = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(first);
        });
        assert!(Lock::attempt_for(&path, Duration::from_secs(10)).unwrap().is_some());
        holder.join().unwrap();
    }
}
