//! What a version brings, for members that have the one before or nearly so.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Entry, Key,
    segment::Segment,
    single::{Edit, Log},
};

/// Bytes of a push that fit a datagram of 1,400 with what it is wrapped in.
pub const DATAGRAM: usize = 1_150;
/// How many versions a push goes back at most.
const VERSIONS: usize = 32;

/// The last versions that were written.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Each with the number after which it begins.
    versions: VecDeque<(u64, Vec<Key>)>,
    /// The last version's number.
    last: u64,
}

impl Recent {
    /// The head with what a version brings, and with what was brought by those before, as far as a datagram has room: pushes
    /// that are lost or overtake one another are then seldom missed.
    pub(super) fn push(&mut self, log: &Log, start: u64, edits: &[Edit]) -> Segment {
        let head = &log.signed.head;
        if start != self.last {
            self.versions.clear();
        }
        self.last = head.version.seq;
        self.versions.push_back((start, edits.iter().map(|edit| edit.key.clone()).collect()));
        self.versions.drain(..self.versions.len().saturating_sub(VERSIONS));
        let mut segment = Segment {
            signed: log.signed.clone(),
            start,
            since: start,
            upto: head.version.seq,
            entries: Vec::new(),
        };
        let mut room = DATAGRAM.saturating_sub(segment.wire_size());
        let mut entries = BTreeMap::new();
        for (first, keys) in self.versions.iter().rev() {
            // Of what is under the floor a member may lack tombstones that are gone.
            if *first < start && *first < head.floor {
                break;
            }
            let found = keys.iter().filter_map(|key| Some((key, log.get(key)?)));
            let new: BTreeMap<u64, _> = found
                .filter(|(_, item)| item.seq > *first && !entries.contains_key(&item.seq))
                .map(|(key, item)| (item.seq, (key, item)))
                .collect();
            let size = new.values().map(|(key, item)| item.wire_size(key)).sum();
            if *first < start && size > room {
                break;
            }
            room = room.saturating_sub(size);
            (segment.start, segment.since) = (*first, *first);
            entries.extend(new);
        }
        segment.entries =
            entries.into_values().map(|(key, item)| Entry { key: key.clone(), item: item.clone() }).collect();
        segment
    }
}
