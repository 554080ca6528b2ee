//! What happens when.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

pub(crate) enum Event {
    Datagram {
        source: SocketAddr,
        bytes: Vec<u8>,
    },
    /// Stale unless it is the last one that was set.
    Tick {
        number: u64,
    },
    Request {
        from: usize,
        from_life: u32,
        bytes: Vec<u8>,
    },
    Answer {
        from: SocketAddrV4,
        bytes: Option<Vec<u8>>,
    },
}

pub(crate) struct Due {
    pub(crate) at: Duration,
    sequence: u64,
    pub(crate) node: usize,
    pub(crate) life: u32,
    /// Whether a slow node has waited for it already.
    pub(crate) has_waited: bool,
    pub(crate) event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// What is to happen, in the order of its times; what has one time in the order in which it was put in.
#[derive(Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Due>>,
    sequence: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Duration, node: usize, life: u32, event: Event) {
        self.put(Due { at, sequence: 0, node, life, has_waited: false, event });
    }

    /// Puts in again what is to happen later.
    pub(crate) fn put(&mut self, due: Due) {
        self.sequence += 1;
        self.heap.push(Reverse(Due { sequence: self.sequence, ..due }));
    }

    /// What happens next, if that is not after a time.
    pub(crate) fn pop_until(&mut self, end: Duration) -> Option<Due> {
        if self.heap.peek()?.0.at > end {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| due)
    }
}

impl Due {
    /// Adds itself to a hash of everything that happened (FNV-1a over words).
    pub(crate) fn trace(&self, before: u64) -> u64 {
        let (kind, bytes): (u64, &[u8]) = match &self.event {
            Event::Datagram { bytes, .. } => (1, bytes),
            Event::Tick { .. } => (2, &[]),
            Event::Request { bytes, .. } => (3, bytes),
            Event::Answer { bytes, .. } => (4, bytes.as_deref().unwrap_or_default()),
        };
        let words = [self.at.as_nanos() as u64, self.node as u64, kind, bytes.len() as u64];
        let ends = bytes.first_chunk::<8>().into_iter().chain(bytes.last_chunk::<8>());
        let words = words.into_iter().chain(ends.map(|end| u64::from_le_bytes(*end)));
        words.fold(before, |trace, word| (trace ^ word).wrapping_mul(0x100_0000_01b3))
    }
}
