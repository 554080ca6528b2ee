//! One log of an origin: entries by key, and the digest of them all.

use std::{collections::BTreeMap, mem};

use super::{
    Entry, Item, Key, SignedHead,
    entry::{Place, place},
};

const BUCKETS: usize = 256;
/// From how many entries on the buckets' digests are kept: 8 KiB that would weigh more than a small log.
const KEPT_FROM: usize = 512;

/// An entry that is another one now.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) key: Key,
    pub(super) was: Option<Item>,
    pub(super) now: Option<Item>,
}

/// One log of an origin.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// Which of the origin's logs it is; stays while it becomes a later one.
    pub(super) slot: u32,
    pub(super) signed: SignedHead,
    /// By bucket, then by key.
    entries: BTreeMap<Place, Item>,
    /// What the entries take in memory.
    bytes: usize,
    tombstones: usize,
    /// Digests of the buckets; `None`: to be made anew. Empty while the log is small.
    buckets: Vec<Option<[u8; 32]>>,
}

impl Log {
    /// A log without entries, whose head is to follow.
    pub(super) fn new(slot: u32, signed: SignedHead) -> Self {
        Self { slot, signed, entries: BTreeMap::new(), bytes: 0, tombstones: 0, buckets: Vec::new() }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Item> {
        self.entries.get(&place(key))
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&Key, &Item)> {
        self.entries.iter().map(|((_, key), item)| (key, item))
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn tombstones(&self) -> usize {
        self.tombstones
    }

    /// The first entries with a number above `since`, in their order.
    pub(super) fn after(&self, since: u64, most: usize) -> Vec<(&Key, &Item)> {
        let mut later: Vec<_> = self.entries().filter(|(_, item)| item.seq > since).collect();
        if later.len() > most {
            later.select_nth_unstable_by_key(most, |(_, item)| item.seq);
            later.truncate(most);
        }
        later.sort_unstable_by_key(|(_, item)| item.seq);
        later
    }

    /// Puts an item at a key, or takes away what is there.
    pub(super) fn set(&mut self, key: &Key, now: Option<Item>) -> Edit {
        let place = place(key);
        if let Some(bucket) = self.buckets.get_mut(usize::from(place.0)) {
            *bucket = None;
        }
        let is_tombstone = |item: &Item| usize::from(item.value.is_none());
        if let Some(item) = &now {
            self.bytes += item.size(key);
            self.tombstones += is_tombstone(item);
        }
        let was = match now.clone() {
            Some(item) => self.entries.insert(place, item),
            None => self.entries.remove(&place),
        };
        if let Some(item) = &was {
            self.bytes -= item.size(key);
            self.tombstones -= is_tombstone(item);
        }
        Edit { key: key.clone(), was, now }
    }

    /// Takes away tombstones that a floor covers.
    pub(super) fn sink(&mut self, floor: u64) -> Vec<Edit> {
        if self.tombstones == 0 {
            return Vec::new();
        }
        let is_under = |item: &Item| item.value.is_none() && item.seq <= floor;
        let sunk: Vec<Key> =
            self.entries().filter(|(_, item)| is_under(item)).map(|(key, _)| key.clone()).collect();
        sunk.iter().map(|key| self.set(key, None)).collect()
    }

    /// Becomes the version of a head by the entries after number `has`, up to which it has them.
    ///
    /// # Errors
    /// The result is not what the head says; the log is then as it was.
    pub(super) fn advance(
        &mut self,
        signed: SignedHead,
        entries: Vec<Entry>,
        has: u64,
    ) -> Result<Vec<Edit>, Mismatch> {
        let mut edits = Vec::with_capacity(entries.len());
        let new = entries.into_iter().filter(|entry| entry.item.seq > has);
        edits.extend(new.map(|Entry { key, item }| self.set(&key, Some(item))));
        if has == 0 || signed.head.floor > self.signed.head.floor {
            edits.extend(self.sink(signed.head.floor));
        }
        if self.root() == signed.head.root {
            self.signed = signed;
            return Ok(edits);
        }
        for edit in edits.into_iter().rev() {
            self.set(&edit.key, edit.was);
        }
        Err(Mismatch)
    }

    /// The digest of all entries.
    pub(super) fn root(&mut self) -> [u8; 32] {
        if self.entries.len() < KEPT_FROM {
            self.buckets = Vec::new();
        } else if self.buckets.is_empty() {
            self.buckets = vec![None; BUCKETS];
        }
        let mut buckets = mem::take(&mut self.buckets);
        let mut root = blake3::Hasher::new();
        if buckets.is_empty() {
            let mut entries = self.entries.iter().peekable();
            while let Some(&((bucket, _), _)) = entries.peek() {
                let own = std::iter::from_fn(|| entries.next_if(|((other, _), _)| other == bucket));
                root.update(&[*bucket]).update(&bucket_digest(own));
            }
        }
        for (number, kept) in (0..=u8::MAX).zip(&mut buckets) {
            let digest = kept.get_or_insert_with(|| bucket_digest(in_bucket(&self.entries, number)));
            if *digest != EMPTY {
                root.update(&[number]).update(digest);
            }
        }
        self.buckets = buckets;
        *root.finalize().as_bytes()
    }
}

/// A log is not what its head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mismatch;

/// In place of the digest of a bucket without entries.
const EMPTY: [u8; 32] = [0; 32];

fn bucket_digest<'e>(entries: impl Iterator<Item = (&'e Place, &'e Item)>) -> [u8; 32] {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return EMPTY;
    }
    let mut digest = blake3::Hasher::new();
    for ((_, key), item) in entries {
        digest.update(item.digest(key).as_bytes());
    }
    *digest.finalize().as_bytes()
}

fn in_bucket(entries: &BTreeMap<Place, Item>, bucket: u8) -> impl Iterator<Item = (&Place, &Item)> {
    let first = (bucket, Key::from(&[]));
    entries.range(first..).take_while(move |((other, _), _)| *other == bucket)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, prelude::*};

    use super::*;
    use crate::cluster::{clock::Stamp, log::head::unsigned};

    fn item(seq: u64, value: Option<u8>) -> Item {
        let value = value.map(|value| [value].as_slice().into());
        Item { seq, stamp: Stamp::from_number(seq), writer: None, value }
    }

    fn log() -> Log {
        Log::new(0, unsigned("h1"))
    }

    proptest! {
        #[test]
        fn the_digest_tells_contents_and_not_the_way_to_them(
            contents in btree_map(0_u16..2_000, (1_u64..9, any::<Option<u8>>()), 0..900),
            detours in btree_map(0_u16..2_000, any::<u8>(), 0..200),
        ) {
            let key = |number: &u16| Key::from(&number.to_be_bytes());
            let mut straight = log();
            for (number, &(seq, value)) in &contents {
                straight.set(&key(number), Some(item(seq, value)));
            }
            let mut detoured = log();
            for (number, &value) in &detours {
                detoured.set(&key(number), Some(item(77, Some(value))));
            }
            detoured.root();
            for (number, &(seq, value)) in contents.iter().rev() {
                detoured.set(&key(number), Some(item(seq, value)));
            }
            prop_assert_eq!(
                straight.root() == detoured.root(),
                detours.keys().all(|number| contents.contains_key(number)),
            );
            for number in detours.keys().filter(|number| !contents.contains_key(number)) {
                detoured.set(&key(number), None);
            }
            prop_assert_eq!(straight.root(), detoured.root());
            prop_assert_eq!((straight.bytes, straight.tombstones), (detoured.bytes, detoured.tombstones));
        }
    }

    #[test]
    fn every_part_of_an_entry_counts_for_the_digest() {
        let key = Key::from(b"key");
        let writer = Some("h2".into());
        let items = [
            item(1, None),
            item(1, Some(0)),
            item(2, Some(0)),
            Item { stamp: Stamp::from_number(7), ..item(1, Some(0)) },
            Item { writer, ..item(1, Some(0)) },
            Item { value: Some([].as_slice().into()), ..item(1, None) },
        ];
        let roots: std::collections::BTreeSet<[u8; 32]> = items
            .into_iter()
            .map(|item| {
                let mut log = log();
                log.set(&key, Some(item));
                log.root()
            })
            .collect();
        assert_eq!(roots.len(), 6);
    }
}
