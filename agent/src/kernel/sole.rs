//! At most one agent a host.
//!
//! Two guards, because neither covers the other's ground. The lock of a file covers what shares `/run` (two network
//! namespaces of one file system would overwrite each other's records), but a file can be deleted. The abstract name of
//! a Unix socket covers a network namespace, whatever is mounted where, and nothing can delete it: it goes with its
//! process. Any user may take the name, though: a process of another user is reported, and is no agent.

use std::{
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
    },
    unistd::geteuid,
};

use super::lock::{Holder, Lock, LockError, holder};

/// Pause between two attempts.
const RETRY: Duration = Duration::from_millis(20);

/// Why a process is not the only agent.
#[derive(Debug, thiserror::Error)]
pub enum SoleError {
    /// Another one runs.
    #[error("another one is running: {}; stop it first", Holder::of(.0.as_ref()))]
    Other(Option<Holder>),
    /// The lock's file.
    #[error(transparent)]
    Lock(LockError),
}

/// What this process holds while it is the only agent.
#[derive(Debug)]
pub struct Sole {
    path: PathBuf,
    name: &'static str,
    lock: Lock,
    listener: Option<UnixListener>,
    /// The process that was seen to have the name: its queue may be full by now.
    stranger: Option<Holder>,
}

impl Sole {
    /// Claims a lock file and an abstract name; a predecessor may take until `limit` to end.
    ///
    /// # Errors
    /// Another agent holds one of them, or the file can't be opened.
    pub fn claim(path: &Path, name: &'static str, limit: Duration) -> Result<Self, SoleError> {
        let end = Instant::now() + limit;
        let lock = Lock::wait(path, limit).map_err(|error| match error {
            LockError::Held { holder, .. } => SoleError::Other(holder),
            other => SoleError::Lock(other),
        })?;
        let mut sole = Self { path: path.to_owned(), name, lock, listener: None, stranger: None };
        loop {
            match sole.take_name() {
                Ok(()) => return Ok(sole),
                Err(taken) if taken.is_stranger() => return Ok(sole),
                Err(taken) if Instant::now() >= end && taken.is_agent() => {
                    return Err(SoleError::Other(taken.holder));
                }
                // One that does not even say whose it is would keep all agents away for ever.
                Err(_unknown) if Instant::now() >= end => return Ok(sole),
                Err(_taken) => thread::sleep(RETRY),
            }
        }
    }

    /// Holds again what was lost: a deleted lock file, and a name that another process had. Says what is still not held.
    pub fn hold(&mut self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.lock.is_in_place() {
            match Lock::attempt(&self.path) {
                Ok(Some(lock)) => {
                    tracing::warn!("{}: it was deleted; made and locked again", self.path.display());
                    self.lock = lock;
                }
                Ok(None) => {
                    let other = holder(&self.path);
                    let (path, other) = (self.path.display(), Holder::of(other.as_ref()));
                    reasons.push(format!(
                        "agent-lock: {path} was deleted and is held by {other}; stop that, and start this agent again"
                    ));
                }
                Err(error) => reasons.push(format!("agent-lock: {error}")),
            }
        }
        if self.listener.is_none() && self.take_name().is_err() {
            reasons.push(format!(
                "agent-name: {} holds the name @{}, so that a second agent might not be noticed; end it",
                Holder::of(self.stranger.as_ref()),
                self.name
            ));
        }
        self.forget_callers();
        reasons
    }

    fn take_name(&mut self) -> Result<(), Taken> {
        let bound = SocketAddr::from_abstract_name(self.name).and_then(|name| UnixListener::bind_addr(&name));
        match bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener)) {
            Ok(listener) => {
                (self.listener, self.stranger) = (Some(listener), None);
                Ok(())
            }
            Err(_taken) => {
                let taken = Taken::by(self.name);
                if taken.holder.is_some() {
                    self.stranger.clone_from(&taken.holder);
                }
                Err(taken)
            }
        }
    }

    /// Callers get no answer: they have read the socket's credentials.
    fn forget_callers(&self) {
        while self.listener.as_ref().is_some_and(|listener| listener.accept().is_ok()) {}
    }
}

/// The agent that runs, seen from outside: nothing is held to find out, so that none is kept from starting.
pub fn running(path: &Path, name: &str) -> Option<Holder> {
    let named = Taken::by(name);
    if named.is_agent() { named.holder } else { holder(path) }
}

/// The process that has taken an abstract name.
struct Taken {
    holder: Option<Holder>,
    user: Option<u32>,
}

impl Taken {
    fn by(name: &str) -> Self {
        match credentials(name) {
            Ok((pid, user)) => Self { holder: Some(Holder::process(pid)), user: Some(user) },
            Err(_nobody_answers) => Self { holder: None, user: None },
        }
    }

    /// Agents run as root, or as this process does.
    fn is_agent(&self) -> bool {
        self.user.is_some_and(|user| user == 0 || user == geteuid().as_raw())
    }

    fn is_stranger(&self) -> bool {
        self.user.is_some() && !self.is_agent()
    }
}

/// Process and user that listen at an abstract name, as they were when it began to.
fn credentials(name: &str) -> Result<(u32, u32), Errno> {
    // A connection that has to wait for its place is refused instead.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    let peer = getsockopt(&socket, PeerCredentials)?;
    Ok((peer.pid().cast_unsigned(), peer.uid()))
}

impl From<SoleError> for io::Error {
    fn from(error: SoleError) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn a_second_agent_is_refused_by_name_also_after_the_lock_file_was_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let (path, name) = (folder.path().join("agent.lock"), "fanlight-test/deleted");
        let mut first = Sole::claim(&path, name, SHORT).unwrap();
        let own = Holder::process(std::process::id());
        for _ in 0..2 {
            let error = Sole::claim(&path, name, SHORT).unwrap_err().to_string();
            assert_eq!(error, format!("another one is running: {own}; stop it first"));
            assert_eq!(running(&path, name), Some(own.clone()));
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(first.hold(), [""; 0]);
        assert!(path.exists() && Lock::attempt(&path).unwrap().is_none());
        drop(first);
        assert_eq!(running(&path, name), None);
        Sole::claim(&path, name, SHORT).unwrap();
    }

    #[test]
    fn a_name_of_another_network_namespace_leaves_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.lock");
        let _first = Sole::claim(&path, "fanlight-test/one", SHORT).unwrap();
        let error = Sole::claim(&path, "fanlight-test/two", SHORT).unwrap_err();
        assert!(matches!(error, SoleError::Other(Some(_))), "{error}");
        assert_eq!(running(&path, "fanlight-test/two"), Some(Holder::process(std::process::id())));
    }

    #[test]
    fn a_lock_that_another_took_after_a_deletion_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.lock");
        let mut first = Sole::claim(&path, "fanlight-test/three", SHORT).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Lock::attempt(&path).unwrap().unwrap();
        assert!(first.hold().concat().contains("was deleted and is held by process "));
        drop(second);
        assert_eq!(first.hold(), [""; 0]);
    }

    #[test]
    fn many_who_ask_do_not_fill_the_queue() {
        let folder = tempfile::tempdir().unwrap();
        let (path, name) = (folder.path().join("agent.lock"), "fanlight-test/four");
        let mut sole = Sole::claim(&path, name, SHORT).unwrap();
        for _ in 0..300 {
            assert!(running(&path, name).is_some());
            assert_eq!(sole.hold(), [""; 0]);
        }
    }
}
