//! The one that writes an origin's log.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use thiserror::Error;

use super::{
    Ancestor, Bytes, Effects, Epoch, Head, Item, Key, Limits, Logs, MAX_ANCESTORS, MAX_KEY, MAX_VALUE, Name,
    Segment, SignedHead, Version,
    held::{Held, changes},
    merge,
    push::Recent,
    replica::seat,
    single::{Edit, Log},
};
use crate::cluster::clock::Stamp;

/// An entry to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// What it is about.
    pub key: Key,
    /// When it is written, or was.
    pub stamp: Stamp,
    /// Who wrote it, where that was another node: it is taken over.
    pub writer: Option<Name>,
    /// The value; `None` removes.
    pub value: Option<Bytes>,
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// The key or value is too large for any log.
    #[error(
        "a record has a key of 1 to {MAX_KEY} bytes and at most {MAX_VALUE} bytes; this one has {key} and {value}"
    )]
    Size {
        /// Bytes of the key.
        key: usize,
        /// Bytes of the value.
        value: usize,
    },
    /// Removals wait for members.
    #[error(
        "{limit} removals wait for every member to hear of them; see 'fanlight node list' for dead members, and forget those that will not return"
    )]
    Tombstones {
        /// How many may wait.
        limit: usize,
    },
    /// The log is full.
    #[error("this node's records may take {limit} bytes of memory; remove some")]
    Full {
        /// Bytes that they may take.
        limit: usize,
    },
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// To be stored before it is acknowledged or pushed.
    pub effects: Effects,
    /// For members: the head with what is new ([`Segment::within`] a datagram).
    pub push: Segment,
}

/// Writes the log of this node.
#[derive(Debug)]
pub struct Writer {
    name: Name,
    key: SigningKey,
    tag: u32,
    /// The start that it writes in; chosen by the first write.
    epoch: Option<Epoch>,
    /// The count of the last epoch of this start that is over.
    left: u32,
    recent: Recent,
}

impl Writer {
    /// A writer of one start of the node; `tag` is random.
    pub fn new(name: Name, key: SigningKey, tag: u32) -> Self {
        Self { name, key, tag, epoch: None, left: 0, recent: Recent::default() }
    }

    /// Whose log it writes.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Writes entries, all or none, as one version.
    ///
    /// # Errors
    /// Nothing was written, and why.
    pub fn write(&mut self, logs: &mut Logs, puts: Vec<Put>) -> Result<Commit, WriteError> {
        self.check(logs, &puts)?;
        Ok(self.commit(logs, |draft| puts.into_iter().for_each(|put| draft.put(put))))
    }

    fn check(&self, logs: &Logs, puts: &[Put]) -> Result<(), WriteError> {
        let held = logs.origins.get(&seat(&self.name));
        let (mut bytes, mut tombstones) = (held.map_or(0, Held::bytes), 0);
        for Put { key, stamp, writer, value } in puts {
            let item = Item { seq: 0, stamp: *stamp, writer: writer.clone(), value: value.clone() };
            if !item.fits(key) {
                let value = value.as_ref().map_or(0, |value| value.as_slice().len());
                return Err(WriteError::Size { key: key.as_slice().len(), value });
            }
            bytes += item.size(key);
            tombstones += usize::from(value.is_none());
        }
        let waiting: usize = held.into_iter().flat_map(|held| &held.logs).map(Log::tombstones).sum();
        let Limits { tombstones: limit, origin_bytes, .. } = logs.limits;
        if tombstones > 0 && waiting + tombstones > limit {
            return Err(WriteError::Tombstones { limit });
        }
        if bytes > origin_bytes {
            return Err(WriteError::Full { limit: origin_bytes });
        }
        Ok(())
    }

    /// Whether there are logs of this node's that its own does not continue: it lost them, and peers had them.
    pub fn has_lost(&self, logs: &Logs) -> bool {
        logs.heads(&self.name).nth(1).is_some()
    }

    /// Continues all of this node's logs that were found.
    pub fn adopt(&mut self, logs: &mut Logs) -> Option<Commit> {
        self.has_lost(logs).then(|| self.commit(logs, |_nothing_more| {}))
    }

    /// Drops everything that this node has written, because it was forgotten; what it writes next is a new log.
    ///
    /// `born` is the last start that was forgotten. What it writes again may be older than removals that members have seen all
    /// of, so that exchanges under way are not enough to have heard of everything.
    pub fn begin_anew(&mut self, logs: &mut Logs, born: u32) -> Effects {
        if let Some(former) = self.epoch.take() {
            self.leave(former);
        }
        self.recent = Recent::default();
        logs.own = None;
        let effects = logs.forget(&self.name, born);
        logs.begun_anew = logs.steps();
        effects
    }

    /// Removes tombstones, and moves those that stay above the floor that this makes.
    pub(super) fn collect(&mut self, logs: &mut Logs, keys: &[Key]) -> Commit {
        self.commit(logs, |draft| draft.collect(keys))
    }

    /// Makes a version: what was lost is continued, then `edit` is made, then it is signed.
    fn commit(&mut self, logs: &mut Logs, edit: impl FnOnce(&mut Draft)) -> Commit {
        let seat = seat(&self.name);
        let key = self.key.verifying_key().to_bytes();
        let mut held = logs.origins.remove(&seat).unwrap_or_else(|| Held::new(key));
        let before = held.all_bytes();
        let epoch = self.epoch_for(logs, &held);
        let mut draft = Draft::new(self.name.clone(), key, epoch, &mut held);
        let start = draft.head.version.seq;
        for lost in std::mem::take(&mut held.logs) {
            draft.adopt(&lost);
            held.logs.push(lost);
        }
        edit(&mut draft);
        let Draft { mut head, mut log, edits, seq, .. } = draft;
        head.version = Version { epoch, seq: seq.max(start + 1) };
        head.root = log.root();
        log.signed = SignedHead::new(head, &logs.cluster, &self.key);
        let push = self.recent.push(&log, start, &edits);
        let mut effects = Effects::default();
        effects.changes.extend(changes(&self.name, log.slot, edits));
        held.insert(&self.name, log, &mut effects);
        logs.bytes = logs.bytes + held.all_bytes() - before;
        logs.origins.insert(seat.clone(), held);
        logs.own = Some((Arc::clone(&self.name), epoch));
        logs.stepped(seat.0);
        Commit { effects, push }
    }

    /// The start to write in: above all that are known of this node.
    fn epoch_for(&mut self, logs: &Logs, held: &Held) -> Epoch {
        let known = held.logs.iter().map(|log| log.signed.head.version.epoch).max();
        let is_last = |epoch: &Epoch| known.is_none_or(|known| known <= *epoch);
        if let Some(epoch) = self.epoch.filter(is_last) {
            return epoch;
        }
        if let Some(former) = self.epoch {
            self.leave(former);
        }
        let forgotten = logs.forgotten.get(&self.name).copied().unwrap_or_default();
        let last = known.map_or(0, |known| known.count).max(forgotten).max(self.left);
        *self.epoch.insert(Epoch { count: last.saturating_add(1), tag: self.tag })
    }

    /// What was written in an epoch is another log from now on: the next one has another count and tag.
    fn leave(&mut self, former: Epoch) {
        let seed = [former.tag.to_be_bytes(), former.count.to_be_bytes()].concat();
        let [a, b, c, d, ..] = *blake3::hash(&seed).as_bytes();
        (self.tag, self.left) = (u32::from_be_bytes([a, b, c, d]), former.count);
    }
}

/// A version that is being made.
struct Draft {
    head: Head,
    log: Log,
    edits: Vec<Edit>,
    /// The last number that was given.
    seq: u64,
}

impl Draft {
    /// The next version of an origin's latest log, which is taken out of `held`.
    fn new(origin: Name, key: [u8; 32], epoch: Epoch, held: &mut Held) -> Self {
        let version = Version { epoch, seq: 0 };
        let mut head =
            Head { origin, key, version, born: epoch.count, floor: 0, ancestors: Vec::new(), root: [0; 32] };
        let slot = held.free_slot();
        let log = if held.logs.is_empty() {
            let signed = SignedHead::unsigned(head.clone());
            Log::new(slot, signed)
        } else {
            let log = held.logs.remove(0);
            head = log.signed.head.clone();
            if head.version.epoch != epoch {
                head.ancestors.push(Ancestor { version: head.version, is_line: true });
                head.version.epoch = epoch;
            }
            log
        };
        let seq = head.version.seq;
        let mut draft = Self { head, log, edits: Vec::new(), seq };
        draft.trim();
        draft
    }

    fn put(&mut self, Put { key, stamp, writer, value }: Put) {
        self.seq += 1;
        let item = Item { seq: self.seq, stamp, writer, value };
        self.edits.push(self.log.set(&key, Some(item)));
    }

    /// Writes an item as it is, under a new number.
    fn copy(&mut self, key: &Key, item: &Item) {
        let Item { stamp, writer, value, .. } = item.clone();
        self.put(Put { key: key.clone(), stamp, writer, value });
    }

    /// Continues another log of this origin.
    fn adopt(&mut self, lost: &Log) {
        for (key, item) in merge::missing(&self.log, &self.head, lost) {
            self.copy(&key, &item);
        }
        let other = &lost.signed.head;
        let own = Ancestor { version: other.version, is_line: false };
        for ancestor in other.ancestors.iter().chain([&own]) {
            let epoch = ancestor.version.epoch;
            match self.head.ancestors.iter_mut().find(|known| known.version.epoch == epoch) {
                Some(known) if known.version.seq >= ancestor.version.seq => {}
                Some(known) => *known = Ancestor { is_line: false, ..*ancestor },
                None => self.head.ancestors.push(Ancestor { is_line: false, ..*ancestor }),
            }
        }
        self.head.born = self.head.born.min(other.born);
        self.trim();
    }

    /// The latest ancestors, in order.
    fn trim(&mut self) {
        let ancestors = &mut self.head.ancestors;
        ancestors.sort_unstable_by_key(|ancestor| ancestor.version);
        ancestors.drain(..ancestors.len().saturating_sub(MAX_ANCESTORS));
    }

    fn collect(&mut self, keys: &[Key]) {
        let gone: Vec<u64> = keys.iter().filter_map(|key| self.log.get(key)).map(|item| item.seq).collect();
        let Some(&floor) = gone.iter().max() else { return };
        for key in keys {
            self.edits.push(self.log.set(key, None));
        }
        let is_under = |item: &Item| item.value.is_none() && item.seq <= floor;
        let stays: Vec<(Key, Item)> = self
            .log
            .entries()
            .filter(|(_, item)| is_under(item))
            .map(|(key, item)| (key.clone(), item.clone()))
            .collect();
        for (key, item) in stays {
            self.copy(&key, &item);
        }
        self.head.floor = self.head.floor.max(floor);
    }
}
