//! All logs that a node has a copy of.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Effects, Epoch, Head, Item, Key, Name, Version,
    held::{Held, all_gone},
    segment::{self, Segment, Want},
    tree::{self, Digest, Tree},
};
use crate::model::fnv1a;

/// What a node holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Origins.
    pub origins: usize,
    /// Bytes of an origin's logs in memory, and of what is being received of them.
    pub origin_bytes: usize,
    /// Bytes of all logs in memory, and of what is being received.
    pub bytes: usize,
    /// Tombstones of a log; its writer refuses to remove more.
    pub tombstones: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { origins: 12_000, origin_bytes: 48 << 20, bytes: 512 << 20, tombstones: 65_536 }
    }
}

/// All logs that a node has a copy of.
#[derive(Clone, Debug)]
pub struct Logs {
    pub(super) cluster: Arc<str>,
    pub(super) limits: Limits,
    /// By leaf of the tree, then by name.
    pub(super) origins: BTreeMap<(u8, Name), Held>,
    tree: Tree,
    /// What all logs take in memory.
    pub(super) bytes: usize,
    /// Counts steps that changed anything.
    steps: u64,
    /// Logs that were born up to this start are forgotten.
    pub(super) forgotten: BTreeMap<Name, u32>,
    /// The name of this node, and the start in which it writes.
    pub(super) own: Option<(Name, Epoch)>,
    /// [`Self::steps`] when this node began another log because it was forgotten.
    pub(super) begun_anew: u64,
}

/// The place of an origin.
pub(super) fn seat(name: &str) -> (u8, Name) {
    let hash = fnv1a(name);
    ((hash ^ (hash >> 32)) as u8, name.into())
}

impl Logs {
    /// No logs, of a cluster.
    pub fn new(cluster: &str, limits: Limits) -> Self {
        Self {
            cluster: cluster.into(),
            limits,
            origins: BTreeMap::new(),
            tree: Tree::default(),
            bytes: 0,
            steps: 0,
            forgotten: BTreeMap::new(),
            own: None,
            begun_anew: 0,
        }
    }

    /// Counts steps: whoever has all that is here has what was here before.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What all logs take in memory, in bytes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The origins, in no particular order.
    pub fn origins(&self) -> impl Iterator<Item = &Name> {
        self.origins.keys().map(|(_, name)| name)
    }

    /// The heads of an origin's logs, the latest first: more than one while the origin has not continued them all.
    pub fn heads(&self, origin: &str) -> impl Iterator<Item = &Head> {
        let held = self.origins.get(&seat(origin));
        held.into_iter().flat_map(|held| &held.logs).map(|log| &log.signed.head)
    }

    /// How many removals an origin's log may still take.
    pub fn room_for_removals(&self, origin: &str) -> usize {
        self.limits.tombstones.saturating_sub(self.tombstones(origin))
    }

    /// How many tombstones an origin's logs have.
    pub fn tombstones(&self, origin: &str) -> usize {
        let held = self.origins.get(&seat(origin));
        held.into_iter().flat_map(|held| &held.logs).map(super::single::Log::tombstones).sum()
    }

    /// All entries of all logs: origin, slot, key and what stands there.
    pub fn entries(&self) -> impl Iterator<Item = (&Name, u32, &Key, &Item)> {
        let logs =
            self.origins.iter().flat_map(|((_, name), held)| held.logs.iter().map(move |log| (name, log)));
        logs.flat_map(|(name, log)| log.entries().map(move |(key, item)| (name, log.slot, key, item)))
    }

    /// What stands at a key, in all logs that have it.
    pub fn at(&self, origin: &str, key: &Key) -> impl Iterator<Item = &Item> {
        let held = self.origins.get(&seat(origin));
        held.into_iter().flat_map(|held| &held.logs).filter_map(|log| log.get(key))
    }

    /// The digest of everything: equal on replicas that have the same.
    pub fn digest(&mut self) -> Digest {
        tree::root(&self.leaves())
    }

    /// The digests of all leaves of the tree.
    pub(super) fn leaves(&mut self) -> Vec<Digest> {
        let origins = &self.origins;
        let digest = |leaf| {
            let logs = in_leaf(origins, leaf).flat_map(|(name, held)| {
                held.logs.iter().map(move |log| {
                    let head = &log.signed.head;
                    (&**name, head.version, &head.root)
                })
            });
            tree::leaf(logs)
        };
        self.tree.leaves(digest)
    }

    /// The versions of the logs of a leaf, by origin.
    pub(super) fn versions(&self, leaf: u8) -> impl Iterator<Item = (&Name, Vec<Version>)> {
        in_leaf(&self.origins, leaf).map(|(name, held)| (name, held.versions()))
    }

    /// What to ask for, of versions that another replica has of an origin.
    pub fn wants(&self, origin: &Name, theirs: &[Version]) -> Vec<Want> {
        let held = self.origins.get(&seat(origin));
        let forgotten = self.forgotten.get(origin).copied().unwrap_or_default();
        let is_missing = |version: &&Version| {
            version.epoch.count > forgotten && held.is_none_or(|held| !held.covers(**version))
        };
        let want = |version: &Version| match held {
            Some(held) => held.want(origin, *version),
            None => Want { origin: Arc::clone(origin), version: *version, have: Vec::new(), resume: None },
        };
        theirs.iter().filter(is_missing).map(want).collect()
    }

    /// The part of a log that answers a question, in about `room` bytes; `None`: no log here has that version.
    pub fn part(&self, want: &Want, room: usize) -> Option<Segment> {
        let held = self.origins.get(&seat(&want.origin))?;
        let log = held.logs.iter().find(|log| log.signed.head.covers(want.version))?;
        Some(segment::cut(log, want, room))
    }

    /// Drops what is being received.
    pub(super) fn drop_pending(&mut self) {
        for held in self.origins.values_mut() {
            let before = held.all_bytes();
            held.pending = None;
            self.bytes = self.bytes + held.all_bytes() - before;
        }
        self.origins.retain(|_, held| !held.logs.is_empty());
    }

    /// Counts a step that changed an origin's logs.
    pub(super) fn stepped(&mut self, leaf: u8) {
        self.tree.touch(leaf);
        self.steps += 1;
    }

    /// Drops the logs of an origin that were born up to a start, and refuses them from now on.
    pub fn forget(&mut self, origin: &str, born: u32) -> Effects {
        let last = self.forgotten.entry(origin.into()).or_default();
        *last = born.max(*last);
        let born = *last;
        let seat = seat(origin);
        let mut effects = Effects::default();
        let Some(held) = self.origins.get_mut(&seat) else { return effects };
        let before = held.all_bytes();
        held.pending = None;
        for log in held.logs.extract_if(.., |log| log.signed.head.born <= born) {
            effects.changes.extend(all_gone(&seat.1, &log));
            effects.heads.push((Arc::clone(&seat.1), log.slot, None));
        }
        self.bytes = self.bytes + held.all_bytes() - before;
        if held.logs.is_empty() {
            self.origins.remove(&seat);
        }
        self.stepped(seat.0);
        effects
    }
}

/// The origins of a leaf.
pub(super) fn in_leaf(
    origins: &BTreeMap<(u8, Name), Held>,
    leaf: u8,
) -> impl Iterator<Item = (&Name, &Held)> {
    let first = (leaf, Name::from(""));
    origins
        .range(first..)
        .take_while(move |((other, _), _)| *other == leaf)
        .map(|((_, name), held)| (name, held))
}
