//! The file of remembered fans.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use control::observed::{Entry, Observed, standing};

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
        self.entries.retain(|other| other.mark.bridge() != bridge);
        self.entries.push(entry);
        self.save().map(|()| true)
    }

    pub(super) fn remove(&mut self, bridge: &str) -> Result<(), Fault> {
        self.entries.retain(|entry| entry.mark.bridge() != bridge);
        self.save()
    }

    fn save(&self) -> Result<(), Fault> {
        let failed = |source| Fault::File { path: self.path.clone(), source };
        if self.entries.is_empty() {
            return remove(&self.path).map_err(failed);
        }
        let text = serde_json::to_vec_pretty(&self.entries).map_err(|error| failed(error.into()))?;
        replace(&self.path, &text).map_err(failed)
    }
}

/// What the host has, and which fans stand on it.
pub(super) async fn observe(netlink: &Netlink, memory: &Memory) -> Result<Observed, Fault> {
    let links = netlink.links().await?;
    let standing = standing(&links, memory.entries());
    Ok(Observed {
        addresses: netlink.addresses().await?,
        routes: netlink.routes().await?,
        rules: netlink.rules().await?,
        standing,
        links,
    })
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
}
