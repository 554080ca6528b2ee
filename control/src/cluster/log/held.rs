//! The logs of one origin, as far as no other one covers them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Change, Effects, Entry, Item, Key, Name, SignedHead, Version,
    segment::{Resume, Segment, Want},
    single::{Edit, Log, Mismatch},
};

/// How many logs of an origin are kept that do not cover one another; the latest. An origin makes a second one by losing
/// a part of its store, and continues both as soon as it meets it.
const MAX_LOGS: usize = 4;

/// The logs of one origin.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The origin's key: the first that was seen.
    pub(super) key: [u8; 32],
    /// The latest first; none covers another one.
    pub(super) logs: Vec<Log>,
    /// What is being received.
    pub(super) pending: Option<Pending>,
    /// The difference to what is here was refused: the next question is for everything.
    pub(super) wants_all: bool,
}

/// A log of which a part has come.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    signed: SignedHead,
    start: u64,
    upto: u64,
    entries: BTreeMap<Key, Item>,
    bytes: usize,
}

impl Pending {
    fn of(segment: &Segment) -> Self {
        Self {
            signed: segment.signed.clone(),
            start: segment.start,
            upto: segment.since,
            entries: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Whether a part goes on where this one ends.
    fn is_before(&self, segment: &Segment) -> bool {
        let head = &segment.signed.head;
        (self.start, self.upto) == (segment.start, segment.since)
            && head.is_line_of(self.signed.head.version)
            && (self.start == 0 || self.start >= head.floor)
    }

    fn add(&mut self, segment: Segment) {
        (self.signed, self.upto) = (segment.signed, segment.upto);
        for Entry { key, item } in segment.entries {
            self.bytes += item.size(&key);
            if let Some(former) = self.entries.insert(key.clone(), item) {
                self.bytes -= former.size(&key);
            }
        }
    }

    /// The whole, as one segment.
    fn whole(self) -> Segment {
        let Self { signed, start, upto, entries, .. } = self;
        let entries = entries.into_iter().map(|(key, item)| Entry { key, item }).collect();
        Segment { signed, start, since: start, upto, entries }
    }
}

/// What a segment is to the logs that are here.
pub(super) enum Fit {
    /// It is whole.
    Whole(Box<Segment>),
    /// A part; the rest is to be asked for.
    Part,
    /// It begins after what is here.
    Gap,
}

impl Held {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, logs: Vec::new(), pending: None, wants_all: false }
    }

    pub(super) fn versions(&self) -> Vec<Version> {
        self.logs.iter().map(|log| log.signed.head.version).collect()
    }

    pub(super) fn covers(&self, version: Version) -> bool {
        self.logs.iter().any(|log| log.signed.head.covers(version))
    }

    /// What its logs take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.logs.iter().map(Log::bytes).sum()
    }

    /// What they take with what is being received.
    pub(super) fn all_bytes(&self) -> usize {
        self.bytes() + self.pending.as_ref().map_or(0, |pending| pending.bytes)
    }

    /// A question for a version that is not here.
    pub(super) fn want(&self, origin: &Name, version: Version) -> Want {
        let resume = |pending: &Pending| Resume {
            version: pending.signed.head.version,
            start: pending.start,
            since: pending.upto,
        };
        Want {
            origin: Arc::clone(origin),
            version,
            have: if self.wants_all { Vec::new() } else { self.versions() },
            resume: self.pending.as_ref().map(resume),
        }
    }

    /// The log whose entries a whole segment continues.
    fn base(&self, segment: &Segment) -> Option<usize> {
        let is_base = |log: &Log| {
            let version = log.signed.head.version;
            segment.signed.head.is_line_of(version) && version.seq >= segment.start
        };
        self.logs.iter().position(is_base)
    }

    /// Takes a segment's entries in, as far as they go.
    pub(super) fn fit(&mut self, segment: Segment) -> Fit {
        if segment.start > 0 && self.base(&segment).is_none() {
            return Fit::Gap;
        }
        if segment.since == segment.start && segment.is_last() {
            return Fit::Whole(Box::new(segment));
        }
        let goes_on = self.pending.as_ref().is_some_and(|pending| pending.is_before(&segment));
        if !goes_on && segment.since > segment.start {
            return Fit::Gap;
        }
        if segment.entries.is_empty() && !segment.is_last() {
            return Fit::Gap;
        }
        let mut pending = match self.pending.take() {
            Some(pending) if goes_on => pending,
            _ => Pending::of(&segment),
        };
        let is_last = segment.is_last();
        pending.add(segment);
        if is_last {
            return Fit::Whole(Box::new(pending.whole()));
        }
        self.pending = Some(pending);
        Fit::Part
    }

    /// Takes a whole segment, and drops the logs that it covers.
    ///
    /// # Errors
    /// Its entries are not what its head says; nothing is changed then.
    pub(super) fn take(&mut self, origin: &Name, segment: Segment) -> Result<Effects, Mismatch> {
        let base = if segment.start == 0 { None } else { self.base(&segment) };
        let mut effects = Effects::default();
        let log = match base {
            Some(place) => {
                let has = self.logs[place].signed.head.version.seq;
                let edits = self.logs[place].advance(segment.signed, segment.entries, has)?;
                let log = self.logs.swap_remove(place);
                effects.changes.extend(changes(origin, log.slot, edits));
                log
            }
            None => {
                let mut log = Log::new(self.free_slot(), segment.signed.clone());
                log.advance(segment.signed, segment.entries, 0)?;
                self.replace(origin, &mut log, &mut effects);
                log
            }
        };
        self.insert(origin, log, &mut effects);
        Ok(effects)
    }

    /// Puts a log that was made anew in place of the first one that it covers: only what differs changes.
    fn replace(&mut self, origin: &Name, log: &mut Log, effects: &mut Effects) {
        let covered = |former: &Log| log.signed.head.covers(former.signed.head.version);
        let former = self.logs.iter().position(covered).map(|place| self.logs.swap_remove(place));
        if let Some(former) = &former {
            log.slot = former.slot;
        }
        let was = |key: &Key| former.as_ref().and_then(|former| former.get(key)).cloned();
        let mut edits = Vec::new();
        for (key, item) in log.entries() {
            let was = was(key);
            if was.as_ref() != Some(item) {
                edits.push(Edit { key: key.clone(), was, now: Some(item.clone()) });
            }
        }
        let gone =
            former.iter().flat_map(|former| former.entries()).filter(|(key, _)| log.get(key).is_none());
        edits.extend(gone.map(|(key, item)| Edit { key: key.clone(), was: Some(item.clone()), now: None }));
        effects.changes.extend(changes(origin, log.slot, edits));
    }

    /// Adds a log; those that it covers go, and the oldest ones that are too many.
    pub(super) fn insert(&mut self, origin: &Name, log: Log, effects: &mut Effects) {
        let head = log.signed.head.clone();
        let mut gone: Vec<Log> =
            self.logs.extract_if(.., |other| head.covers(other.signed.head.version)).collect();
        effects.heads.push((Arc::clone(origin), log.slot, Some(log.signed.clone())));
        self.logs.push(log);
        self.logs.sort_by_key(|log| std::cmp::Reverse(log.signed.head.version));
        gone.extend(self.logs.drain(self.logs.len().min(MAX_LOGS)..));
        for log in gone {
            effects.changes.extend(all_gone(origin, &log));
            effects.heads.push((Arc::clone(origin), log.slot, None));
        }
        (self.pending, self.wants_all) = (None, false);
    }

    /// A slot that no log has.
    pub(super) fn free_slot(&self) -> u32 {
        (0..).find(|slot| self.logs.iter().all(|log| log.slot != *slot)).unwrap_or_default()
    }
}

/// Edits of a log, as changes.
pub(super) fn changes(origin: &Name, slot: u32, edits: Vec<Edit>) -> impl Iterator<Item = Change> {
    let origin = Arc::clone(origin);
    edits.into_iter().map(move |Edit { key, was, now }| Change {
        origin: Arc::clone(&origin),
        slot,
        key,
        was,
        now,
    })
}

/// All entries of a log are no more.
pub(super) fn all_gone(origin: &Name, log: &Log) -> Vec<Change> {
    let gone = |(key, item): (&Key, &Item)| Change {
        origin: Arc::clone(origin),
        slot: log.slot,
        key: key.clone(),
        was: Some(item.clone()),
        now: None,
    };
    log.entries().map(gone).collect()
}
