//! A directory of service files as a source: read as a whole, then followed file by file.
//!
//! The directory is watched, not its files: a file that is replaced by a rename is another one, whose watch would be
//! silent. What a watch does not tell (a directory that is put in the place of another, a network's file system) a look
//! finds that comes now and then.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use notify::{
    Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};

use super::{
    config::{Problem, format::Format, service::parse},
    followed::{News, Part, PartName},
};
use crate::kernel::tasks::Faults;

/// Its name among tasks.
const TASK: &str = "source";
/// How often what no watch tells of is looked for.
const CHECK: Duration = Duration::from_secs(5);
/// How often a directory that was lost is looked for.
const RETRY: Duration = Duration::from_secs(1);
/// For how long nothing happens before files are read: a file that is written in place is read once it is whole.
const QUIET: Duration = Duration::from_millis(10);
/// How long a change may wait for that.
const LATEST: Duration = Duration::from_millis(100);
/// Bytes of a file, as of a request's body.
const SIZE: u64 = 32 << 20;

/// Why the thread wakes up.
#[derive(Debug)]
enum Wake {
    /// What was opened is followed from now on.
    Begin,
    /// Files of these names may be others.
    Changed(Vec<OsString>),
    /// The watch sees nothing any more.
    Blind,
    /// Nobody wants to know any more.
    End,
}

/// A directory that is followed; it ends with the value.
#[derive(Debug)]
pub(crate) struct Running(Sender<Wake>);

impl Running {
    /// Has news told from now on. What came since it was opened is told first.
    pub(crate) fn begin(&self) {
        // A thread that has ended by a defect is told of as such.
        drop(self.0.send(Wake::Begin));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.send(Wake::End));
    }
}

/// Opens a directory: what it has now, and what follows it and tells news (whose answer is whether anybody listens)
/// once it is told to begin.
///
/// # Errors
/// The kernel gives no thread.
pub(crate) fn open(
    path: &Path,
    faults: &Faults,
    tell: impl Fn(News) -> bool + Send + 'static,
) -> io::Result<(Running, News)> {
    let (sender, wakes) = channel();
    let mut directory = Directory::new(path, sender.clone());
    let first = directory.look(&BTreeSet::new()).unwrap_or(News::Changes(Vec::new()));
    faults.keep_thread(TASK, move || directory.run(&wakes, &tell))?;
    Ok((Running(sender), first))
}

/// What files a directory has now, without following it.
///
/// # Errors
/// It can't be read.
pub(crate) fn read(path: &Path) -> io::Result<Vec<(PartName, Part)>> {
    let files = list(path)?;
    Ok(files.keys().filter_map(|name| content(path, name)).collect())
}

/// A file as it was seen.
type Stamp = [i128; 5];

/// A directory as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let there = fs::metadata(path)?;
        if !there.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let modified = (there.mtime(), there.mtime_nsec());
        Ok(Self { device: there.dev(), inode: there.ino(), modified })
    }

    fn is_same_place(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

struct Directory {
    path: PathBuf,
    wakes: Sender<Wake>,
    /// `None`: the next look begins anew.
    watch: Option<(Identity, RecommendedWatcher)>,
    seen: BTreeMap<OsString, Option<Stamp>>,
    lost: Option<String>,
    has_begun: bool,
}

impl Directory {
    fn new(path: &Path, wakes: Sender<Wake>) -> Self {
        Self {
            path: path.to_owned(),
            wakes,
            watch: None,
            seen: BTreeMap::new(),
            lost: None,
            has_begun: false,
        }
    }

    /// Follows until nobody listens.
    fn run(&mut self, wakes: &Receiver<Wake>, tell: &impl Fn(News) -> bool) {
        if self.has_begun {
            // After a defect nothing is known any more.
            self.watch = None;
        }
        while let Some(woken) = self.wait(wakes) {
            let named = woken.or_else(|| self.is_other().then(BTreeSet::new));
            let news = named.and_then(|named| self.look(&named));
            if news.is_some_and(|news| !tell(news)) {
                return;
            }
        }
    }

    /// Waits for changes, and until they have come to rest: the names of files that may be others, or nothing but the
    /// time. `None` is the end.
    fn wait(&mut self, wakes: &Receiver<Wake>) -> Option<Option<BTreeSet<OsString>>> {
        let mut named: Option<BTreeSet<OsString>> = None;
        let mut latest: Option<Instant> = None;
        loop {
            let pause = match latest {
                _ if !self.has_begun => Duration::MAX,
                Some(latest) => QUIET.min(latest.saturating_duration_since(Instant::now())),
                None if self.lost.is_some() => RETRY,
                None => CHECK,
            };
            let more = match wakes.recv_timeout(pause) {
                Ok(Wake::Changed(names)) => names,
                Ok(Wake::Begin) => {
                    self.has_begun = true;
                    Vec::new()
                }
                Ok(Wake::Blind) => {
                    self.watch = None;
                    Vec::new()
                }
                Ok(Wake::End) | Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => return Some(named),
            };
            named.get_or_insert_default().extend(more);
            latest.get_or_insert_with(|| Instant::now() + LATEST);
        }
    }

    /// Whether the directory is another one or has other files than at the last look, as far as it tells itself.
    fn is_other(&self) -> bool {
        let seen = self.watch.as_ref().map(|(seen, _)| *seen);
        seen.is_none() || Identity::of(&self.path).ok() != seen
    }

    /// Looks at what there is; gives what is other, where files of some names are read in any case.
    fn look(&mut self, named: &BTreeSet<OsString>) -> Option<News> {
        match self.find(named) {
            Ok(news) => {
                self.lost = None;
                news
            }
            Err(why) => {
                self.watch = None;
                let is_new = self.lost.as_ref() != Some(&why);
                self.lost = Some(why.clone());
                is_new.then_some(News::Lost(why))
            }
        }
    }

    fn find(&mut self, named: &BTreeSet<OsString>) -> Result<Option<News>, String> {
        let failed = |error: io::Error| error.to_string();
        let there = Identity::of(&self.path).map_err(failed)?;
        let is_anew = match &mut self.watch {
            Some((seen, _)) if seen.is_same_place(&there) => {
                *seen = there;
                false
            }
            _ => {
                // What happens after this is told, so that nothing is missed.
                self.watch = Some((there, self.watch().map_err(|error| error.to_string())?));
                self.seen.clear();
                true
            }
        };
        let files = list(&self.path).map_err(failed)?;
        let seen = std::mem::take(&mut self.seen);
        let is_other = |name: &OsString, stamp: &Option<Stamp>| {
            stamp.is_none() || named.contains(name) || seen.get(name) != Some(stamp)
        };
        let other = files.iter().filter(|(name, stamp)| is_other(name, stamp));
        let read: Vec<_> = other.filter_map(|(name, _)| content(&self.path, name)).collect();
        let gone = seen.keys().filter(|name| !files.contains_key(*name));
        let gone: Vec<_> = gone.map(|name| (part_name(&self.path, name), None)).collect();
        self.seen = files;
        if is_anew {
            return Ok(Some(News::Snapshot(read)));
        }
        let changes: Vec<_> = read.into_iter().map(|(name, part)| (name, Some(part))).chain(gone).collect();
        Ok((!changes.is_empty()).then_some(News::Changes(changes)))
    }

    fn watch(&self) -> notify::Result<RecommendedWatcher> {
        let wakes = self.wakes.clone();
        let tell = move |event: notify::Result<Event>| {
            let wake = match event {
                Ok(event) if is_reading(event.kind) => return,
                Ok(event) => Wake::Changed(
                    event.paths.iter().filter_map(|path| path.file_name()).map(OsStr::to_owned).collect(),
                ),
                Err(error) => {
                    tracing::debug!("{error}");
                    Wake::Blind
                }
            };
            // The thread ends before its watch.
            drop(wakes.send(wake));
        };
        let mut watcher = RecommendedWatcher::new(tell, Config::default())?;
        watcher.watch(&self.path, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

/// Whether somebody only reads, as the agent itself does.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// The service files of a directory; `None` for one that can't be looked at.
fn list(path: &Path) -> io::Result<BTreeMap<OsString, Option<Stamp>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if format_of(&name).is_none() {
            continue;
        }
        let stamp = fs::metadata(entry.path()).ok().map(|there| stamp(&there));
        files.insert(name, stamp);
    }
    Ok(files)
}

fn stamp(there: &Metadata) -> Stamp {
    let time = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (modified, changed) =
        (time(there.mtime(), there.mtime_nsec()), time(there.ctime(), there.ctime_nsec()));
    [i128::from(there.dev()), i128::from(there.ino()), i128::from(there.size()), modified, changed]
}

/// What a file of services is written in; `None` for other files: hidden ones, backups, and unfinished copies of editors.
fn format_of(name: &OsStr) -> Option<Format> {
    let name = Path::new(name);
    if name.as_os_str().as_encoded_bytes().starts_with(b".") {
        return None;
    }
    name.extension().and_then(OsStr::to_str).and_then(Format::of_extension)
}

fn part_name(folder: &Path, name: &OsStr) -> PartName {
    folder.join(name).to_string_lossy().into()
}

/// What a file says; `None` where it has gone meanwhile.
fn content(folder: &Path, name: &OsStr) -> Option<(PartName, Part)> {
    let path = folder.join(name);
    let format = format_of(name)?;
    let part = match text(&path) {
        Ok(text) => parse(&text, format),
        // A link that leads nowhere is there, and says nothing.
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&path).is_err() => {
            return None;
        }
        Err(error) => {
            let why = format!("can't be read: {error}; make it a readable text file, or take it away");
            Err(vec![Problem::general(why)])
        }
    };
    Some((part_name(folder, name), part))
}

fn text(path: &Path) -> io::Result<String> {
    // A pipe in a file's place is opened without a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    if File::take(file, SIZE + 1).read_to_string(&mut text)? as u64 > SIZE {
        return Err(io::Error::other(format!("it has more than {} MiB", SIZE >> 20)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
