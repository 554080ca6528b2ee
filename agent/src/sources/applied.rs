//! What was applied, kept over restarts: a log of changes in `/var/lib/fanlight`, synced before a change takes effect.
//!
//! Each line is one request's changes with a hash over them: a request is kept as a whole or not at all. One change
//! costs one short write, however many services there are; the log is written anew, beside the old one, when most of
//! it is history. A line that ends without its line break was cut short before anybody was told that it is kept; any
//! other line that can't be read is damage: the log is put aside, and the kernel's services that nobody names any
//! more stay there until somebody has put it right. A log of a later version is left alone, and nothing is served
//! from it. A value of [`Store`] is a log that was read: nothing else is ever written to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use control::{desired::Change, model::fnv1a};
use thiserror::Error;

use crate::kernel::replace::{put_synced, sync_folder};

/// Where the agent keeps what it must not forget.
pub(crate) const FOLDER: &str = "/var/lib/fanlight";

const NAME: &str = "services";
const ASIDE: &str = "services.damaged";
/// What the first line begins with; the version of the lines follows.
const MAGIC: &[u8] = b"fanlight services ";
/// The latest version: it has checks.
const VERSION: u32 = 3;
/// The version before: it has named VIPs, and contributed backends.
const NAMED: u32 = 2;
/// The version of a log that has nothing that came later.
const FIRST: u32 = 1;
/// History that is not worth a new log.
const SLACK: u64 = 1 << 20;

/// Why the log can't be used. It stands as it did.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// A later version wrote it.
    #[error(
        "{}: a later fanlight wrote it (version {found} of the log; this one reads {VERSION}); run that one, or move \
         the file away to begin without its services",
        path.display()
    )]
    Newer {
        /// The log.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The system refuses.
    #[error("{}: {source}; make it readable and writable", path.display())]
    Io {
        /// The log, or its folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The log, read as a whole.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    /// `None` while there is none.
    file: Option<File>,
    /// Of its lines.
    version: u32,
    /// Bytes of whole lines.
    length: u64,
    /// Bytes of it when it was written anew.
    fresh: u64,
    /// More may follow than whole lines of requests that were kept.
    has_failed: bool,
    /// Waits until the disk holds what was written.
    sync: fn(&File) -> io::Result<()>,
}

/// What a log says.
#[derive(Debug, PartialEq, Eq)]
enum Contents {
    /// Changes, the bytes that they take, a line cut short may follow, and the version.
    Whole(Vec<Change>, u64, u32),
    /// The number of the first line that can't be read.
    Damaged(usize),
    /// Lines of a later version.
    Newer(u32),
}

impl Store {
    fn missing(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            file: None,
            version: FIRST,
            length: 0,
            fresh: 0,
            has_failed: false,
            sync: File::sync_data,
        }
    }

    /// Reads the log of a folder: the changes that it holds.
    ///
    /// # Errors
    /// A later version wrote it, or the system refuses.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Vec<Change>), StoreError> {
        let failed = |source| StoreError::Io { path: folder.join(NAME), source };
        fs::create_dir_all(folder).map_err(|source| StoreError::Io { path: folder.to_owned(), source })?;
        let mut store = Self::missing(folder);
        let path = store.path();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((store, Vec::new())),
            other => other.map_err(failed)?,
        };
        match read(&bytes) {
            Contents::Whole(changes, length, version) => {
                let file = OpenOptions::new().append(true).open(&path).map_err(failed)?;
                if length < bytes.len() as u64 {
                    tracing::warn!("{}: its last change was cut short and never made", path.display());
                    file.set_len(length).map_err(failed)?;
                }
                // All of it may be history: it is written anew soon.
                (store.file, store.length, store.version) = (Some(file), length, version);
                Ok((store, changes))
            }
            Contents::Newer(found) => Err(StoreError::Newer { path, found }),
            Contents::Damaged(line) => {
                let aside = store.aside();
                tracing::error!(
                    "{}: line {line} can't be read; it is kept as {}",
                    path.display(),
                    aside.display()
                );
                fs::rename(&path, &aside).map_err(failed)?;
                Ok((store, Vec::new()))
            }
        }
    }

    /// Keeps changes; when this fails, none of them, after a restart neither.
    pub(crate) fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        let line = line(changes)?;
        self.mend()?;
        let version = version_of(changes);
        if self.file.is_none() {
            self.replace(version, b"")?;
        } else if version > self.version {
            // An earlier fanlight is told so by the first line, and leaves it alone.
            let bytes = fs::read(self.path())?;
            let whole =
                usize::try_from(self.length).map_or(&bytes[..], |length| &bytes[..length.min(bytes.len())]);
            let lines = whole.iter().position(|&byte| byte == b'\n').map_or(&[][..], |end| &whole[end + 1..]);
            self.replace(version, lines)?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = file.write_all(&line).and_then(|()| (self.sync)(file)) {
            // The disk may hold it all the same, and a restart would find it.
            self.has_failed = true;
            if let Err(error) = self.mend() {
                tracing::error!("{}: {error}", self.path().display());
            }
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Takes off the end what was refused, and proves it; nothing where nothing failed.
    pub(crate) fn mend(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.has_failed) else { return Ok(()) };
        file.set_len(self.length)?;
        (self.sync)(file)?;
        if file.metadata()?.len() != self.length {
            return Err(io::Error::other("its end can't be cut off"));
        }
        self.has_failed = false;
        Ok(())
    }

    /// Whether a crash could bring back a change that was refused.
    pub(crate) fn is_unsure(&self) -> bool {
        self.has_failed
    }

    /// Whether most of the log is history.
    pub(crate) fn is_long(&self) -> bool {
        self.length > self.fresh * 2 + SLACK
    }

    /// Writes a log of these changes in place of the old one; a reader finds one or the other.
    pub(crate) fn rewrite(&mut self, changes: &[Change]) -> io::Result<()> {
        self.replace(version_of(changes), &line(changes)?)
    }

    fn replace(&mut self, version: u32, lines: &[u8]) -> io::Result<()> {
        let bytes = [&header(version), lines].concat();
        self.file = Some(put_synced(&self.path(), &bytes, self.sync)?);
        self.version = version;
        (self.length, self.fresh) = (bytes.len() as u64, bytes.len() as u64);
        self.has_failed = false;
        sync_folder(&self.path())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    fn aside(&self) -> PathBuf {
        let names =
            (1..).map(|number| if number == 1 { ASIDE.to_owned() } else { format!("{ASIDE}-{number}") });
        let mut paths = names.map(|name| self.folder.join(name));
        paths.find(|path| !path.exists()).unwrap_or_else(|| self.folder.join(ASIDE))
    }
}

/// Logs of a folder that were put aside and that nobody has dealt with.
pub(crate) fn damaged(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let aside = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE));
    let mut paths: Vec<PathBuf> = aside.map(|entry| entry.path()).collect();
    paths.sort_unstable();
    paths
}

fn header(version: u32) -> Vec<u8> {
    [MAGIC, format!("{version}\n").as_bytes()].concat()
}

/// The first version that has all of these changes.
fn version_of(changes: &[Change]) -> u32 {
    let version = |change: &Change| match change {
        Change::Set(service) if service.checking.is_some() => VERSION,
        Change::Set(service) if service.vip.name().is_none() => FIRST,
        Change::Set(_) | Change::Since(..) | Change::Offer(..) | Change::Withdraw(..) => NAMED,
        Change::Remove(_) | Change::Drain(..) | Change::Undrain(..) => FIRST,
    };
    changes.iter().map(version).max().unwrap_or(FIRST)
}

fn line(changes: &[Change]) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(changes)?;
    let mut line = format!("{:016x} ", fnv1a(&json)).into_bytes();
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

fn read(bytes: &[u8]) -> Contents {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let version = match version(&bytes[..whole]) {
        Some(found) if found > VERSION => return Contents::Newer(found),
        Some(version @ FIRST..) => version,
        _ => return Contents::Damaged(1),
    };
    let Some(lines) = bytes[..whole].strip_prefix(&*header(version)) else { return Contents::Damaged(1) };
    let mut changes = Vec::new();
    for (line, number) in lines.split_inclusive(|&byte| byte == b'\n').zip(2..) {
        match parse(line) {
            Some(more) => changes.extend(more),
            None => return Contents::Damaged(number),
        }
    }
    Contents::Whole(changes, whole as u64, version)
}

/// The version that the first line names.
fn version(lines: &[u8]) -> Option<u32> {
    let first = lines.split(|&byte| byte == b'\n').next()?;
    std::str::from_utf8(first.strip_prefix(MAGIC)?).ok()?.parse().ok()
}

fn parse(line: &[u8]) -> Option<Vec<Change>> {
    let (hashed, json) = line.strip_suffix(b"\n")?.split_at_checked(17)?;
    let hashed = std::str::from_utf8(hashed).ok()?.strip_suffix(' ')?;
    let is_whole = u64::from_str_radix(hashed, 16).is_ok_and(|hashed| hashed == fnv1a(json));
    if is_whole { serde_json::from_slice(json).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(name: &str) -> Change {
        Change::Drain(name.to_owned(), ([250, 0, 28, 2], 80).into())
    }

    fn open(folder: &Path) -> (Store, Vec<Change>) {
        Store::open(folder).unwrap()
    }

    fn broken(_file: &File) -> io::Result<()> {
        Err(io::Error::other("the disk is broken"))
    }

    /// A folder with a log of two requests, and its bytes.
    fn log() -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, changes) = open(folder.path());
        assert_eq!(changes, []);
        store.append(&[change("a"), change("b")]).unwrap();
        store.append(&[change("c")]).unwrap();
        let bytes = fs::read(store.path()).unwrap();
        (folder, bytes)
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let (folder, _) = log();
        let (mut store, changes) = open(folder.path());
        assert_eq!(changes, ["a", "b", "c"].map(change));
        store.append(&[change("d")]).unwrap();
        assert_eq!(open(folder.path()).1, ["a", "b", "c", "d"].map(change));
        store.rewrite(&[change("e")]).unwrap();
        store.append(&[change("f")]).unwrap();
        assert_eq!(open(folder.path()).1, ["e", "f"].map(change));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_log_is_put_aside_and_told_until_somebody_takes_it_away() {
        let (folder, bytes) = log();
        let path = folder.path().join(NAME);
        for name in [ASIDE, "services.damaged-2"] {
            let mut bytes = bytes.clone();
            bytes[60] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let (_, changes) = open(folder.path());
            assert_eq!((changes, path.exists()), (vec![], false));
            assert_eq!(fs::read(folder.path().join(name)).unwrap(), bytes);
            assert!(damaged(folder.path()).contains(&folder.path().join(name)));
        }
        let (mut store, _) = open(folder.path());
        store.append(&[change("a")]).unwrap();
        damaged(folder.path()).iter().for_each(|path| fs::remove_file(path).unwrap());
        assert!(damaged(folder.path()).is_empty() && path.exists());
    }

    #[test]
    fn a_change_whose_sync_failed_is_not_there_after_a_restart() {
        let (folder, bytes) = log();
        let (mut store, _) = open(folder.path());
        store.sync = broken;
        assert!(store.append(&[change("refused")]).is_err() && store.is_unsure());
        assert_eq!(open(folder.path()).1, ["a", "b", "c"].map(change));
        assert_eq!(fs::read(store.path()).unwrap(), bytes);
        assert!(store.append(&[change("refused")]).is_err());
        store.sync = File::sync_data;
        store.mend().unwrap();
        assert!(!store.is_unsure());
        store.append(&[change("d")]).unwrap();
        assert_eq!(open(folder.path()).1, ["a", "b", "c", "d"].map(change));
    }

    #[test]
    fn the_first_change_of_a_log_is_refused_as_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = open(folder.path());
        // The log is made, and its first line is not kept.
        store.append(&[]).unwrap();
        store.sync = broken;
        store.append(&[change("refused")]).unwrap_err();
        assert_eq!(open(folder.path()).1, []);
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = open(folder.path());
        store.sync = broken;
        store.append(&[change("refused")]).unwrap_err();
        assert_eq!(open(folder.path()).1, []);
    }

    #[test]
    fn a_log_of_a_later_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        fs::write(&path, "fanlight services 7\nwhatever\n").unwrap();
        let error = Store::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("version 7 of the log; this one reads 3"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"fanlight services 7\nwhatever\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_log_is_of_a_later_version_once_it_has_what_earlier_ones_do_not_know() {
        let (folder, bytes) = log();
        let named = Change::Since("a".to_owned(), 7);
        let first_line =
            || fs::read_to_string(folder.path().join(NAME)).unwrap().lines().next().unwrap().to_owned();
        let (mut store, _) = open(folder.path());
        assert_eq!(first_line(), "fanlight services 1");
        store.append(std::slice::from_ref(&named)).unwrap();
        store.append(&[change("d")]).unwrap();
        assert_eq!(first_line(), "fanlight services 2");
        let all = [change("a"), change("b"), change("c"), named, change("d")];
        let (mut store, changes) = open(folder.path());
        assert_eq!(changes, all);
        store.rewrite(&[change("e")]).unwrap();
        assert_eq!(first_line(), "fanlight services 1", "an earlier one can read it again");
        // What fails on the way leaves the log as it was.
        fs::write(store.path(), &bytes).unwrap();
        let (mut store, _) = open(folder.path());
        store.sync = broken;
        store.append(&[Change::Since("a".to_owned(), 7)]).unwrap_err();
        assert_eq!(fs::read(store.path()).unwrap(), bytes);
    }

    #[test]
    fn a_log_that_was_not_read_is_not_written() {
        let (folder, bytes) = log();
        let path = folder.path().join(NAME);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(Store::open(folder.path()), Err(StoreError::Io { .. })));
        fs::remove_dir(&path).unwrap();
        fs::write(&path, &bytes).unwrap();
        assert_eq!(open(folder.path()).1, ["a", "b", "c"].map(change));
    }

    #[test]
    fn a_log_that_is_mostly_history_is_long() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = open(folder.path());
        store.append(&[change("a")]).unwrap();
        assert!(!store.is_long());
        store.append(&vec![change("b"); 40_000]).unwrap();
        assert!(store.is_long());
        store.rewrite(&[change("a")]).unwrap();
        assert!(!store.is_long());
    }

    proptest! {
        #[test]
        fn a_log_cut_short_holds_whole_requests_and_is_continued(cut in 0..200_usize) {
            let (folder, bytes) = log();
            let path = folder.path().join(NAME);
            let rest = bytes.len().saturating_sub(cut).max(header(FIRST).len());
            fs::write(&path, &bytes[..rest]).unwrap();
            let (mut store, before) = open(folder.path());
            let all = ["a", "b", "c"].map(change);
            prop_assert!([0, 2, 3].contains(&before.len()) && all.starts_with(&before), "{:?}", before);
            store.append(&[change("d")]).unwrap();
            prop_assert_eq!(open(folder.path()).1, [before, vec![change("d")]].concat());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _contents = read(&[header(FIRST), bytes.clone()].concat());
            let _contents = read(&bytes);
        }
    }
}
