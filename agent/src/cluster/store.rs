//! What this node has of the cluster's logs, on disk: `cluster.redb` in the data folder.
//!
//! A thread of its own writes: each step of the core is a transaction, those that wait become one. What rests on a step (an
//! acknowledgement, a message) waits until the thread says that it is stored. What can't be written is tried again, and
//! nothing that rests on it leaves the node meanwhile.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::mpsc as jobs,
    thread,
    time::Duration,
};

use control::cluster::log::{Effects, Item, Key, SignedHead};
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition,
};
use tokio::sync::mpsc;

const FILE: &str = "cluster.redb";
const DAMAGED: &str = "cluster.redb.damaged";
/// Entries by origin, slot and key.
const ENTRIES: TableDefinition<'_, (&str, u32, &[u8]), &[u8]> = TableDefinition::new("entries");
/// Heads by origin and slot.
const HEADS: TableDefinition<'_, (&str, u32), &[u8]> = TableDefinition::new("heads");
/// From one attempt to write to the next.
const AGAIN: Duration = Duration::from_secs(1);
/// Memory for pages that were read: the logs are in memory already.
const CACHE: usize = 4 << 20;

/// A log as it was stored: slot, head, entries.
pub(super) type StoredLog = (u32, SignedHead, Vec<(Key, Item)>);

/// What the thread tells.
#[derive(Debug)]
pub(super) enum Told {
    /// All steps up to this one are stored.
    UpTo(u64),
    /// They can't be written.
    Failing(String),
}

/// The store, open.
pub(super) struct Store {
    steps: jobs::Sender<(u64, Effects)>,
    pub(super) told: mpsc::UnboundedReceiver<Told>,
    path: PathBuf,
    /// Where a damaged store was put.
    pub(super) damaged: PathBuf,
}

impl Store {
    /// Opens the store, and reads all that is in it. A damaged one is put aside: what was in it comes back from members.
    ///
    /// # Errors
    /// The file can't be read or made, in words with a remedy.
    pub(super) fn open(data: &Path) -> Result<(Self, Vec<StoredLog>), String> {
        let (path, damaged) = (data.join(FILE), data.join(DAMAGED));
        fs::create_dir_all(data).map_err(|error| said(data, &error.into()))?;
        let (database, logs) = match open(&path) {
            Err(error) if is_damage(&error) => {
                tracing::error!("{}: {error}; it is put aside", path.display());
                fs::rename(&path, &damaged).map_err(|error| said(&path, &error.into()))?;
                open(&path).map_err(|error| said(&path, &error))?
            }
            opened => opened.map_err(|error| said(&path, &error))?,
        };
        let (steps, asked) = jobs::channel();
        let (tell, told) = mpsc::unbounded_channel();
        let writer = Writer { path: path.clone(), database: Some(database), asked, tell };
        let thread = thread::Builder::new().name("cluster-store".to_owned()).spawn(move || writer.run());
        thread.map_err(|error| said(&path, &error.into()))?;
        Ok((Self { steps, told, path, damaged }, logs))
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Has a step stored; numbers grow.
    pub(super) fn write(&self, number: u64, effects: Effects) {
        // Without a thread nothing is told to be stored.
        drop(self.steps.send((number, effects)));
    }
}

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error(transparent)]
    Redb(#[from] redb::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a record that can't be read")]
    Record,
    #[error("it is damaged")]
    Panicked,
}

fn said(path: &Path, error: &StoreError) -> String {
    format!("store: {}: {error}; see whether the disk is full, and cluster.data", path.display())
}

fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Record | StoreError::Panicked => true,
        StoreError::Redb(redb::Error::Io(error)) | StoreError::Io(error) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        StoreError::Redb(error) => matches!(
            error,
            redb::Error::Corrupted(_)
                | redb::Error::UpgradeRequired(_)
                | redb::Error::TableTypeMismatch { .. }
                | redb::Error::TypeDefinitionChanged { .. }
        ),
    }
}

/// Opens a store and reads it. What a damaged page makes panic is damage.
fn open(path: &Path) -> Result<(Database, Vec<StoredLog>), StoreError> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = create(path).map_err(redb::Error::from)?;
        let logs = read(&database)?;
        Ok((database, logs))
    }));
    opened.unwrap_or(Err(StoreError::Panicked))
}

fn create(path: &Path) -> Result<Database, DatabaseError> {
    let database = Database::builder().set_cache_size(CACHE).create(path)?;
    // The values of keys may be secrets.
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    fs::set_permissions(path, mode).map_err(|error| DatabaseError::Storage(StorageError::Io(error)))?;
    Ok(database)
}

fn read(database: &Database) -> Result<Vec<StoredLog>, StoreError> {
    // The tables are there from the first start on.
    write(database, &[])?;
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let heads = transaction.open_table(HEADS).map_err(redb::Error::from)?;
    let entries = transaction.open_table(ENTRIES).map_err(redb::Error::from)?;
    let mut logs = Vec::new();
    for row in heads.iter().map_err(redb::Error::from)? {
        let (place, head) = row.map_err(redb::Error::from)?;
        let (origin, slot) = place.value();
        let head: SignedHead = decode(head.value())?;
        let mut items = Vec::new();
        let of_log = (origin, slot, &[][..])..(origin, slot.saturating_add(1), &[][..]);
        for row in entries.range(of_log).map_err(redb::Error::from)? {
            let (key, item) = row.map_err(redb::Error::from)?;
            items.push((Key::from(key.value().2), decode(item.value())?));
        }
        logs.push((slot, head, items));
    }
    Ok(logs)
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|_unreadable| StoreError::Record)
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    postcard::to_allocvec(value).map_err(|_unwritable| StoreError::Record)
}

/// Writes steps as one transaction.
fn write(database: &Database, steps: &[(u64, Effects)]) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(redb::Error::from)?;
    {
        let mut entries = transaction.open_table(ENTRIES).map_err(redb::Error::from)?;
        let mut heads = transaction.open_table(HEADS).map_err(redb::Error::from)?;
        for (_, Effects { changes, heads: changed }) in steps {
            for change in changes {
                let place = (&*change.origin, change.slot, change.key.as_slice());
                match &change.now {
                    Some(item) => drop(entries.insert(place, &*encode(item)?).map_err(redb::Error::from)?),
                    None => drop(entries.remove(place).map_err(redb::Error::from)?),
                }
            }
            for (origin, slot, head) in changed {
                match head {
                    Some(head) => {
                        drop(heads.insert((&**origin, *slot), &*encode(head)?).map_err(redb::Error::from)?);
                    }
                    None => drop(heads.remove((&**origin, *slot)).map_err(redb::Error::from)?),
                }
            }
        }
    }
    transaction.commit().map_err(redb::Error::from)?;
    Ok(())
}

/// The thread.
struct Writer {
    path: PathBuf,
    database: Option<Database>,
    asked: jobs::Receiver<(u64, Effects)>,
    tell: mpsc::UnboundedSender<Told>,
}

impl Writer {
    fn run(mut self) {
        while let Ok(first) = self.asked.recv() {
            let mut steps = vec![first];
            steps.extend(self.asked.try_iter());
            while let Err(error) = self.attempt(&steps) {
                // Its state is not known: the file is opened again.
                self.database = None;
                if self.tell.send(Told::Failing(said(&self.path, &error))).is_err() {
                    return;
                }
                thread::sleep(AGAIN);
                steps.extend(self.asked.try_iter());
            }
            let Some((last, _)) = steps.last() else { continue };
            if self.tell.send(Told::UpTo(*last)).is_err() {
                return;
            }
        }
    }

    fn attempt(&mut self, steps: &[(u64, Effects)]) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => create(&self.path).map_err(redb::Error::from)?,
        };
        let database = self.database.insert(database);
        let written = catch_unwind(AssertUnwindSafe(|| write(database, steps)));
        written.unwrap_or(Err(StoreError::Panicked))
    }
}

#[cfg(test)]
mod tests {
    use control::cluster::{
        log::Limits,
        records::Record,
        state::{Identity, SigningKey, State, Wall},
    };

    use super::*;

    const WALL: Wall = Wall { own_ms: 1_795_242_852_000, median_ms: 1_795_242_852_000 };

    fn state() -> State {
        let key = SigningKey::from_bytes(&[7; 32]);
        let identity = Identity { cluster: "prod".to_owned(), name: "host-28".into(), key, tag: 1 };
        let mut state = State::new(identity, Limits::default());
        let _nothing = state.start(WALL).unwrap();
        state
    }

    /// Writes a user key, and waits until it is stored.
    fn write(store: &mut Store, state: &mut State, number: u64, key: &str, value: Option<&str>) {
        let record = Record::User { key: key.into(), value: value.map(|value| value.as_bytes().into()) };
        let outcome = state.write(vec![record], WALL).unwrap();
        store.write(number, outcome.effects);
        assert!(matches!(store.told.blocking_recv(), Some(Told::UpTo(stored)) if stored == number));
    }

    #[test]
    fn what_is_told_to_be_stored_is_read_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (mut store, logs) = Store::open(&data).unwrap();
        assert!(logs.is_empty());
        let mut written = state();
        write(&mut store, &mut written, 1, "a", Some("1"));
        write(&mut store, &mut written, 2, "b", Some("2"));
        write(&mut store, &mut written, 3, "a", None);
        drop(store);
        let again = || {
            let opened = Store::open(&data);
            // The thread of the former one may still have it open.
            opened.inspect_err(|_open| thread::sleep(Duration::from_millis(20))).ok()
        };
        let (_store, logs) = (0..100).find_map(|_| again()).expect("it opens");
        let mut read = state();
        for (slot, head, entries) in logs {
            read.load(slot, head, entries).unwrap();
        }
        let _nothing = read.start(WALL).unwrap();
        assert_eq!(read.view(), written.view());
        assert_eq!(read.view().users("").count(), 1);
    }

    #[test]
    fn a_damaged_store_is_put_aside_and_another_one_begun() {
        let folder = tempfile::tempdir().unwrap();
        for (number, damage) in [&b"no store"[..], &[0; 40_000], b""].into_iter().enumerate() {
            let data = folder.path().join(number.to_string());
            fs::create_dir(&data).unwrap();
            fs::write(data.join(FILE), damage).unwrap();
            let (mut store, logs) = Store::open(&data).unwrap();
            assert!(logs.is_empty());
            // An empty file is none.
            assert_eq!(store.damaged.exists(), !damage.is_empty(), "{number}");
            write(&mut store, &mut state(), 1, "a", Some("1"));
        }
    }

    #[test]
    fn a_store_is_its_owners_alone_and_one_that_cannot_be_made_is_named() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let _store = Store::open(folder.path()).unwrap();
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let error = Store::open(Path::new("/proc/nowhere")).err().expect("no folder there");
        assert!(error.starts_with("store: /proc/nowhere: ") && error.contains("cluster.data"), "{error}");
    }
}
