//! How many entries of the flow tables were made and removed: the programs count in map `flow_books`, the agent in map
//! `watch`. Counts begin with the first tables, and go on when entries are moved to others.

use std::{mem::offset_of, os::fd::AsFd as _, sync::atomic::Ordering};

use aya::maps::{Map, MapData, PerCpuArray};
use dataplane_common::abi::{EntryChange, Watch};

use super::{
    error::{Context as _, Error, Result},
    flows::FlowTable,
    sys::Mapping,
};

const NAME: &str = "flow_books";

/// The programs' counts and the agent's.
pub(super) struct FlowAccounting {
    counts: PerCpuArray<MapData, u64>,
    watch: Mapping,
}

impl std::fmt::Debug for FlowAccounting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowAccounting").finish_non_exhaustive()
    }
}

/// Entries of one table, counted since the first one was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EntryCounts {
    /// Made.
    pub(super) made: u64,
    /// Removed by a program or the agent, not by the kernel for want of room.
    pub(super) removed: u64,
}

impl FlowAccounting {
    pub(super) fn new(counts: MapData, watch: &MapData) -> Result<Self> {
        let counts = Map::from_map_data(counts).and_then(PerCpuArray::try_from).map_err(Error::map(NAME))?;
        let watch = Mapping::new(watch.fd().as_fd(), size_of::<Watch>());
        Ok(Self { counts, watch: watch.during(|| "mapping map watch".to_owned())? })
    }

    /// The counts of a table.
    pub(super) fn read(&self, table: FlowTable) -> Result<EntryCounts> {
        let sum = |entry: EntryChange| -> Result<u64> {
            let counts = self.counts.get(&entry.of(table as u32), 0).map_err(Error::map(NAME))?;
            Ok(counts.iter().sum())
        };
        let by_agent = self.watch.u64(Self::removed_at(table)).load(Ordering::Relaxed);
        Ok(EntryCounts { made: sum(EntryChange::Made)?, removed: by_agent + sum(EntryChange::Removed)? })
    }

    /// Counts an entry that the agent has removed.
    pub(super) fn note_removed(&self, table: FlowTable) {
        self.watch.u64(Self::removed_at(table)).fetch_add(1, Ordering::Relaxed);
    }

    fn removed_at(table: FlowTable) -> usize {
        offset_of!(Watch, removed) + table as usize * size_of::<u64>()
    }
}
