//! Streams between nodes: what one side says arrives whole and in order, or the stream breaks.

use std::{collections::BTreeMap, time::Duration};

/// How long a connection is tried.
pub(crate) const CONNECT: Duration = Duration::from_secs(3);

/// After this a side that hears nothing gives a stream up.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);

/// Bytes of a connection beside what it carries, each way: opening, keys, acknowledgements, closing.
pub(crate) const CONNECTION: u64 = 1_500;

/// What a stream is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two nodes compare what they know of members.
    Members,
    /// Two nodes give each other what they lack of the logs.
    Logs,
    /// A write that another node decides on.
    Write,
}

/// A stream as a node names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// This node has opened it, and numbered it.
    Own(u64),
    Other(Place),
}

/// A stream as the world names it: by the host that has opened it, in which life, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    host: usize,
    life: u32,
    number: u64,
}

/// One end: a host in a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) host: usize,
    pub(crate) life: u32,
}

/// The streams that are open.
#[derive(Default)]
pub(crate) struct Streams(BTreeMap<Place, (End, Kind)>);

impl Streams {
    pub(crate) fn open(&mut self, from: End, number: u64, to: End, kind: Kind) -> Place {
        let place = Place { host: from.host, life: from.life, number };
        self.0.insert(place, (to, kind));
        place
    }

    /// The place of a stream that a node names.
    pub(crate) fn place(own: End, stream: Stream) -> Place {
        match stream {
            Stream::Own(number) => Place { host: own.host, life: own.life, number },
            Stream::Other(place) => place,
        }
    }

    /// A stream's name at one of its ends.
    pub(crate) fn name(place: Place, end: End) -> Stream {
        let is_own = (place.host, place.life) == (end.host, end.life);
        if is_own { Stream::Own(place.number) } else { Stream::Other(place) }
    }

    /// What a stream is about; none when it is no more.
    pub(crate) fn kind(&self, place: Place) -> Option<Kind> {
        self.0.get(&place).map(|(_, kind)| *kind)
    }

    /// The other end of a stream.
    pub(crate) fn other(&self, place: Place, end: End) -> Option<End> {
        let (to, _) = self.0.get(&place)?;
        let opener = End { host: place.host, life: place.life };
        Some(if end == opener { *to } else { opener })
    }

    pub(crate) fn close(&mut self, place: Place) {
        self.0.remove(&place);
    }

    /// The streams of one end.
    pub(crate) fn of(&self, end: End) -> Vec<Place> {
        let is_at = |(place, (to, _)): &(&Place, &(End, Kind))| {
            *to == end || (place.host, place.life) == (end.host, end.life)
        };
        self.0.iter().filter(is_at).map(|(place, _)| *place).collect()
    }
}

/// Bytes on the wire of what is said.
pub(crate) fn said_bytes(bytes: usize) -> u64 {
    (bytes + bytes / 1_400 * 40) as u64
}
