//! What happens to hosts.

use std::{net::SocketAddr, time::Duration};

use crate::streams::Place;

pub(crate) enum Event {
    Datagram {
        source: SocketAddr,
        bytes: Vec<u8>,
    },
    /// Stale unless it is the last one that was set.
    Tick {
        number: u64,
    },
    Said {
        stream: Place,
        bytes: Vec<u8>,
    },
    /// A stream is over, or could not be opened.
    Ended {
        stream: Place,
    },
    /// The disk has written.
    Written,
}

/// Something that happens to a host in one of its lives.
pub(crate) struct Due {
    pub(crate) host: usize,
    pub(crate) life: u32,
    /// Whether a slow node has waited for it already.
    pub(crate) has_waited: bool,
    pub(crate) event: Event,
}

impl Due {
    pub(crate) fn new(host: usize, life: u32, event: Event) -> Self {
        Self { host, life, has_waited: false, event }
    }

    /// Adds itself to a hash of everything that happened (FNV-1a over words).
    pub(crate) fn trace(&self, at: Duration, before: u64) -> u64 {
        let (kind, bytes): (u64, &[u8]) = match &self.event {
            Event::Datagram { bytes, .. } => (1, bytes),
            Event::Tick { .. } => (2, &[]),
            Event::Said { bytes, .. } => (3, bytes),
            Event::Ended { .. } => (4, &[]),
            Event::Written => (5, &[]),
        };
        let words = [at.as_nanos() as u64, self.host as u64, kind, bytes.len() as u64];
        let ends = bytes.first_chunk::<8>().into_iter().chain(bytes.last_chunk::<8>());
        let words = words.into_iter().chain(ends.map(|end| u64::from_le_bytes(*end)));
        words.fold(before, |trace, word| (trace ^ word).wrapping_mul(0x100_0000_01b3))
    }
}
