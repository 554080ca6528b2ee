//! What was applied, kept over restarts: a log of changes in `/var/lib/fanlight`, synced before a change takes effect.
//!
//! Each line is one request's changes with a hash over them: a request is kept as a whole or not at all. One change
//! costs one short write, however many services there are; the log is written anew, beside the old one, when most of
//! it is history. A line that ends without its line break was cut short before anybody was told that it is kept; any
//! other line that can't be read is damage: the log is put aside, and the kernel's services that nobody names any
//! more stay there until somebody has put it right.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use control::{model::fnv1a, service::Change};

use crate::kernel::replace::{put, sync_folder};

/// Where the agent keeps what it must not forget.
pub(crate) const FOLDER: &str = "/var/lib/fanlight";

const NAME: &str = "services";
const ASIDE: &str = "services.damaged";
/// First line: what it is, and the version of its lines.
const HEADER: &str = "fanlight services 1\n";
/// History that is not worth a new log.
const SLACK: u64 = 1 << 20;

/// The log.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    file: Option<File>,
    /// Bytes of whole lines.
    length: u64,
    /// Bytes of it when it was written anew.
    fresh: u64,
    /// A part of a line may follow.
    has_failed: bool,
}

/// What a log says.
#[derive(Debug, PartialEq, Eq)]
enum Contents {
    /// Changes, and the bytes that they take: a line cut short may follow.
    Whole(Vec<Change>, u64),
    /// The number of the first line that can't be read.
    Damaged(usize),
}

impl Store {
    /// The log of a folder, not yet read.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: None, length: 0, fresh: 0, has_failed: false }
    }

    /// Reads the changes that the log holds, and goes on with it as it stands on disk.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn load(&mut self) -> io::Result<Vec<Change>> {
        fs::create_dir_all(&self.folder)?;
        *self = Self::new(&self.folder);
        let path = self.path();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        match read(&bytes) {
            Contents::Whole(changes, length) => {
                let file = OpenOptions::new().append(true).open(&path)?;
                if length < bytes.len() as u64 {
                    tracing::warn!("{}: its last change was cut short and never made", path.display());
                    file.set_len(length)?;
                }
                // All of it may be history: it is written anew soon.
                (self.file, self.length) = (Some(file), length);
                Ok(changes)
            }
            Contents::Damaged(line) => {
                let aside = self.aside();
                let (path, kept) = (path.display(), aside.display());
                tracing::error!("{path}: line {line} can't be read; it is kept as {kept}");
                fs::rename(self.path(), &aside)?;
                Ok(Vec::new())
            }
        }
    }

    /// Keeps changes; when this fails, none of them.
    pub(crate) fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        if self.file.is_none() {
            return self.rewrite(changes);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let line = line(changes)?;
        // What was written of one that failed must not stand before the next.
        if std::mem::replace(&mut self.has_failed, true) {
            file.set_len(self.length)?;
        }
        file.write_all(&line)?;
        file.sync_data()?;
        self.has_failed = false;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Whether most of the log is history.
    pub(crate) fn is_long(&self) -> bool {
        self.length > self.fresh * 2 + SLACK
    }

    /// Writes a log of these changes in place of the old one; a reader finds one or the other.
    pub(crate) fn rewrite(&mut self, changes: &[Change]) -> io::Result<()> {
        let bytes = [HEADER.as_bytes(), &line(changes)?].concat();
        self.file = Some(put(&self.path(), &bytes)?);
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

fn line(changes: &[Change]) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(changes)?;
    let mut line = format!("{:016x} ", fnv1a(&json)).into_bytes();
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

fn read(bytes: &[u8]) -> Contents {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let Some(lines) = bytes[..whole].strip_prefix(HEADER.as_bytes()) else { return Contents::Damaged(1) };
    let mut changes = Vec::new();
    for (line, number) in lines.split_inclusive(|&byte| byte == b'\n').zip(2..) {
        match parse(line) {
            Some(more) => changes.extend(more),
            None => return Contents::Damaged(number),
        }
    }
    Contents::Whole(changes, whole as u64)
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
        let mut store = Store::new(folder);
        let changes = store.load().unwrap();
        (store, changes)
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
            let rest = bytes.len().saturating_sub(cut).max(HEADER.len());
            fs::write(&path, &bytes[..rest]).unwrap();
            let (mut store, before) = open(folder.path());
            let all = ["a", "b", "c"].map(change);
            prop_assert!([0, 2, 3].contains(&before.len()) && all.starts_with(&before), "{:?}", before);
            store.append(&[change("d")]).unwrap();
            prop_assert_eq!(open(folder.path()).1, [before, vec![change("d")]].concat());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _contents = read(&[HEADER.as_bytes(), &bytes].concat());
            let _contents = read(&bytes);
        }
    }
}
