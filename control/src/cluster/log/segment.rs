//! Parts of a log on their way.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Entry, Item, Name, SignedHead, Version, single::Log};

/// A message that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a message of {0} bytes is none of this version's; run one version of fanlight on all nodes")]
pub struct MessageError(pub usize);

/// A log, or what is new in it, or a part of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// What the whole comes to.
    pub signed: SignedHead,
    /// The whole begins after this number: who has a version up to it needs no more. 0: everything.
    pub start: u64,
    /// This part begins after this number.
    pub since: u64,
    /// It ends with this one; the head's when nothing is left.
    pub upto: u64,
    /// Entries in the order of their numbers.
    pub entries: Vec<Entry>,
}

/// A part of a log that was begun to be received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The version that the received part belonged to.
    pub version: Version,
    /// Where the whole begins.
    pub start: u64,
    /// Where the next part begins.
    pub since: u64,
}

/// A log that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Whose.
    pub origin: Name,
    /// Which: the version as it was announced, or a later one of the log.
    pub version: Version,
    /// What the asking node has of the origin; nothing, when it needs everything.
    pub have: Vec<Version>,
    /// Where to go on.
    pub resume: Option<Resume>,
}

/// What a head takes in a message at most, without its ancestors.
const HEAD: usize = 280;
/// What an ancestor takes.
const ANCESTOR: usize = 22;

impl Segment {
    /// What it takes in a message at most, in bytes.
    pub fn wire_size(&self) -> usize {
        let entries: usize = self.entries.iter().map(|entry| entry.item.wire_size(&entry.key)).sum();
        HEAD + ANCESTOR * self.signed.head.ancestors.len() + entries
    }

    /// Whether nothing follows it.
    pub fn is_last(&self) -> bool {
        self.upto == self.signed.head.version.seq
    }

    /// Whether its numbers fit together, and its entries into a log.
    pub(super) fn is_well_formed(&self) -> bool {
        let mut last = self.since;
        let is_next = |entry: &Entry| {
            let fits = entry.item.seq > last && entry.item.fits(&entry.key);
            last = entry.item.seq;
            fits
        };
        self.start <= self.since
            && self.since <= self.upto
            && self.upto <= self.signed.head.version.seq
            && self.entries.iter().all(is_next)
            && self.entries.last().is_none_or(|entry| entry.item.seq <= self.upto)
    }

    /// As it is, where it fits into so many bytes; else without entries: who has less than it says asks for them.
    #[must_use]
    pub fn within(self, room: usize) -> Self {
        if self.wire_size() <= room { self } else { Self { upto: self.since, entries: Vec::new(), ..self } }
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are no segment.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        postcard::from_bytes(bytes).map_err(|_unreadable| MessageError(bytes.len()))
    }
}

/// The part of a log that answers a question, in about `room` bytes: at least one entry.
pub(super) fn cut(log: &Log, want: &Want, room: usize) -> Segment {
    let head = &log.signed.head;
    let best = want.have.iter().filter(|have| head.is_line_of(**have)).map(|have| have.seq).max();
    let start = best.filter(|seq| *seq >= head.floor).unwrap_or(0);
    let mut segment =
        Segment { signed: log.signed.clone(), start, since: start, upto: start, entries: Vec::new() };
    let goes_on = |resume: &&Resume| {
        head.is_line_of(resume.version) && (resume.start == 0 || resume.start >= head.floor)
    };
    if let Some(resume) = want.resume.as_ref().filter(goes_on) {
        (segment.start, segment.since, segment.upto) = (resume.start, resume.since, resume.since);
    }
    let mut left = room.saturating_sub(segment.wire_size());
    // One more than could fit.
    let most = left / Item::LEAST_WIRE_SIZE + 2;
    for (key, item) in log.after(segment.since, most) {
        let size = item.wire_size(key);
        if size > left && !segment.entries.is_empty() {
            return segment;
        }
        left = left.saturating_sub(size);
        segment.upto = item.seq;
        segment.entries.push(Entry { key: key.clone(), item: item.clone() });
    }
    segment.upto = head.version.seq;
    segment
}
