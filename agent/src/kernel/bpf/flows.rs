//! Maps `flows` and `young`: read as a whole, in batches.

use std::os::fd::AsFd as _;

use aya::maps::MapData;
use bytemuck::Zeroable as _;
use dataplane_common::abi::{FlowKey, FlowRecord, SEEN_SHIFT};
use nix::time::{ClockId, clock_gettime};

use super::{
    error::{Context as _, Error, Result},
    sys,
};

/// Elements a system call: a kernel hash bucket, which comes whole, has far fewer.
const BATCH: usize = 8192;

/// The flow tables.
#[derive(Debug)]
pub(super) struct FlowTables {
    flows: MapData,
    young: MapData,
}

impl FlowTables {
    pub(super) fn new(flows: MapData, young: MapData) -> Self {
        Self { flows, young }
    }

    /// Visits every entry. One that is promoted meanwhile is seen at least once: it stays in `young`, which is read
    /// first.
    pub(super) fn each(&self, mut visit: impl FnMut(&FlowKey, &FlowRecord)) -> Result<()> {
        let mut keys = vec![FlowKey::zeroed(); BATCH];
        let mut values = vec![FlowRecord::zeroed(); BATCH];
        for (name, map) in [("young", &self.young), ("flows", &self.flows)] {
            let mut at = None;
            loop {
                let batch = sys::lookup_batch(map.fd().as_fd(), at, &mut keys, &mut values);
                let (count, next) = batch.during(|| format!("reading map {name}"))?;
                keys.iter().zip(&values).take(count).for_each(|(key, value)| visit(key, value));
                if next.is_none() {
                    break;
                }
                at = next;
            }
        }
        Ok(())
    }

    /// How many flows the table holds: each has two entries.
    pub(super) fn capacity(&self) -> Result<u32> {
        Ok(self.flows.info().map_err(Error::map("flows"))?.max_entries() / 2)
    }
}

/// The programs' coarse clock, as in [`FlowRecord::seen`].
pub(super) fn coarse_now() -> Result<u32> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).during(|| "reading the clock".to_owned())?;
    let nanoseconds = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    Ok((nanoseconds >> SEEN_SHIFT) as u32)
}
