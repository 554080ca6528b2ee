//! The file of remembered fans.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use control::observed::{Entry, ObservedHost, standing, surroundings};
use ipnet::Ipv4Net;

use super::error::Fault;
use crate::kernel::{
    netlink::Netlink,
    replace::{remove, replace},
};

/// The file of remembered fans, one entry a bridge.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Memory {
    pub(super) fn load(path: &Path) -> Result<Self, Fault> {
        let failed = |source| Fault::File { path: path.to_owned(), source };
        let entries: Vec<Entry> = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { path: path.to_owned(), entries })
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Remembers a fan in place of what was remembered of its bridge. Says whether anything changed.
    pub(super) fn put(&mut self, entry: Entry) -> Result<bool, Fault> {
        if self.entries.contains(&entry) {
            return Ok(false);
        }
        let bridge = entry.mark.bridge();
        let others = self.entries.iter().filter(|other| other.mark.bridge() != bridge);
        self.save(others.cloned().chain([entry]).collect()).map(|()| true)
    }

    pub(super) fn remove(&mut self, bridge: &str) -> Result<(), Fault> {
        self.save(self.entries.iter().filter(|entry| entry.mark.bridge() != bridge).cloned().collect())
    }

    /// What the file does not say is not remembered either: the next try writes it again.
    fn save(&mut self, entries: Vec<Entry>) -> Result<(), Fault> {
        write(&self.path, &entries).map_err(|source| Fault::File { path: self.path.clone(), source })?;
        self.entries = entries;
        Ok(())
    }
}

/// Replaces the file; without entries there is none.
fn write(path: &Path, entries: &[Entry]) -> io::Result<()> {
    if entries.is_empty() {
        return remove(path);
    }
    replace(path, &serde_json::to_vec_pretty(entries)?)
}

/// What the host has, and which fans stand on it; `sought` are overlays that may have no fan yet.
pub(super) async fn observe(
    netlink: &Netlink,
    memory: &Memory,
    sought: &[Ipv4Net],
) -> Result<ObservedHost, Fault> {
    let links = netlink.links().await?;
    let standing = standing(&links, memory.entries());
    let addresses = netlink.addresses().await?;
    let routes = netlink.routes_near(surroundings(&standing, &addresses, sought)).await?;
    Ok(ObservedHost { addresses, routes, rules: netlink.rules().await?, standing, links })
}

#[cfg(test)]
mod tests {
    use control::observed::{Adopted, Mark};

    use super::*;

    #[test]
    fn the_file_holds_one_fan_a_bridge_and_goes_with_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fans.json");
        let mut memory = Memory::load(&path).unwrap();
        let entry = Entry { mark: Mark::example(), adopted: None };
        assert!(memory.put(entry.clone()).unwrap());
        assert!(!memory.put(entry.clone()).unwrap());
        let changed = Entry { adopted: Some(Adopted::default()), ..entry };
        assert!(memory.put(changed.clone()).unwrap());
        assert_eq!(Memory::load(&path).unwrap().entries(), [changed]);
        memory.remove("fan-250-0-28").unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_could_not_be_written_is_written_at_the_next_try() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/fans.json");
        let mut memory = Memory::load(&path).unwrap();
        let entry = Entry { mark: Mark::example(), adopted: None };
        fs::write(folder.path().join("run"), "no folder").unwrap();
        memory.put(entry.clone()).unwrap_err();
        fs::remove_file(folder.path().join("run")).unwrap();
        assert!(memory.put(entry.clone()).unwrap());
        assert_eq!(Memory::load(&path).unwrap().entries(), [entry]);
    }
}
