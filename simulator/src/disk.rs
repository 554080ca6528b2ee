//! A node's disk as a value.

use std::collections::{BTreeMap, VecDeque};

use control::cluster::{
    clock::Stamp,
    log::{Effects, Item, Key, Name, SignedHead},
};

/// Transactions that a drive may hold in its cache and say that they are written.
const CACHE: usize = 32;

/// A log as it was stored: slot, head, entries.
pub type StoredLog = (u32, SignedHead, Vec<(Key, Item)>);

/// A file with the node's generation, and a store of logs that is written by transactions.
///
/// Transactions that are not written when the power fails are lost. A drive that lies about what it has written loses some of
/// the last ones that it said it had.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    generation: u64,
    store: Store,
    /// Written, as the drive says.
    cached: VecDeque<Effects>,
    /// Given, and not written.
    waiting: VecDeque<(u64, Effects)>,
    /// How many of them are being written.
    writing: usize,
}

#[derive(Clone, Debug, Default)]
struct Store {
    heads: BTreeMap<(Name, u32), SignedHead>,
    entries: BTreeMap<(Name, u32), BTreeMap<Key, Item>>,
}

impl Store {
    fn write(&mut self, effects: &Effects) {
        for change in &effects.changes {
            let log = self.entries.entry((change.origin.clone(), change.slot)).or_default();
            match &change.now {
                Some(item) => log.insert(change.key.clone(), item.clone()),
                None => log.remove(&change.key),
            };
        }
        for (origin, slot, head) in &effects.heads {
            let place = (origin.clone(), *slot);
            match head {
                Some(head) => self.heads.insert(place, head.clone()),
                None => self.heads.remove(&place),
            };
        }
    }
}

impl Disk {
    /// The generation of the node's last start.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn set_generation(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// A step is to be stored.
    pub fn give(&mut self, step: u64, effects: Effects) {
        self.waiting.push_back((step, effects));
    }

    /// Begins to write all that waits, as one transaction, unless one is being written or nothing waits.
    pub fn begin(&mut self) -> bool {
        let begins = self.writing == 0 && !self.waiting.is_empty();
        if begins {
            self.writing = self.waiting.len();
        }
        begins
    }

    /// The transaction is written; gives its last step.
    pub fn finish(&mut self) -> Option<u64> {
        let mut transaction = Effects::default();
        let mut last = None;
        for (step, effects) in self.waiting.drain(..self.writing) {
            transaction.extend(effects);
            last = Some(step);
        }
        self.writing = 0;
        self.cached.push_back(transaction);
        if self.cached.len() > CACHE
            && let Some(oldest) = self.cached.pop_front()
        {
            self.store.write(&oldest);
        }
        last
    }

    /// The power fails.
    pub fn lose_unwritten(&mut self) {
        self.waiting.clear();
        self.writing = 0;
    }

    /// The drive loses the last transactions that it said were written; it held no more than its cache.
    pub fn lose_tail(&mut self, transactions: usize) {
        self.lose_unwritten();
        self.cached.truncate(self.cached.len().saturating_sub(transactions));
    }

    /// The store is lost.
    pub fn lose_store(&mut self) {
        *self = Self { generation: self.generation, ..Self::default() };
    }

    fn written(&self) -> Store {
        let mut store = self.store.clone();
        self.cached.iter().for_each(|transaction| store.write(transaction));
        store
    }

    /// What is stored.
    pub fn logs(&self) -> Vec<StoredLog> {
        let Store { heads, mut entries } = self.written();
        let log = |(place, head): ((Name, u32), SignedHead)| {
            let entries = entries.remove(&place).unwrap_or_default();
            (place.1, head, entries.into_iter().collect())
        };
        heads.into_iter().map(log).collect()
    }

    /// The latest stamp that is stored at a key.
    pub fn latest(&self, key: &Key) -> Stamp {
        let store = self.written();
        let items = store.entries.values().filter_map(|log| log.get(key));
        items.map(|item| item.stamp).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use control::cluster::log::Change;

    use super::*;

    fn step(number: u64) -> Effects {
        let item = Item { seq: number, stamp: Stamp::from_number(number), writer: None, value: None };
        let key = Key::from(&b"k"[..]);
        let change = Change { origin: "a".into(), slot: 0, key, was: None, now: Some(item) };
        Effects { changes: vec![change], heads: Vec::new() }
    }

    fn latest(disk: &Disk) -> u64 {
        disk.latest(&Key::from(&b"k"[..])).number()
    }

    #[test]
    fn what_was_not_written_is_lost_and_transactions_are_whole() {
        let mut disk = Disk::default();
        disk.give(1, step(1));
        disk.give(2, step(2));
        assert!(disk.begin() && !disk.begin());
        disk.give(3, step(3));
        assert_eq!((disk.finish(), latest(&disk)), (Some(2), 2));
        assert!(disk.begin());
        disk.lose_unwritten();
        assert_eq!((latest(&disk), disk.begin()), (2, false));
    }

    #[test]
    fn a_drive_that_lies_loses_the_last_of_what_it_said_was_written() {
        let mut disk = Disk::default();
        for number in 1..=40 {
            disk.give(number, step(number));
            assert!(disk.begin());
            assert_eq!(disk.finish(), Some(number));
        }
        disk.lose_tail(3);
        assert_eq!(latest(&disk), 37);
        disk.lose_tail(100);
        assert_eq!(latest(&disk), 40 - CACHE as u64);
        disk.lose_store();
        assert_eq!(latest(&disk), 0);
    }
}
