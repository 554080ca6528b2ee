//! Network namespaces: opened by name, and entered on threads of their own.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    thread,
};

use nix::sched::{CloneFlags, setns};

/// Where `ip netns add` mounts namespaces.
pub const NAMED: &str = "/run/netns";

/// Why a namespace can't be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// It can't be opened.
    #[error("namespace '{name}': {source}; give a name from `ip netns`, a path, or pid:N")]
    Open {
        /// As it was given.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The file is no network namespace.
    #[error(
        "namespace '{name}': it is not a network namespace; give a name from `ip netns`, a path, or pid:N"
    )]
    OtherKind {
        /// As it was given.
        name: String,
    },
    /// It can't be entered.
    #[error("namespace '{name}' can't be entered: {source}")]
    Enter {
        /// As it was given.
        name: String,
        /// Why not.
        source: io::Error,
    },
}

/// An open network namespace: it lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Opens a namespace by its name under `/run/netns`, by a path, or by a process as `pid:N`.
    ///
    /// # Errors
    /// There is none.
    pub fn open(name: &str) -> Result<Self, NetnsError> {
        let failed = |source| NetnsError::Open { name: name.to_owned(), source };
        let file = File::open(path_of(name).map_err(failed)?).map_err(failed)?;
        let netns = Self { name: name.to_owned(), file };
        if !netns.is_network_namespace() {
            return Err(NetnsError::OtherKind { name: name.to_owned() });
        }
        Ok(netns)
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// `/proc` isn't mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// As it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Device and inode number: equal for equal namespaces.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Runs `work` on a new thread inside the namespace. The calling thread stays where it is.
    ///
    /// # Errors
    /// The namespace can't be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let failed = |source| NetnsError::Enter { name: self.name.clone(), source };
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                Ok::<T, nix::Error>(work())
            });
            match worker.join() {
                Ok(result) => result.map_err(|errno| failed(errno.into())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs the future that `work` makes on a new thread inside the namespace, with a tokio runtime of its own
    /// (a [`Netlink`](super::netlink::Netlink) opened there belongs to the namespace).
    ///
    /// # Errors
    /// The namespace can't be entered, or there is no runtime to be had.
    pub fn run_async<T: Send, F: Future<Output = T>>(
        &self,
        work: impl FnOnce() -> F + Send,
    ) -> Result<T, NetnsError> {
        let outcome = self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(async { work().await }))
        })?;
        outcome.map_err(|source| NetnsError::Enter { name: self.name.clone(), source })
    }

    fn is_network_namespace(&self) -> bool {
        use std::os::fd::AsRawFd;
        // SAFETY: the ioctl takes no argument and only reads the open descriptor.
        let kind = unsafe { libc::ioctl(self.file.as_raw_fd(), NS_GET_NSTYPE) };
        kind == libc::CLONE_NEWNET
    }
}

/// `_IO(0xb7, 3)` of `linux/nsfs.h`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn path_of(name: &str) -> io::Result<PathBuf> {
    if let Some(pid) = name.strip_prefix("pid:") {
        let pid: u32 = pid.parse().map_err(|_unparsable| {
            io::Error::new(io::ErrorKind::InvalidInput, "pid: takes a process number")
        })?;
        return Ok(PathBuf::from(format!("/proc/{pid}/ns/net")));
    }
    if name.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is empty"));
    }
    Ok(if name.contains('/') { PathBuf::from(name) } else { PathBuf::from(NAMED).join(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_in_run_netns_and_a_path_or_pid_where_it_says() {
        assert_eq!(path_of("blue").unwrap(), PathBuf::from("/run/netns/blue"));
        assert_eq!(path_of("/proc/1/ns/net").unwrap(), PathBuf::from("/proc/1/ns/net"));
        assert_eq!(path_of("pid:7").unwrap(), PathBuf::from("/proc/7/ns/net"));
        assert!(path_of("pid:x").is_err());
        assert!(path_of("").is_err());
    }

    #[test]
    fn a_file_that_is_no_network_namespace_is_refused() {
        let error = Netns::open("/proc/self/ns/mnt").unwrap_err();
        assert!(error.to_string().contains("not a network namespace"), "{error}");
        let error = Netns::open("no-such-namespace").unwrap_err();
        assert!(error.to_string().contains("ip netns"), "{error}");
    }
}
