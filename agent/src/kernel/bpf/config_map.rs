//! Map `config`: fans and devices, written through a shared mapping without a system call.
//!
//! The publishing protocol is part of the layout ([`dataplane_common::abi::Config`]): the record is complete before
//! its overlay and mask appear in one aligned store, and a slot that was in use is filled again only when every
//! program run that may have seen it has ended.

use std::{
    mem::offset_of,
    os::fd::AsFd as _,
    sync::atomic::{Ordering, fence},
    thread,
    time::Duration,
};

use aya::maps::MapData;
use bytemuck::Zeroable as _;
use control::model::{HostFilters, PortRange, network};
use dataplane_common::abi::{Config, FanRecord, MAX_FANS};
use ipnet::Ipv4Net;

use super::{
    error::{Context as _, Error, Result},
    sys::{self, Mapping},
};

const RECORD: usize = size_of::<FanRecord>();
const WORD: usize = size_of::<u64>();
/// Far longer than any program run, for kernels that refuse to be asked (`nohz_full`).
const GRACE: Duration = Duration::from_millis(100);

const _: () = assert!(offset_of!(FanRecord, overlay) == 0 && offset_of!(FanRecord, overlay_mask) == 4);
const _: () = assert!(offset_of!(Config, fans) == 0 && RECORD.is_multiple_of(WORD));

/// The node's configuration as the programs read it.
///
/// One writer at a time: callers hold the lock of fans and endpoints. Readers need none.
#[derive(Debug)]
pub struct ConfigMap {
    mapping: Mapping,
}

impl ConfigMap {
    pub(super) fn new(map: &MapData) -> Result<Self> {
        let mapping = Mapping::new(map.fd().as_fd(), size_of::<Config>())
            .during(|| "mapping the configuration map".to_owned())?;
        Ok(Self { mapping })
    }

    /// Values that a new map must not start with as zeros: with no path learnt, no packet needs a look-up.
    pub(super) fn initialise(&self) {
        let smallest = self.mapping.u32(offset_of!(Config, smallest_path_mtu));
        // An existing value was learnt by a program meanwhile: it stays.
        let _ = smallest.compare_exchange(0, u32::MAX, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// All of it, as it is at this moment.
    pub(super) fn snapshot(&self) -> Config {
        let mut config = Config::zeroed();
        for (index, bytes) in bytemuck::bytes_of_mut(&mut config).chunks_exact_mut(WORD).enumerate() {
            bytes.copy_from_slice(&self.mapping.u64(index * WORD).load(Ordering::Acquire).to_ne_bytes());
        }
        config
    }

    /// The published fans. Their slots, which are the map's own business, read 0.
    pub fn fans(&self) -> Vec<FanRecord> {
        let records = (0..self.slots()).map(|slot| self.read(slot));
        records.filter(FanRecord::in_use).map(|record| record.at(0)).collect()
    }

    /// Makes a fan visible to the programs, in place of one with the same overlay. Says whether anything changed.
    pub fn publish(&self, record: &FanRecord) -> Result<bool> {
        let old = self.slot_of(record.overlay, record.overlay_mask);
        if old.is_some_and(|slot| self.read(slot) == record.at(slot)) {
            return Ok(false);
        }
        let Some(slot) = self.free_slot(old) else { return Err(Error::NoSlot(MAX_FANS)) };
        self.filter(slot, old.is_some_and(|old| self.is_filtered(old)));
        if old == Some(slot) {
            self.clear(slot);
        }
        if slot < self.slots() {
            wait_for_readers();
        }
        self.write(slot, record);
        let slots = self.mapping.u32(offset_of!(Config, fan_slots));
        slots.fetch_max(slot as u32 + 1, Ordering::Release);
        // Two equal overlays for a moment: readers take the first, both are complete.
        if let Some(old) = old.filter(|&old| old != slot) {
            self.clear(old);
        }
        Ok(true)
    }

    /// Makes a fan invisible to the programs. Says whether there was one.
    pub fn withdraw(&self, overlay: Ipv4Net) -> bool {
        match self.slot_of(overlay.network().into(), overlay.netmask().into()) {
            Some(slot) => {
                self.clear(slot);
                true
            }
            None => false,
        }
    }

    /// Sets the helper device that packets for the host's stack go through.
    pub fn set_helper(&self, ifindex: u32, mac: [u8; 6]) {
        const MAC: usize = offset_of!(Config, helper_mac);
        let mut word = [0; WORD];
        for (to, from) in word.iter_mut().zip(mac) {
            *to = from;
        }
        self.mapping.u64(MAC).store(u64::from_ne_bytes(word), Ordering::Relaxed);
        self.mapping.u32(offset_of!(Config, helper)).store(ifindex, Ordering::Release);
    }

    /// Tells the programs how many services there are: with none they look for none.
    pub fn set_services(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.mapping.u32(offset_of!(Config, services)).store(count, Ordering::Release);
    }

    /// Sets the ports, first and last, that the source of a flow is translated to.
    pub fn set_nat_ports(&self, ports: [u16; 2]) {
        let ports: u32 = bytemuck::cast(ports);
        self.mapping.u32(offset_of!(Config, nat_ports)).store(ports, Ordering::Release);
    }

    /// The ports that the source of a flow is translated to.
    pub fn nat_ports(&self) -> PortRange {
        let ports = self.mapping.u32(offset_of!(Config, nat_ports)).load(Ordering::Acquire);
        match bytemuck::cast::<u32, [u16; 2]>(ports) {
            [0, _] => PortRange::default(),
            [first, last] => PortRange(first, last),
        }
    }

    /// The helper device: interface index and MAC address.
    pub fn helper(&self) -> (u32, [u8; 6]) {
        let word = self.mapping.u64(offset_of!(Config, helper_mac)).load(Ordering::Relaxed);
        let [a, b, c, d, e, f, _, _] = word.to_ne_bytes();
        (self.mapping.u32(offset_of!(Config, helper)).load(Ordering::Acquire), [a, b, c, d, e, f])
    }

    /// Says up to which moment of the coarse clock no uplink of a fan carries anything; 0: one does.
    pub fn set_cut_off(&self, overlay: Ipv4Net, until: u32) {
        if let Some(slot) = self.slot_of(overlay.network().into(), overlay.netmask().into()) {
            let place = offset_of!(Config, cut_off) + slot * size_of::<u32>();
            self.mapping.u32(place).store(until, Ordering::Release);
        }
    }

    /// Says of which fans' packets the host's packet filters are to see all.
    pub fn set_filtered(&self, overlays: &[Ipv4Net]) {
        let is_named = |record: &FanRecord| {
            overlays.iter().any(|overlay| {
                (u32::from(overlay.network()), u32::from(overlay.netmask()))
                    == (record.overlay, record.overlay_mask)
            })
        };
        (0..self.slots()).for_each(|slot| self.filter(slot, is_named(&self.read(slot))));
    }

    /// The overlays of these fans.
    pub fn filtered(&self) -> Vec<Ipv4Net> {
        let slots = (0..self.slots()).filter(|&slot| self.is_filtered(slot)).map(|slot| self.read(slot));
        slots.filter(FanRecord::in_use).map(|record| network(record.overlay, record.overlay_mask)).collect()
    }

    /// What is to be done about packet filters of the host's.
    pub fn host_filters(&self) -> HostFilters {
        match self.mapping.u32(offset_of!(Config, ignores_filters)).load(Ordering::Acquire) {
            0 => HostFilters::Honour,
            _ => HostFilters::Ignore,
        }
    }

    /// Says so.
    pub fn set_host_filters(&self, wanted: HostFilters) {
        let number = u32::from(wanted == HostFilters::Ignore);
        self.mapping.u32(offset_of!(Config, ignores_filters)).store(number, Ordering::Release);
    }

    fn is_filtered(&self, slot: usize) -> bool {
        let detours = self.mapping.u32(offset_of!(Config, detours)).load(Ordering::Acquire);
        detours & Config::filtered(slot as u32) != 0
    }

    /// The programs store the byte beside, at any time.
    fn filter(&self, slot: usize, is_filtered: bool) {
        let (detours, bit) = (self.mapping.u32(offset_of!(Config, detours)), Config::filtered(slot as u32));
        if is_filtered {
            detours.fetch_or(bit, Ordering::AcqRel);
        } else {
            detours.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Whether any fan is cut off.
    pub fn is_cut_off(&self) -> bool {
        let moment = |slot| self.mapping.u32(offset_of!(Config, cut_off) + slot * size_of::<u32>());
        (0..self.slots()).any(|slot| moment(slot).load(Ordering::Acquire) != 0)
    }

    /// Inner packets up to this size need no path look-up.
    pub fn smallest_path_mtu(&self) -> u32 {
        self.mapping.u32(offset_of!(Config, smallest_path_mtu)).load(Ordering::Acquire)
    }

    /// Sets the size up to which packets need no path look-up; `u32::MAX` when no path is known to be small.
    pub fn set_smallest_path(&self, mtu: u32) {
        self.mapping.u32(offset_of!(Config, smallest_path_mtu)).store(mtu, Ordering::Release);
    }

    /// As [`set_smallest_path`](Self::set_smallest_path), unless a program has lowered it since it was `seen`.
    pub(super) fn replace_smallest_path(&self, seen: u32, mtu: u32) -> bool {
        let smallest = self.mapping.u32(offset_of!(Config, smallest_path_mtu));
        smallest.compare_exchange(seen, mtu, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn slots(&self) -> usize {
        let slots = self.mapping.u32(offset_of!(Config, fan_slots)).load(Ordering::Acquire);
        MAX_FANS.min(slots as usize)
    }

    fn slot_of(&self, overlay: u32, mask: u32) -> Option<usize> {
        (0..self.slots()).find(|&slot| {
            let record = self.read(slot);
            record.in_use() && (record.overlay, record.overlay_mask) == (overlay, mask)
        })
    }

    /// A slot to write into: a withdrawn one, so that programs look at few; else a fresh one; else the fan's own.
    fn free_slot(&self, own: Option<usize>) -> Option<usize> {
        let used = self.slots();
        let withdrawn = (0..used).find(|&slot| !self.read(slot).in_use());
        withdrawn.or((used < MAX_FANS).then_some(used)).or(own)
    }

    fn read(&self, slot: usize) -> FanRecord {
        let mut record = FanRecord::zeroed();
        for (index, bytes) in bytemuck::bytes_of_mut(&mut record).chunks_exact_mut(WORD).enumerate() {
            let word = self.mapping.u64(slot * RECORD + index * WORD).load(Ordering::Acquire);
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        record
    }

    /// All words but the first, then the first: overlay and mask.
    fn write(&self, slot: usize, record: &FanRecord) {
        for (index, bytes) in bytemuck::bytes_of(&record.at(slot)).chunks_exact(WORD).enumerate().rev() {
            let mut word = [0; WORD];
            word.copy_from_slice(bytes);
            let cell = self.mapping.u64(slot * RECORD + index * WORD);
            cell.store(u64::from_ne_bytes(word), Ordering::Release);
        }
    }

    fn clear(&self, slot: usize) {
        let (overlay, mask) = FanRecord::UNUSED;
        let unused = FanRecord { overlay, overlay_mask: mask, ..FanRecord::zeroed() };
        let mut word = [0; WORD];
        word.copy_from_slice(&bytemuck::bytes_of(&unused)[..WORD]);
        self.mapping.u64(slot * RECORD).store(u64::from_ne_bytes(word), Ordering::Release);
    }
}

/// Returns when no program run is under way that began before.
pub(super) fn wait_for_readers() {
    fence(Ordering::SeqCst);
    if sys::grace_period().is_err() {
        thread::sleep(GRACE);
    }
}
