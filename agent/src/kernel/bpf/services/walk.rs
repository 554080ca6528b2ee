//! A walk over the flow tables that never ends: old entries go, the others are counted.

use std::sync::Arc;

use bytemuck::Zeroable as _;
use dataplane_common::abi::{FlowKey, FlowRecord, LiveFlow};
use serde::{Deserialize, Serialize};

use super::{Maps, Result};
use crate::kernel::bpf::flows::{FlowTable, coarse_now};

/// How many steps a walk over full tables takes.
const STEPS: u32 = 64;
/// Entries that are read at once; a kernel hash bucket, which comes whole, has far fewer.
const BATCH: usize = 2048;

/// What a walk found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCount {
    /// Entries whose backend has answered and whose client has acknowledged that: two a flow.
    pub flows: u64,
    /// Entries of datagrams whose backend has answered.
    pub datagrams: u64,
    /// The others.
    pub unconfirmed: u64,
    /// Entries removed since the first walk, old ones that the programs looked at no more.
    pub removed: u64,
    /// Entries that the kernel has evicted from `flows` since the table was made, at least.
    pub evicted: u64,
    /// The same of `datagrams`.
    pub datagrams_evicted: u64,
    /// The same of `unconfirmed`.
    pub unconfirmed_evicted: u64,
}

impl FlowCount {
    /// What was found in a table, and what was evicted from it.
    const fn of(&mut self, table: FlowTable) -> (&mut u64, &mut u64) {
        match table {
            FlowTable::Flows => (&mut self.flows, &mut self.evicted),
            FlowTable::Datagrams => (&mut self.datagrams, &mut self.datagrams_evicted),
            FlowTable::Unconfirmed => (&mut self.unconfirmed, &mut self.unconfirmed_evicted),
        }
    }
}

/// A walk. The tables' programs need none: they look at no entry that is idle for longer than its state allows.
#[derive(Debug)]
pub struct FlowWalk {
    maps: Arc<Maps>,
    table: FlowTable,
    at: Option<u32>,
    count: FlowCount,
    /// What was made in each table before the walk began.
    made: Option<[u64; FlowTable::ALL.len()]>,
    keys: Vec<FlowKey>,
    values: Vec<FlowRecord>,
}

impl FlowWalk {
    pub(super) fn new(maps: Arc<Maps>) -> Self {
        Self {
            maps,
            table: FlowTable::Unconfirmed,
            at: None,
            count: FlowCount::default(),
            made: None,
            keys: vec![FlowKey::zeroed(); BATCH],
            values: vec![FlowRecord::zeroed(); BATCH],
        }
    }

    /// Goes on by a 64th of the tables' room; gives the count when that was the last of it.
    ///
    /// # Errors
    /// The kernel refuses to read a table; the next step begins a walk anew.
    pub fn step(&mut self) -> Result<Option<FlowCount>> {
        if self.made.is_none() {
            let made = |table| self.maps.flows.entry_counts(table).map(|counts| counts.made);
            let [flows, datagrams, unconfirmed] = FlowTable::ALL.map(made);
            self.made = Some([flows?, datagrams?, unconfirmed?]);
        }
        let room = self.maps.flows.room()?;
        let mut left = (room.flows + room.datagrams).div_ceil(STEPS) as usize;
        loop {
            let read = self.batch();
            let Ok((read, is_last)) = read else {
                self.begin();
                return read.map(|_| None);
            };
            if is_last {
                self.table = match self.table {
                    FlowTable::Unconfirmed => FlowTable::Datagrams,
                    FlowTable::Datagrams => FlowTable::Flows,
                    FlowTable::Flows => {
                        self.estimate()?;
                        return Ok(Some(self.begin()));
                    }
                };
            }
            left = left.saturating_sub(read.max(1));
            if left == 0 {
                return Ok(None);
            }
        }
    }

    /// All that is left of the walk.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn finish(&mut self) -> Result<FlowCount> {
        loop {
            if let Some(count) = self.step()? {
                return Ok(count);
            }
        }
    }

    /// How many entries were evicted: those that were made before the walk, and were neither removed nor found. Found
    /// are some that were made meanwhile, too: it is a lower limit, which never falls.
    fn estimate(&mut self) -> Result<()> {
        for (table, made) in FlowTable::ALL.into_iter().zip(self.made.unwrap_or_default()) {
            let removed = self.maps.flows.entry_counts(table)?.removed;
            let (found, evicted) = self.count.of(table);
            *evicted = made.saturating_sub(removed).saturating_sub(*found).max(*evicted);
        }
        Ok(())
    }

    /// Begins anew; gives what was counted.
    fn begin(&mut self) -> FlowCount {
        let counted = self.count;
        self.count = FlowCount { flows: 0, datagrams: 0, unconfirmed: 0, ..counted };
        (self.table, self.at, self.made) = (FlowTable::Unconfirmed, None, None);
        counted
    }

    /// Reads a batch and removes what is old; says how much was read, and whether that was the table's end.
    fn batch(&mut self) -> Result<(usize, bool)> {
        let (read, next) = self.maps.flows.batch(self.table, self.at, &mut self.keys, &mut self.values)?;
        self.at = next;
        let now = coarse_now()?;
        let mut alive = 0;
        for (key, value) in self.keys.iter().zip(&self.values).take(read) {
            if !is_old(key, value, now) {
                alive += 1;
            } else if self.maps.flows.remove_if(self.table, key, |record| is_old(key, record, now))? {
                self.count.removed += 1;
            }
        }
        *self.count.of(self.table).0 += alive;
        Ok((read, next.is_none()))
    }
}

/// Whether the programs look at it no more.
pub(super) fn is_old(key: &FlowKey, record: &FlowRecord, now: u32) -> bool {
    !LiveFlow::new(record).lives(key.protocol, now)
}
