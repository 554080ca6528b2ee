//! Exchanges under way.

use std::{collections::BTreeMap, time::Duration};

use crate::cluster::log::{Exchange, Name};

/// Exchanges that this node begins at once.
const BEGUN: usize = 3;
/// Exchanges under way at once, those of others too.
const ALL: usize = 12;
/// How long the other side may be silent.
const SILENCE: Duration = Duration::from_secs(10);

/// Which exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) member: Name,
    pub(super) exchange: Exchange,
    is_begun: bool,
    until: Duration,
}

/// Exchanges under way.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: BTreeMap<StreamId, Stream>,
    last: u64,
}

impl Streams {
    /// Whether this node may begin one with a member.
    pub(super) fn may_begin(&self, member: &Name) -> bool {
        let begun = self.streams.values().filter(|stream| stream.is_begun);
        begun.clone().count() < BEGUN && begun.clone().all(|stream| stream.member != *member)
    }

    /// Adds one; `None`: there are enough.
    pub(super) fn add(
        &mut self,
        member: &Name,
        exchange: Exchange,
        is_begun: bool,
        now: Duration,
    ) -> Option<StreamId> {
        if self.streams.len() >= ALL {
            return None;
        }
        self.last += 1;
        let (id, member, until) = (StreamId(self.last), member.clone(), now + SILENCE);
        self.streams.insert(id, Stream { member, exchange, is_begun, until });
        Some(id)
    }

    /// One of them, of which something is heard.
    pub(super) fn get(&mut self, id: StreamId, now: Duration) -> Option<&mut Stream> {
        let stream = self.streams.get_mut(&id)?;
        stream.until = now + SILENCE;
        Some(stream)
    }

    /// Whether this node has begun it; `None`: there is no such one.
    pub(super) fn is_begun(&self, id: StreamId) -> Option<bool> {
        self.streams.get(&id).map(|stream| stream.is_begun)
    }

    pub(super) fn remove(&mut self, id: StreamId) {
        self.streams.remove(&id);
    }

    /// Those whose other side has been silent for too long.
    pub(super) fn take_silent(&mut self, now: Duration) -> Vec<StreamId> {
        self.streams.extract_if(.., |_, stream| stream.until <= now).map(|(id, _)| id).collect()
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.streams.values().map(|stream| stream.until).min()
    }
}
