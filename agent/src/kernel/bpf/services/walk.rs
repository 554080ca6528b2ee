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
    /// The others.
    pub unconfirmed: u64,
    /// Entries removed since the first walk, old ones that the programs looked at no more.
    pub removed: u64,
    /// Entries that the kernel has evicted from `flows` since the table was made, at least.
    pub evicted: u64,
    /// The same of `unconfirmed`.
    pub unconfirmed_evicted: u64,
}

/// A walk. The tables' programs need none: they look at no entry that is idle for longer than its state allows.
#[derive(Debug)]
pub struct FlowWalk {
    maps: Arc<Maps>,
    table: FlowTable,
    at: Option<u32>,
    count: FlowCount,
    /// What was made of `flows` and `unconfirmed` before the walk began.
    made: Option<[u64; 2]>,
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
            self.made = Some([made(FlowTable::Flows)?, made(FlowTable::Unconfirmed)?]);
        }
        let mut left = (2 * self.maps.flows.capacity()?).div_ceil(STEPS) as usize;
        loop {
            let read = self.batch();
            let Ok((read, is_last)) = read else {
                self.begin();
                return read.map(|_| None);
            };
            if is_last {
                if self.table == FlowTable::Flows {
                    self.estimate()?;
                    return Ok(Some(self.begin()));
                }
                self.table = FlowTable::Flows;
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
        let [flows, unconfirmed] = self.made.unwrap_or_default();
        let missing = |table, made: u64, found: u64| -> Result<u64> {
            Ok(made.saturating_sub(self.maps.flows.entry_counts(table)?.removed).saturating_sub(found))
        };
        let evicted = missing(FlowTable::Flows, flows, self.count.flows)?;
        let unconfirmed_evicted = missing(FlowTable::Unconfirmed, unconfirmed, self.count.unconfirmed)?;
        self.count.evicted = self.count.evicted.max(evicted);
        self.count.unconfirmed_evicted = self.count.unconfirmed_evicted.max(unconfirmed_evicted);
        Ok(())
    }

    /// Begins anew; gives what was counted.
    fn begin(&mut self) -> FlowCount {
        let counted = self.count;
        self.count = FlowCount { flows: 0, unconfirmed: 0, ..counted };
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
        match self.table {
            FlowTable::Unconfirmed => self.count.unconfirmed += alive,
            FlowTable::Flows => self.count.flows += alive,
        }
        Ok((read, next.is_none()))
    }
}

/// Whether the programs look at it no more.
pub(super) fn is_old(key: &FlowKey, record: &FlowRecord, now: u32) -> bool {
    !LiveFlow::new(record).lives(key.protocol, now)
}
