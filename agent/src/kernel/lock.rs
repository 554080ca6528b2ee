//! One writer at a time: `flock` on a file that outlives its holders.
//!
//! Whoever can open the file can lock it: it is its owner's alone (0600), and so is its folder (0700). No wait is without
//! an end, and one that ends in vain names the holder, which the kernel lists in `/proc/locks`.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::stat::{major, minor},
    unistd::geteuid,
};

/// Pause between two attempts.
const RETRY: Duration = Duration::from_millis(10);
/// Longest command line in a message.
const SHOWN: usize = 80;

/// Why no lock was had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file can't be opened or locked.
    #[error("lock {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is held by another process.
    #[error("lock {}: held by {} for {} s; let that end, or end it", path.display(), Holder::of(holder.as_ref()), limit.as_secs_f64())]
    Held {
        /// The file.
        path: PathBuf,
        /// By which, where the kernel tells.
        holder: Option<Holder>,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// A process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its command line, or what is known of it.
    pub command: String,
}

impl Holder {
    /// A process of a number.
    pub fn process(pid: u32) -> Self {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words: Vec<_> =
            line.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        if let Some(program) = words.first_mut() {
            *program = program.rsplit('/').next().unwrap_or_default().to_owned();
        }
        let mut command = words.join(" ").trim_end().to_owned();
        if command.is_empty() {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim().clone_into(&mut command);
        }
        command.truncate(command.floor_char_boundary(SHOWN));
        Self { pid, command }
    }

    /// For messages, where it is known.
    pub fn of(holder: Option<&Self>) -> String {
        holder.map_or_else(|| "another process".to_owned(), ToString::to_string)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// A held lock; dropping it, or dying, gives it back.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: Flock<File>,
}

impl Lock {
    /// The lock of a file, which is created if missing, or `None` while another holder has it.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn attempt(path: &Path) -> Result<Option<Self>, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        loop {
            match Flock::lock(open(path).map_err(failed)?, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    let lock = Self { path: path.to_owned(), file };
                    // It may have been deleted in between: then the next holder would lock another file.
                    if lock.is_in_place() {
                        return Ok(Some(lock));
                    }
                }
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(failed(errno.into())),
            }
        }
    }

    /// The lock of a file, waited for until `limit` is over. It stops the calling thread: not for one that answers others.
    ///
    /// # Errors
    /// The file can't be opened, or the lock is held for all that time.
    pub fn wait(path: &Path, limit: Duration) -> Result<Self, LockError> {
        let end = Instant::now() + limit;
        loop {
            if let Some(lock) = Self::attempt(path)? {
                return Ok(lock);
            }
            if Instant::now() >= end {
                return Err(LockError::Held { path: path.to_owned(), holder: holder(path), limit });
            }
            thread::sleep(RETRY);
        }
    }

    /// Whether the path still leads to the file that is locked.
    pub fn is_in_place(&self) -> bool {
        let identity = |of: &fs::Metadata| (of.dev(), of.ino());
        match (fs::symlink_metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(held)) => identity(&there) == identity(&held),
            _ => false,
        }
    }
}

/// Which process holds the lock of a file. Nothing is locked to find out.
pub fn holder(path: &Path) -> Option<Holder> {
    let file = fs::symlink_metadata(path).ok()?;
    let wanted = format!("{:02x}:{:02x}:{}", major(file.dev()), minor(file.dev()), file.ino());
    pid_of(&fs::read_to_string("/proc/locks").ok()?, &wanted).map(Holder::process)
}

/// The process in a list such as `1: FLOCK  ADVISORY  WRITE 714 00:19:1042 0 EOF`; an arrow marks one that waits.
fn pid_of(locks: &str, wanted: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, pid, file) = (words.next()?, words.nth(2)?, words.next()?);
        if kind == "FLOCK" && file == wanted { pid.parse().ok() } else { None }
    })
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        make_private(folder)?;
    }
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    if file.metadata()?.mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Makes a folder that only its owner may enter; closes one that is there.
fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let there = fs::metadata(folder)?;
    if there.mode() & 0o077 != 0 && there.uid() == geteuid().as_raw() {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_second_holder_gets_the_lock_only_after_the_first_gave_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/lock");
        let first = Lock::wait(&path, SOON).unwrap();
        assert!(Lock::attempt(&path).unwrap().is_none());
        drop(first);
        assert!(Lock::attempt(&path).unwrap().is_some());
    }

    #[test]
    fn a_wait_in_vain_ends_and_names_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(holder(&path), None);
        let first = Lock::wait(&path, SOON).unwrap();
        let error = Lock::wait(&path, Duration::from_millis(30)).unwrap_err().to_string();
        let own = Holder::process(std::process::id());
        assert!(!own.command.is_empty() && !own.command.contains('/'), "{own}");
        assert!(error.contains(&format!("held by {own} for 0.03 s; let that end, or end it")), "{error}");
        drop(first);
        assert_eq!(holder(&path), None);
    }

    #[test]
    fn only_the_owner_can_open_it_also_where_it_was_open_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/lock");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        for (path, mode) in [(path.parent().unwrap(), 0o755), (&path, 0o644)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let _held = Lock::wait(&path, SOON).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
    }

    #[test]
    fn a_deleted_file_is_noticed_and_its_successor_is_another_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::wait(&path, SOON).unwrap();
        assert!(first.is_in_place());
        fs::remove_file(&path).unwrap();
        assert!(!first.is_in_place());
        let second = Lock::attempt(&path).unwrap().unwrap();
        assert!(second.is_in_place() && !first.is_in_place());
    }

    #[test]
    fn who_waits_for_a_lock_does_not_hold_it() {
        let locks = "1: FLOCK  ADVISORY  WRITE 714 00:19:1042 0 EOF\n\
                     2: POSIX  ADVISORY  READ 9 08:01:17 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 8 08:01:17 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 7 08:01:17 0 EOF\n";
        assert_eq!(pid_of(locks, "00:19:1042"), Some(714));
        assert_eq!(pid_of(locks, "08:01:17"), Some(7));
        assert_eq!(pid_of(locks, "08:01:18"), None);
    }
}
