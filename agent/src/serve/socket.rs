//! The socket's file: root's alone, never another program's.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, symlink},
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

/// A bound socket; its file goes with the value, unless another has taken its place.
#[derive(Debug)]
pub struct Socket {
    /// Its file and, where it is elsewhere, a link from the usual place.
    files: Vec<Placed>,
    path: PathBuf,
    pub(super) listener: UnixListener,
}

/// A file of ours, known by its device and number.
#[derive(Debug)]
struct Placed {
    path: PathBuf,
    id: (u64, u64),
}

impl Placed {
    fn at(path: &Path) -> io::Result<Self> {
        let there = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), id: (there.dev(), there.ino()) })
    }
}

impl Socket {
    /// Binds a path, reached from the usual place too; a killed agent's socket is replaced, and so is the `present` one
    /// of this process. The caller holds the agent's lock.
    ///
    /// # Errors
    /// Something else is there, or the system refuses; a present socket goes on as it was.
    pub fn bind(path: &Path, present: Option<&Self>) -> Result<Self, SocketError> {
        Self::bind_with_link(path, Path::new(SOCKET), present)
    }

    pub(super) fn bind_with_link(
        path: &Path,
        usual: &Path,
        present: Option<&Self>,
    ) -> Result<Self, SocketError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SocketError::Io { path, source }
        };
        for path in [path, usual] {
            if present.is_none_or(|present| !present.is_at(path)) {
                check_free(path)?;
            }
            let folder = path.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        let listener = bind_private(path).map_err(failed(path))?;
        let file = Placed::at(path).map_err(failed(path))?;
        let mut socket = Self { path: path.to_owned(), files: vec![file], listener };
        if path != usual {
            let fresh = usual.with_extension("new");
            remove(&fresh).and_then(|()| symlink(path, &fresh)).map_err(failed(&fresh))?;
            let link = Placed::at(&fresh).map_err(failed(&fresh))?;
            fs::rename(&fresh, usual).map_err(failed(usual))?;
            socket.files.push(Placed { path: usual.to_owned(), ..link });
        }
        Ok(socket)
    }

    /// Whether a file is this socket's.
    fn is_at(&self, path: &Path) -> bool {
        Placed::at(path).is_ok_and(|there| self.files.iter().any(|own| own.id == there.id))
    }

    /// Whether clients still find it.
    pub fn is_in_place(&self) -> bool {
        self.files.iter().all(|own| Placed::at(&own.path).is_ok_and(|there| there.id == own.id))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        for Placed { path, .. } in self.files.iter().rev().filter(|own| self.is_at(&own.path)) {
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
        Socket::bind_with_link(path, &path.with_file_name("usual.sock"), None)
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
    fn a_socket_moves_without_a_moment_in_which_nobody_listens_at_the_usual_place() {
        let folder = tempfile::tempdir().unwrap();
        let [usual, first, second] =
            ["usual.sock", "first.sock", "second.sock"].map(|name| folder.path().join(name));
        let mut present = Socket::bind_with_link(&usual, &usual, None).unwrap();
        for path in [&first, &second, &usual] {
            let next = Socket::bind_with_link(path, &usual, Some(&present)).unwrap();
            assert!(UnixStream::connect(&usual).is_ok());
            drop(std::mem::replace(&mut present, next));
            assert!(UnixStream::connect(&usual).is_ok() && UnixStream::connect(path).is_ok());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // One that can't be bound leaves the present one as it was.
        fs::write(&first, "mine").unwrap();
        Socket::bind_with_link(&first, &usual, Some(&present)).unwrap_err();
        assert!(UnixStream::connect(&usual).is_ok());
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

    #[test]
    fn a_deleted_socket_or_link_is_noticed_and_bound_again_beside_the_former() {
        let folder = tempfile::tempdir().unwrap();
        let (path, usual) = (folder.path().join("api.sock"), folder.path().join("usual.sock"));
        let mut socket = Socket::bind_with_link(&path, &usual, None).unwrap();
        for deleted in [&path, &usual, &path] {
            assert!(socket.is_in_place());
            fs::remove_file(deleted).unwrap();
            assert!(!socket.is_in_place());
            // The former goes after its successor has come, and takes nothing of it along.
            socket = Socket::bind_with_link(&path, &usual, Some(&socket)).unwrap();
            assert!(UnixStream::connect(&usual).is_ok());
        }
    }
}
