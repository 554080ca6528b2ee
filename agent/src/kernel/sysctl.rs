//! Kernel settings under `/proc/sys` of the current network namespace, and what they were before us.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    replace::{remove, replace},
    reserved_ports,
};

/// Why a setting could not be read or written, or its former value not be kept.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// The kernel refuses.
    #[error("setting {key}: {source}")]
    Key {
        /// Which.
        key: Key,
        /// Why.
        source: io::Error,
    },
    /// The file of former values.
    #[error("{}: {source}; remove it to forget the former settings", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SysctlError {
    /// There is no such setting: its interface is gone, or the kernel lacks the feature.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Key { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A setting: its path below `/proc/sys`, as `net/ipv4/ip_forward`.
///
/// Paths, not dots, because interface names may hold dots.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// The setting of a path below `/proc/sys`.
    pub fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// `net/ipv4/conf/INTERFACE/NAME`.
    pub fn conf(interface: &str, name: &str) -> Self {
        Self(format!("net/ipv4/conf/{interface}/{name}"))
    }

    /// `net/ipv4/neigh/INTERFACE/NAME`.
    pub fn neigh(interface: &str, name: &str) -> Self {
        Self(format!("net/ipv4/neigh/{interface}/{name}"))
    }

    /// Whether it is a setting of an interface.
    pub fn is_of(&self, interface: &str) -> bool {
        self.0.split('/').nth(3) == Some(interface)
    }

    fn path(&self) -> PathBuf {
        Path::new("/proc/sys").join(&self.0)
    }

    /// The value, without surrounding blanks.
    ///
    /// # Errors
    /// There is no such setting, or the kernel refuses.
    pub fn read(&self) -> Result<String, SysctlError> {
        let text = fs::read_to_string(self.path()).map_err(|source| self.failed(source))?;
        Ok(text.trim().to_owned())
    }

    /// Writes `value`, if it isn't the value already, and returns the former one.
    ///
    /// # Errors
    /// There is no such setting, or the kernel refuses.
    pub fn write(&self, value: &str) -> Result<Option<String>, SysctlError> {
        let former = self.read()?;
        if former == value {
            return Ok(None);
        }
        fs::write(self.path(), value).map_err(|source| self.failed(source))?;
        Ok(Some(former))
    }

    pub(super) fn failed(&self, source: io::Error) -> SysctlError {
        SysctlError::Key { key: self.clone(), source }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names under `net/ipv4/conf` (interfaces, `all`, `default`).
pub fn conf_entries() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc/sys/net/ipv4/conf").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// What a setting was, and what we made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    former: String,
    ours: String,
    /// Former values of settings that the kernel changes along with this one.
    #[serde(default)]
    along: BTreeMap<Key, String>,
    /// What could need it as we made it, and was there before.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    users: BTreeSet<String>,
}

/// What is to be known of the host before a setting is changed.
#[derive(Debug, Default)]
pub struct Before {
    /// Settings that the kernel changes along with it.
    pub along: Vec<Key>,
    /// What could need the new value.
    pub users: BTreeSet<String>,
}

impl Change {
    /// Puts `key` back if it still holds what we set, and what changed along with it.
    fn undo(&self, key: &Key) -> Result<(), SysctlError> {
        match key.read() {
            // A list: what others have added since stays.
            Ok(now) if *key == reserved_ports::key() => {
                return key.write(&reserved_ports::without(&now, &self.former, &self.ours)).map(drop);
            }
            Ok(now) if now == self.ours => {}
            Ok(_) => return Ok(()),
            Err(error) if error.is_missing() => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut outcome = key.write(&self.former).map(drop);
        for (key, former) in &self.along {
            match key.write(former) {
                Err(error) if !error.is_missing() => outcome = outcome.and(Err(error)),
                _ => {}
            }
        }
        outcome
    }
}

/// Settings that we changed and want to put back one day, kept in a file.
#[derive(Debug)]
pub struct Remembered {
    path: PathBuf,
    changes: BTreeMap<Key, Change>,
}

impl Remembered {
    /// What `path` remembers; nothing when there is no such file.
    ///
    /// # Errors
    /// The file can't be read or is damaged.
    pub fn load(path: &Path) -> Result<Self, SysctlError> {
        let failed = |source| SysctlError::File { path: path.to_owned(), source };
        let changes = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { path: path.to_owned(), changes })
    }

    /// Sets `key`, after its first former value was remembered, and those of settings that the kernel changes along
    /// with it. Whether anything changed is returned.
    ///
    /// # Errors
    /// The kernel refuses, or the file can't be written; then the setting is as it was.
    pub fn set(
        &mut self,
        key: &Key,
        value: &str,
        before: impl FnOnce() -> Before,
    ) -> Result<bool, SysctlError> {
        let former = key.read()?;
        if former == value {
            return Ok(false);
        }
        let Before { along, users } = before();
        let along = along.into_iter().filter_map(|key| key.read().ok().map(|value| (key, value))).collect();
        let fresh = Change { former, ours: String::new(), along, users };
        value.clone_into(&mut self.changes.entry(key.clone()).or_insert(fresh).ours);
        self.save()?;
        key.write(value).map(|_| true)
    }

    /// Keeps ports from sockets, in place of those that were kept so before. Whether anything changed is returned.
    ///
    /// # Errors
    /// The kernel refuses, or the file can't be written; then the setting is as it was.
    pub fn reserve_ports(&mut self, first: u16, last: u16) -> Result<bool, SysctlError> {
        let key = reserved_ports::key();
        let now = key.read()?;
        let others =
            self.changes.get(&key).map(|change| reserved_ports::without(&now, &change.former, &change.ours));
        let others = others.unwrap_or_else(|| now.clone());
        let wanted = reserved_ports::with(&others, first, last);
        if wanted == now {
            return Ok(false);
        }
        let change =
            Change { former: others, ours: wanted.clone(), along: BTreeMap::new(), users: BTreeSet::new() };
        self.changes.insert(key.clone(), change);
        self.save()?;
        key.write(&wanted).map(|_| true)
    }

    /// What could need a setting as we made it and was there before; `None` for one that is not to be put back.
    pub fn users(&self, key: &Key) -> Option<&BTreeSet<String>> {
        self.changes.get(key).map(|change| &change.users)
    }

    /// Leaves a setting as it is.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn forget(&mut self, key: &Key) -> Result<(), SysctlError> {
        self.changes.remove(key);
        self.save()
    }

    /// Puts every chosen setting back that still holds what we set, and forgets it. A setting whose interface is
    /// gone is no failure; one that can't be put back is tried again the next time.
    ///
    /// # Errors
    /// The first failure, after all were tried.
    pub fn restore(&mut self, chosen: impl Fn(&Key) -> bool) -> Result<(), SysctlError> {
        let mut outcome = Ok(());
        self.changes.retain(|key, change| {
            let undone = if chosen(key) { change.undo(key) } else { return true };
            let has_failed = undone.is_err();
            if outcome.is_ok() {
                outcome = undone;
            }
            has_failed
        });
        outcome.and(self.save())
    }

    fn save(&self) -> Result<(), SysctlError> {
        let failed = |source| SysctlError::File { path: self.path.clone(), source };
        if self.changes.is_empty() {
            return remove(&self.path).map_err(failed);
        }
        let text = serde_json::to_vec_pretty(&self.changes).map_err(|error| failed(error.into()))?;
        replace(&self.path, &text).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_name_with_dots_stays_one_part_of_the_path() {
        let key = Key::conf("eth0.12", "rp_filter");
        assert!(key.is_of("eth0.12") && !key.is_of("eth0"));
        assert_eq!(key.path(), PathBuf::from("/proc/sys/net/ipv4/conf/eth0.12/rp_filter"));
    }

    #[test]
    fn a_damaged_file_of_former_values_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sysctls.json");
        fs::write(&path, "{").unwrap();
        let error = Remembered::load(&path).unwrap_err();
        assert!(error.to_string().contains("sysctls.json"), "{error}");
        assert!(Remembered::load(&folder.path().join("none")).unwrap().changes.is_empty());
    }

    #[test]
    fn a_missing_setting_is_an_error_that_names_it() {
        let error = Key::new("net/ipv4/no_such_setting").read().unwrap_err();
        assert!(error.to_string().contains("net/ipv4/no_such_setting"), "{error}");
    }

    #[test]
    fn a_setting_that_cannot_be_put_back_stays_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sysctls.json");
        // A value that the kernel refuses, of a setting that holds what we set.
        let key = Key::new("net/ipv4/ip_forward");
        let (gone, now) = (Key::conf("no-such-device", "forwarding"), key.read().unwrap());
        let text = serde_json::json!({
            (key.to_string()): { "former": "no number", "ours": now },
            (gone.to_string()): { "former": "0", "ours": "1" },
        });
        fs::write(&path, text.to_string()).unwrap();
        let mut remembered = Remembered::load(&path).unwrap();
        for _ in 0..2 {
            let error = remembered.restore(|_| true).unwrap_err().to_string();
            assert!(error.starts_with("setting net/ipv4/ip_forward: "), "{error}");
            remembered = Remembered::load(&path).unwrap();
            assert_eq!(remembered.changes.keys().collect::<Vec<_>>(), [&key]);
        }
    }
}
