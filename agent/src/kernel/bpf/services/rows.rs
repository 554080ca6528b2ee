//! Rows of map `backends`.
//!
//! A backend of a service has one row as long as it is in the service or a flow remembers it. A ring names rows by their
//! distance from the service's first one, so that a service's rows need not be neighbours, but lie within the
//! reach of 16 bits; where no row is free there, all of its backends get new ones, and the old rows go on serving
//! their flows.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::Ordering,
};

use bytemuck::Zeroable as _;
use dataplane_common::abi::{BackendRecord, FlowRecord, MAX_BACKENDS, backend_bit};

use super::{
    super::{
        error::{Error, Result},
        sys::Mapping,
    },
    bits::Bits,
};

const RECORD: usize = size_of::<BackendRecord>();
const WORD: usize = size_of::<u64>();
/// How far apart the rows of a service may lie.
const REACH: u32 = 1 << u16::BITS;

/// Which rows are free.
#[derive(Debug)]
pub(super) struct Rows {
    free: Bits,
    next: u32,
}

impl Rows {
    /// From what stands in the map.
    pub(super) fn read(map: &Mapping) -> Self {
        let mut free = Bits::none(MAX_BACKENDS);
        (0..MAX_BACKENDS).filter(|&row| is_free(&record(map, row))).for_each(|row| free.insert(row));
        Self { free, next: 0 }
    }

    /// Takes free rows within reach of each other and of those that the service has already.
    pub(super) fn allocate(&mut self, count: usize, own: &[u32]) -> Result<Vec<u32>> {
        let found = match (own.iter().min(), own.iter().max()) {
            (Some(&first), Some(&last)) => self.near(count, first, last).or_else(|| self.anywhere(count)),
            _ => self.anywhere(count),
        };
        let rows = found.ok_or(Error::Full { what: "backends", most: u64::from(MAX_BACKENDS) })?;
        rows.iter().for_each(|&row| self.free.remove(row));
        Ok(rows)
    }

    /// Whether rows can be named by one ring.
    pub(super) fn are_near(rows: &[u32]) -> bool {
        let (first, last) = (rows.iter().min(), rows.iter().max());
        first.zip(last).is_none_or(|(first, last)| last - first < REACH)
    }

    /// Gives a row back.
    pub(super) fn release(&mut self, map: &Mapping, row: u32) {
        let gone = BackendRecord { flags: BackendRecord::GONE, ..BackendRecord::zeroed() };
        let [nobody, _]: [u64; 2] = bytemuck::cast(gone);
        map.u64(offset(row)).store(nobody, Ordering::Release);
        self.free.insert(row);
    }

    /// Gives a row back that was not written.
    pub(super) fn give_back(&mut self, rows: &[u32]) {
        rows.iter().for_each(|&row| self.free.insert(row));
    }

    fn near(&self, count: usize, mut first: u32, mut last: u32) -> Option<Vec<u32>> {
        let mut rows: Vec<u32> =
            self.free.from(last + 1).take(count).filter(|&row| row - first < REACH).collect();
        last = rows.last().copied().unwrap_or(last);
        let lowest = last.saturating_sub(REACH - 1);
        while rows.len() < count && first > lowest {
            first -= 1;
            if self.free.contains(first) {
                rows.push(first);
            }
        }
        (rows.len() == count).then_some(rows)
    }

    /// The next free rows after those given last, from the start again where there are none.
    fn anywhere(&mut self, count: usize) -> Option<Vec<u32>> {
        let found = self.together(count, self.next).or_else(|| self.together(count, 0))?;
        self.next = found.last().map_or(self.next, |last| last + 1);
        Some(found)
    }

    /// The first free rows from `start` on that are within reach of each other.
    fn together(&self, count: usize, mut start: u32) -> Option<Vec<u32>> {
        loop {
            let rows: Vec<u32> = self.free.from(start).take(count).collect();
            if rows.len() < count {
                return None;
            }
            match rows.last() {
                Some(&last) if !Self::are_near(&rows) => start = last + 1 - REACH,
                _ => return Some(rows),
            }
        }
    }
}

/// Writes a backend into a free row; a generation of its own tells it from the row's former ones.
pub(super) fn write(map: &Mapping, row: u32, socket: SocketAddrV4, service: u32) {
    let generation = record(map, row).generation.wrapping_add(1);
    let (address, port) = (u32::from_ne_bytes(socket.ip().octets()), socket.port().to_be());
    let record = BackendRecord { address, port, flags: 0, service, generation };
    let [who, whose]: [u64; 2] = bytemuck::cast(record);
    map.u64(offset(row) + WORD).store(whose, Ordering::Relaxed);
    map.u64(offset(row)).store(who, Ordering::Release);
}

/// Tells the programs that the flows of a row are over.
pub(super) fn mark_gone(map: &Mapping, row: u32) {
    mark(map, row, BackendRecord::GONE, true);
}

/// How flows name the backend in a row.
pub(super) fn named_by_flows(map: &Mapping, row: u32) -> u32 {
    FlowRecord::backend_of(row, record(map, row).generation)
}

/// Tells the programs whether a row's address is this host's own.
pub(super) fn mark_here(map: &Mapping, row: u32, is_here: bool) {
    mark(map, row, BackendRecord::HERE, is_here);
}

/// Tells the programs whether the endpoint of a row's address has vanished.
pub(super) fn mark_absent(map: &Mapping, row: u32, is_absent: bool) {
    mark(map, row, BackendRecord::ABSENT, is_absent);
}

/// Tells the programs whether a row's backend is out of rotation.
pub(super) fn mark_out(map: &Mapping, row: u32, is_out: bool) {
    mark(map, row, BackendRecord::OUT, is_out);
}

fn mark(map: &Mapping, row: u32, flags: u16, is_set: bool) {
    let [flags, _]: [u64; 2] = bytemuck::cast(BackendRecord { flags, ..BackendRecord::zeroed() });
    if is_set {
        map.u64(offset(row)).fetch_or(flags, Ordering::Release);
    } else {
        map.u64(offset(row)).fetch_and(!flags, Ordering::Release);
    }
}

/// What stands in a row.
pub(super) fn record(map: &Mapping, row: u32) -> BackendRecord {
    let words = [0, WORD].map(|at| map.u64(offset(row) + at).load(Ordering::Acquire));
    bytemuck::cast(words)
}

/// Address and port of a row.
pub(super) fn socket(record: &BackendRecord) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(record.address.to_ne_bytes()), u16::from_be(record.port))
}

/// The filter's bit of a row.
pub(super) fn filter_bit(record: &BackendRecord, protocol: u8) -> u32 {
    backend_bit(record.address, record.port, protocol)
}

/// Whether a row holds no backend.
pub(super) fn is_free(record: &BackendRecord) -> bool {
    record.address == 0
}

fn offset(row: u32) -> usize {
    row as usize * RECORD
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(free: &[u32]) -> Rows {
        let mut bits = Bits::none(MAX_BACKENDS);
        free.iter().for_each(|&row| bits.insert(row));
        Rows { free: bits, next: 0 }
    }

    #[test]
    fn new_rows_lie_within_reach_of_the_services_own_where_there_are_such() {
        let free = [0, 70_000, 130_000];
        assert_eq!(rows(&free).allocate(1, &[65_600]).unwrap(), [70_000]);
        assert_eq!(rows(&free).allocate(1, &[1, 65_000]).unwrap(), [0]);
        let elsewhere = rows(&free[1..]).allocate(1, &[1, 65_000]).unwrap();
        assert!(!Rows::are_near(&[1, elsewhere[0]]));
    }

    #[test]
    fn rows_that_were_given_last_are_given_again_last() {
        let mut rows = rows(&[3, 4, 5]);
        assert_eq!(rows.allocate(2, &[]).unwrap(), [3, 4]);
        rows.give_back(&[3, 4]);
        assert_eq!(rows.allocate(1, &[]).unwrap(), [5]);
        assert_eq!(rows.allocate(1, &[]).unwrap(), [3]);
    }

    #[test]
    fn a_gap_that_is_out_of_reach_is_passed_over() {
        assert_eq!(rows(&[0, 100_000, 100_001]).allocate(2, &[]).unwrap(), [100_000, 100_001]);
        let error = rows(&[0, 100_000]).allocate(2, &[]).unwrap_err();
        assert!(error.to_string().starts_with("the table of backends is full"), "{error}");
    }

    proptest! {
        #[test]
        fn rows_are_free_and_within_reach(
            free in prop::collection::btree_set(0..MAX_BACKENDS, 0..60), count in 0..20_usize
        ) {
            let free: Vec<u32> = free.into_iter().collect();
            let mut table = rows(&free);
            if let Ok(found) = table.allocate(count, &[]) {
                prop_assert_eq!(found.len(), count);
                prop_assert!(Rows::are_near(&found) && found.iter().all(|row| free.contains(row)));
                prop_assert!(found.iter().all(|&row| !table.free.contains(row)));
            } else {
                let has_room = free.windows(count).any(Rows::are_near);
                prop_assert!(!has_room, "{free:?}");
            }
        }
    }
}
