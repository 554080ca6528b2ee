//! What was disabled by a command, and maintenance: both survive a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::kernel::replace::replace;

/// Where the marks are kept.
pub(super) const MARKS_FILE: &str = "/var/lib/fanlight/announce.json";

/// What an operator has set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    /// Names of announcements that are disabled.
    #[serde(default)]
    pub(super) disabled: BTreeSet<String>,
    /// Whether this node is in maintenance.
    #[serde(default)]
    pub(super) maintenance: bool,
    /// Names of announcements whose check is up: they begin so.
    #[serde(default)]
    pub(super) up: BTreeSet<String>,
    /// What the commands of announcements were told last, by name: they run again when that changes.
    #[serde(default)]
    pub(super) told: BTreeMap<String, String>,
}

impl Marks {
    /// Reads the file; there are none where it is not.
    ///
    /// # Errors
    /// It can't be read, or is damaged: nobody knows what was set.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// The file can't be written.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        replace(path, &serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_were_written_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/announce.json");
        assert_eq!(Marks::load(&path).unwrap(), Marks::default());
        let told = [("apex".to_owned(), "UP".to_owned())].into();
        let up = ["apex".to_owned()].into();
        let marks = Marks { disabled: ["apex".to_owned()].into(), maintenance: true, up, told };
        marks.save(&path).unwrap();
        assert_eq!(Marks::load(&path).unwrap(), marks);
        fs::write(&path, "{").unwrap();
        assert!(Marks::load(&path).is_err());
    }
}
