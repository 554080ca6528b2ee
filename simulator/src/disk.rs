//! A node's disk as a value.

use std::collections::BTreeMap;

/// Files by name. What was written and not synced is lost with the power.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    durable: BTreeMap<&'static str, Vec<u8>>,
    unsynced: BTreeMap<&'static str, Vec<u8>>,
}

impl Disk {
    pub fn write(&mut self, file: &'static str, bytes: Vec<u8>) {
        self.unsynced.insert(file, bytes);
    }

    pub fn sync(&mut self) {
        self.durable.append(&mut self.unsynced);
    }

    pub fn read(&self, file: &'static str) -> Option<&[u8]> {
        self.unsynced.get(file).or_else(|| self.durable.get(file)).map(Vec::as_slice)
    }

    /// The power fails.
    pub fn lose_unsynced(&mut self) {
        self.unsynced.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_synced_is_lost() {
        let mut disk = Disk::default();
        disk.write("a", vec![1]);
        disk.sync();
        disk.write("a", vec![2]);
        assert_eq!(disk.read("a"), Some(&[2][..]));
        disk.lose_unsynced();
        assert_eq!(disk.read("a"), Some(&[1][..]));
    }
}
