//! Kernel settings under `/proc/sys` of the current network namespace, and what they were before us.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::replace::{remove, replace};

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

    fn failed(&self, source: io::Error) -> SysctlError {
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
}

impl Change {
    /// Puts `key` back if it still holds what we set, and what changed along with it.
    fn undo(&self, key: &Key) -> Result<(), SysctlError> {
        match key.read() {
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
        along: impl FnOnce() -> Vec<Key>,
    ) -> Result<bool, SysctlError> {
        let former = key.read()?;
        if former == value {
            return Ok(false);
        }
        let along = along().into_iter().filter_map(|key| key.read().ok().map(|value| (key, value))).collect();
        let fresh = Change { former, ours: String::new(), along };
        value.clone_into(&mut self.changes.entry(key.clone()).or_insert(fresh).ours);
        self.save()?;
        key.write(value).map(|_| true)
    }

    /// Puts every chosen setting back that still holds what we set, and forgets it. A setting whose interface is
    /// gone is no failure.
    ///
    /// # Errors
    /// The first failure, after all were tried.
    pub fn restore(&mut self, chosen: impl Fn(&Key) -> bool) -> Result<(), SysctlError> {
        let mut outcome = Ok(());
        let (mine, kept) = std::mem::take(&mut self.changes).into_iter().partition(|(key, _)| chosen(key));
        self.changes = kept;
        let mine: BTreeMap<Key, Change> = mine;
        for (key, change) in &mine {
            outcome = outcome.and(change.undo(key));
        }
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
}
