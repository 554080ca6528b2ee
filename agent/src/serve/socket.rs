//! The socket's file: root's alone, never another program's.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, symlink},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::sys::stat::{Mode, umask};

use crate::sources::config::SOCKET;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path leads to something else.
    #[error("API socket {}: {what} is there; remove it, or set another path in api.socket", path.display())]
    Taken {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// The system refuses.
    #[error("API socket {}: {source}; make its folder writable, or set another path in api.socket", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A bound socket; its file goes with the value.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// A link from the usual place.
    link: Option<PathBuf>,
    pub(super) listener: UnixListener,
}

impl Socket {
    /// Binds a path, reached from the usual place too; a killed agent's socket is replaced. The caller holds the
    /// agent's lock.
    ///
    /// # Errors
    /// Something else is there, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        Self::bind_with_link(path, Path::new(SOCKET))
    }

    pub(super) fn bind_with_link(path: &Path, usual: &Path) -> Result<Self, SocketError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SocketError::Io { path, source }
        };
        for path in [path, usual] {
            check_free(path)?;
            let folder = path.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        let listener = bind_private(path).map_err(failed(path))?;
        let mut socket = Self { path: path.to_owned(), link: None, listener };
        if path != usual {
            let fresh = usual.with_extension("new");
            remove(&fresh).and_then(|()| symlink(path, &fresh)).map_err(failed(&fresh))?;
            fs::rename(&fresh, usual).map_err(failed(usual))?;
            socket.link = Some(usual.to_owned());
        }
        Ok(socket)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        for path in self.link.iter().chain([&self.path]) {
            if let Err(error) = remove(path) {
                tracing::debug!("{}: {error}", path.display());
            }
        }
    }
}

/// A socket that nobody listens to and a link are ours: the lock says that no other agent runs.
fn check_free(path: &Path) -> Result<(), SocketError> {
    let taken = |what| Err(SocketError::Taken { path: path.to_owned(), what });
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_symlink() => Ok(()),
        Ok(there) if !there.file_type().is_socket() => taken("a file"),
        Ok(_) if UnixStream::connect(path).is_ok() => taken("another program's socket"),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SocketError::Io { path: path.to_owned(), source }),
    }
}

/// Binds beside the path and moves there, so that clients find the old socket or one that listens, and that only its
/// owner ever may connect.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let fresh = path.with_extension("new");
    remove(&fresh)?;
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(&fresh);
    umask(before);
    let listener = bound?;
    listener.set_nonblocking(true)?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn bind(path: &Path) -> Result<Socket, SocketError> {
        Socket::bind_with_link(path, &path.with_file_name("usual.sock"))
    }

    #[test]
    fn only_its_owner_may_connect_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/api.sock");
        let socket = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(path.with_file_name("usual.sock")).is_ok());
        drop(socket);
        assert_eq!(fs::read_dir(folder.path().join("run")).unwrap().count(), 0);
    }

    #[test]
    fn a_killed_agents_socket_is_replaced_and_a_living_ones_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        drop(UnixListener::bind(&path).unwrap());
        let living = bind(&path).unwrap();
        let error = bind(&path).unwrap_err().to_string();
        assert!(error.contains("another program's socket is there; remove it"), "{error}");
        drop(living);
        fs::write(&path, "mine").unwrap();
        assert!(bind(&path).unwrap_err().to_string().contains("a file is there"));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
