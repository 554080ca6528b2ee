//! What nodes say to each other by datagrams.

use serde::{Deserialize, Serialize};

use crate::cluster::log::{DATAGRAM, Digest, Name, Segment, Version, Want};

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Gossip {
    /// Changes of logs, or parts of logs that were asked for.
    Push(Vec<Segment>),
    /// Versions that the sender has: who lacks one asks.
    Have(Vec<(Name, Version)>),
    /// A log that the sender lacks.
    Ask(Want),
    /// The digest of all that the sender has.
    Digest(Digest),
    /// The receiver of a digest has the same.
    Same(Digest),
    /// It has something else.
    Differs,
}

/// Bytes that a version takes in a datagram at most, with its origin's name.
pub(super) const VERSION: usize = 64 + 21;

impl Gossip {
    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (gossip, rest) = postcard::take_from_bytes(bytes).ok()?;
        rest.is_empty().then_some(gossip)
    }

    /// Segments in as few datagrams as they fit into; one that is too large is announced.
    pub(super) fn pushes(segments: impl IntoIterator<Item = Segment>) -> Vec<Self> {
        let mut datagrams: Vec<(usize, Vec<Segment>)> = Vec::new();
        for segment in segments {
            let segment = segment.within(DATAGRAM);
            let size = segment.wire_size();
            match datagrams.last_mut().filter(|(used, _)| used + size <= DATAGRAM) {
                Some((used, with)) => {
                    *used += size;
                    with.push(segment);
                }
                None => datagrams.push((size, vec![segment])),
            }
        }
        datagrams.into_iter().map(|(_, segments)| Self::Push(segments)).collect()
    }
}
