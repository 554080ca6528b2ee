//! Replaces a file as a whole, so that it outlives a crash of the system.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// Files that were not there before are their owner's alone.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o755;

/// Replaces a file: a reader, also one after a crash, finds the old contents or the new ones. Owner and permissions stay.
///
/// # Errors
/// The system refuses.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    put(path, contents)?;
    sync_folder(path)
}

/// The first part of [`replace`]: after a crash, the old contents may be back until [`sync_folder`] is done. Gives the new
/// file, to be written on at its end.
///
/// # Errors
/// The system refuses; the old file is as it was.
pub fn put(path: &Path, contents: &[u8]) -> io::Result<File> {
    put_synced(path, contents, File::sync_all)
}

/// The same with another way to sync the file.
///
/// # Errors
/// As there.
pub fn put_synced(path: &Path, contents: &[u8], sync: fn(&File) -> io::Result<()>) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder(path))?;
    let fresh = beside(path);
    remove(&fresh)?;
    let mut file = OpenOptions::new().append(true).create_new(true).mode(MODE).open(&fresh)?;
    let written = keep_owner(path, &file)
        .and_then(|()| file.write_all(contents))
        .and_then(|()| sync(&file))
        .and_then(|()| fs::rename(&fresh, path));
    if let Err(error) = written {
        let _left = remove(&fresh);
        return Err(error);
    }
    Ok(file)
}

/// Syncs a file's folder, so that the file's name survives a power failure.
///
/// # Errors
/// The system refuses.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// Removes a file; one that is not there is fine.
///
/// # Errors
/// The system refuses.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// One name a file: what a crash left there is replaced by the next attempt.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(".new");
    path.with_file_name(name)
}

fn keep_owner(former: &Path, file: &File) -> io::Result<()> {
    let former = match fs::metadata(former) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        former => former?,
    };
    let own = file.metadata()?;
    if (former.uid(), former.gid()) != (own.uid(), own.gid()) {
        fchown(file, Some(former.uid()), Some(former.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(former.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn contents_change_and_owner_and_permissions_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/state.json");
        replace(&path, b"one").unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"one".to_vec(), 0o600));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        // Only root may give a file away.
        let _given = std::os::unix::fs::chown(&path, None, Some(1));
        let owner = fs::metadata(&path).unwrap().gid();
        put(&path, b"two").unwrap().write_all(b", three").unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"two, three".to_vec(), 0o640));
        assert_eq!(fs::metadata(&path).unwrap().gid(), owner);
    }

    #[test]
    fn what_a_crash_left_is_no_obstacle_and_nothing_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        fs::write(folder.path().join("state.json.new"), "half").unwrap();
        replace(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"text").is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
