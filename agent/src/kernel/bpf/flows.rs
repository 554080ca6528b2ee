//! The flow tables: their sizes, and their entries, read as a whole, in batches.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::maps::MapData;
use bytemuck::Zeroable as _;
pub use dataplane_common::abi::FlowTable;
use dataplane_common::abi::{
    ENTRIES_PER_CPU, FlowKey, FlowRecord, LiveFlow, SEEN_SHIFT, UNCONFIRMED_ENTRIES,
};
use nix::time::{ClockId, clock_gettime};

use super::{
    error::{Context as _, Error, Result},
    flow_accounting::{EntryCounts, FlowAccounting},
    sys,
};

/// Elements a system call: a kernel hash bucket, which comes whole, has far fewer.
const BATCH: usize = 8192;

/// Flows that the table holds where the memory decides.
const AUTO: std::ops::RangeInclusive<u64> = 65_536..=1_000_000;
/// Flows of a node without services: as few as the kernel can fill evenly.
pub const IDLE_FLOWS: u32 = 0;
/// Kernel memory that a flow takes (measured).
const BYTES_PER_FLOW: u64 = 246;
/// A flow has an entry for each direction.
const ENTRIES_PER_FLOW: u32 = 2;
/// For so many connections there is room for one flow of datagrams: these live for two minutes, and what is evicted begins
/// anew with its next datagram.
const CONNECTIONS_PER_DATAGRAMS: u32 = 4;

/// Sizes of the flow tables when they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowSizes {
    pub(super) flows: u32,
    pub(super) datagrams: u32,
    pub(super) unconfirmed: u32,
}

impl FlowSizes {
    /// For so many connections, [`IDLE_FLOWS`] where there are no services; `None`: for as many as a hundredth of the memory
    /// holds. Smaller ones than the kernel can fill
    /// evenly are not made.
    pub(super) fn new(flows: Option<u32>) -> Result<Self> {
        let processors = aya::util::nr_cpus().map_err(|(_, error)| error);
        let processors = processors.during(|| "counting the possible CPUs".to_owned())? as u32;
        let flows = match flows {
            Some(flows) => flows,
            None => auto(memory().during(|| "reading the memory's size".to_owned())?),
        };
        let least = processors.saturating_mul(ENTRIES_PER_CPU);
        let entries = flows.saturating_mul(ENTRIES_PER_FLOW);
        let unconfirmed = if flows == IDLE_FLOWS { least } else { UNCONFIRMED_ENTRIES.max(least) };
        let datagrams = (entries / CONNECTIONS_PER_DATAGRAMS).max(least);
        Ok(Self { flows: entries.max(least), datagrams, unconfirmed })
    }

    /// Makes room for so many entries of a table.
    pub(super) fn hold(&mut self, table: FlowTable, entries: u32) {
        let size = match table {
            FlowTable::Flows => &mut self.flows,
            FlowTable::Datagrams => &mut self.datagrams,
            FlowTable::Unconfirmed => &mut self.unconfirmed,
        };
        *size = entries.max(*size);
    }

    /// Entries of a table.
    pub(super) fn of(self, table: FlowTable) -> u32 {
        match table {
            FlowTable::Flows => self.flows,
            FlowTable::Datagrams => self.datagrams,
            FlowTable::Unconfirmed => self.unconfirmed,
        }
    }
}

/// The room that tables get which are asked to hold so many connections, or as many as the memory allows.
pub fn room_for(flows: Option<u32>) -> Result<FlowRoom> {
    let FlowSizes { flows, datagrams, unconfirmed } = FlowSizes::new(flows)?;
    Ok(FlowRoom { flows, datagrams, unconfirmed })
}

/// Whether this host's memory can hold tables of so many flows: at most half of it.
pub fn check_flows(flows: u32) -> Result<()> {
    check_memory(flows, memory().during(|| "reading the memory's size".to_owned())?)
}

fn check_memory(flows: u32, memory: u64) -> Result<()> {
    let needed = bytes(flows.into());
    if needed > memory / 2 {
        let most = flows_in(memory / 2);
        return Err(Error::Memory { flows, needed: needed >> 20, memory: memory >> 20, most });
    }
    Ok(())
}

fn auto(memory: u64) -> u32 {
    flows_in(memory / 100).clamp(*AUTO.start(), *AUTO.end()) as u32
}

/// Kernel memory of tables for so many connections, and the flows of datagrams that go with them.
fn bytes(flows: u64) -> u64 {
    let every = u64::from(CONNECTIONS_PER_DATAGRAMS);
    flows * BYTES_PER_FLOW * (every + 1) / every
}

/// For how many connections there is room in so much memory.
fn flows_in(memory: u64) -> u64 {
    let every = u64::from(CONNECTIONS_PER_DATAGRAMS);
    memory * every / (every + 1) / BYTES_PER_FLOW
}

/// Bytes of memory that the host has.
fn memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let total = total.and_then(|kib| kib.trim().parse::<u64>().ok());
    total.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no MemTotal in /proc/meminfo"))
}

/// The flow tables.
#[derive(Debug)]
pub(super) struct FlowTables {
    /// By [`FlowTable`].
    maps: [MapData; FlowTable::ALL.len()],
    accounting: FlowAccounting,
}

impl FlowRoom {
    /// How many connections that is.
    pub const fn connections(&self) -> u32 {
        self.flows / ENTRIES_PER_FLOW
    }

    /// Whether a table has less room than in another one of these.
    pub const fn is_less(&self, than: &Self) -> bool {
        self.flows < than.flows || self.datagrams < than.datagrams || self.unconfirmed < than.unconfirmed
    }
}

/// Entries that the tables have room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowRoom {
    /// Of established connections.
    pub flows: u32,
    /// Of flows of datagrams that were answered.
    pub datagrams: u32,
    /// Of those that are not yet.
    pub unconfirmed: u32,
}

impl FlowTables {
    pub(super) fn new(maps: [MapData; FlowTable::ALL.len()], accounting: FlowAccounting) -> Self {
        Self { maps, accounting }
    }

    /// How many entries were made in a table and removed from it so far.
    pub(super) fn entry_counts(&self, table: FlowTable) -> Result<EntryCounts> {
        self.accounting.read(table)
    }

    /// How many entries there is room for.
    pub(super) fn room(&self) -> Result<FlowRoom> {
        let entries = |table: FlowTable| {
            self.map(table).info().map(|info| info.max_entries()).map_err(Error::map(table.name()))
        };
        let [flows, datagrams, unconfirmed] = FlowTable::ALL.map(entries);
        Ok(FlowRoom { flows: flows?, datagrams: datagrams?, unconfirmed: unconfirmed? })
    }

    /// Visits every entry. One that is promoted meanwhile is seen at least once: it stays in `unconfirmed`, which is read
    /// first.
    pub(super) fn each(&self, mut visit: impl FnMut(&FlowKey, &FlowRecord)) -> Result<()> {
        FlowTable::ALL.into_iter().rev().try_for_each(|table| self.each_of(table, &mut visit))
    }

    /// Visits every entry of one table.
    pub(super) fn each_of(
        &self,
        table: FlowTable,
        mut visit: impl FnMut(&FlowKey, &FlowRecord),
    ) -> Result<()> {
        let read = each_entry(self.map(table).fd().as_fd(), |key, record| {
            visit(key, record);
            Ok(())
        });
        read.during(|| format!("reading map {}", table.name()))
    }

    /// The entry of a key, where one counts at present: confirmed flows come first, as for the programs.
    pub(super) fn find(&self, key: &FlowKey) -> Result<Option<FlowRecord>> {
        let now = coarse_now()?;
        for table in FlowTable::of_protocol(key.protocol) {
            let found = self.entry(table, key)?;
            if let Some(record) = found.filter(|record| LiveFlow::new(record).lives(key.protocol, now)) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The entry of a key, however old.
    pub(super) fn entry(&self, table: FlowTable, key: &FlowKey) -> Result<Option<FlowRecord>> {
        sys::lookup(self.map(table).fd().as_fd(), key).during(|| format!("reading map {}", table.name()))
    }

    fn map(&self, table: FlowTable) -> &MapData {
        &self.maps[table as usize]
    }

    /// Removes an entry that is over; says whether it was. One that came to life again is left, or put back in the
    /// moment that it was away.
    pub(super) fn remove_if(
        &self,
        table: FlowTable,
        key: &FlowKey,
        is_over: impl Fn(&FlowRecord) -> bool,
    ) -> Result<bool> {
        let what = || "removing flows".to_owned();
        if !self.entry(table, key)?.is_some_and(|record| is_over(&record)) {
            return Ok(false);
        }
        let map = self.map(table).fd().as_fd();
        match sys::take(map, key).during(what)? {
            Some(record) if !is_over(&record) => {
                sys::insert_new(map, key, &record).during(what)?;
                Ok(false)
            }
            Some(_) => {
                self.accounting.note_removed(table);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// The next entries of a table, after those before `at`; how many were read, and where to go on.
    pub(super) fn batch(
        &self,
        table: FlowTable,
        at: Option<u32>,
        keys: &mut [FlowKey],
        values: &mut [FlowRecord],
    ) -> Result<(usize, Option<u32>)> {
        let batch = sys::lookup_batch(self.map(table).fd().as_fd(), at, keys, values);
        batch.during(|| format!("reading map {}", table.name()))
    }

    /// How many flows a table holds: each has two entries.
    pub(super) fn capacity(&self, table: FlowTable) -> Result<u32> {
        Ok(self.map(table).info().map_err(Error::map(table.name()))?.max_entries() / ENTRIES_PER_FLOW)
    }
}

/// Visits every entry of a flow table, until a visit fails.
pub(super) fn each_entry(
    map: BorrowedFd<'_>,
    mut visit: impl FnMut(&FlowKey, &FlowRecord) -> io::Result<()>,
) -> io::Result<()> {
    let (mut keys, mut values) = (vec![FlowKey::zeroed(); BATCH], vec![FlowRecord::zeroed(); BATCH]);
    let mut at = None;
    loop {
        let (count, next) = sys::lookup_batch(map, at, &mut keys, &mut values)?;
        keys.iter().zip(&values).take(count).try_for_each(|(key, record)| visit(key, record))?;
        if next.is_none() {
            return Ok(());
        }
        at = next;
    }
}

/// The programs' coarse clock, as in [`FlowRecord::seen`].
pub fn coarse_now() -> Result<u32> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).during(|| "reading the clock".to_owned())?;
    let nanoseconds = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    Ok((nanoseconds >> SEEN_SHIFT) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_decides_within_limits() {
        const GIB: u64 = 1 << 30;
        assert_eq!([GIB / 2, 4 * GIB, 64 * GIB].map(auto), [65_536, 139_673, 1_000_000]);
    }

    #[test]
    fn more_flows_than_half_the_memory_holds_are_refused_with_both_sizes() {
        const GIB: u64 = 1 << 30;
        assert!(check_memory(1_000_000, GIB).is_ok());
        assert_eq!(
            check_memory(4_000_000_000, 8 * GIB).unwrap_err().to_string(),
            "4000000000 flows take 1173019 MiB, and this host has 8192 MiB; use auto, or at most 13967373"
        );
    }

    #[test]
    fn no_table_is_smaller_than_its_free_lists() {
        let processors = aya::util::nr_cpus().unwrap() as u32;
        let idle = FlowSizes::new(Some(IDLE_FLOWS)).unwrap();
        assert_eq!(FlowTable::ALL.map(|table| idle.of(table)), [processors * ENTRIES_PER_CPU; 3]);
        let sizes = FlowSizes::new(Some(1)).unwrap();
        assert_eq!(sizes.flows, processors * ENTRIES_PER_CPU);
        assert!(sizes.unconfirmed >= UNCONFIRMED_ENTRIES);
        let large = FlowSizes::new(Some(1_000_000)).unwrap();
        assert_eq!([large.flows, large.datagrams], [2_000_000, 500_000]);
    }
}
