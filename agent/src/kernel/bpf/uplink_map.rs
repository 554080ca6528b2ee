//! Map `uplinks`: the devices that run the program in front of `uplink-ingress`, and what is asked for at them. Written
//! through a shared mapping.

use std::{mem::offset_of, os::fd::AsFd as _, sync::atomic::Ordering};

use aya::maps::MapData;
use control::model::UplinkHook;
use dataplane_common::abi::{MAX_UPLINKS, UplinkRecord, Uplinks};

use super::{
    error::{Context as _, Result},
    sys::Mapping,
};

const RECORD: usize = size_of::<UplinkRecord>();
const MAC: usize = offset_of!(UplinkRecord, mac);

const _: () = assert!(offset_of!(Uplinks, records) == 0 && RECORD.is_multiple_of(4) && MAC.is_multiple_of(4));
const _: () = assert!(offset_of!(UplinkRecord, ifindex) == 0);

/// The map. One writer at a time, as of the node's configuration.
#[derive(Debug)]
pub struct UplinkMap {
    mapping: Mapping,
}

impl UplinkMap {
    pub(super) fn new(map: &MapData) -> Result<Self> {
        let mapping = Mapping::new(map.fd().as_fd(), size_of::<Uplinks>())
            .during(|| "mapping the map of uplinks".to_owned())?;
        Ok(Self { mapping })
    }

    /// What is asked for at the uplinks, if anybody has said.
    pub fn asked(&self) -> Option<UplinkHook> {
        let number = self.mapping.u32(offset_of!(Uplinks, asked)).load(Ordering::Acquire);
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        UplinkHook::ALL.get(index).copied()
    }

    /// Says what is asked for.
    pub fn set_asked(&self, hook: UplinkHook) {
        let number = UplinkHook::ALL.iter().zip(1..).find(|(other, _)| **other == hook);
        let number = number.map_or(0, |(_, number)| number);
        self.mapping.u32(offset_of!(Uplinks, asked)).store(number, Ordering::Release);
    }

    /// The MAC addresses that the program knows of its devices.
    pub fn list(&self) -> Vec<(u32, [u8; 6])> {
        let all = (0..MAX_UPLINKS).map(|slot| (self.ifindex(slot), self.mac(slot)));
        all.filter(|&(ifindex, _)| ifindex != 0).collect()
    }

    /// Makes a device's address known, in place of another one that was; says whether there was room.
    pub fn put(&self, ifindex: u32, mac: [u8; 6]) -> bool {
        let Some(slot) = self.slot_of(ifindex).or_else(|| self.slot_of(0)) else { return false };
        let [a, b, c, d, e, f] = mac;
        let start = slot * RECORD;
        self.mapping.u32(start).store(0, Ordering::Release);
        self.mapping.u32(start + MAC).store(u32::from_ne_bytes([a, b, c, d]), Ordering::Release);
        self.mapping.u32(start + MAC + 4).store(u32::from_ne_bytes([e, f, 0, 0]), Ordering::Release);
        self.mapping.u32(start).store(ifindex, Ordering::Release);
        true
    }

    /// Forgets devices, but for some.
    pub fn keep(&self, is_kept: impl Fn(u32) -> bool) {
        for slot in (0..MAX_UPLINKS).filter(|&slot| !is_kept(self.ifindex(slot))) {
            self.mapping.u32(slot * RECORD).store(0, Ordering::Release);
        }
    }

    fn slot_of(&self, ifindex: u32) -> Option<usize> {
        (0..MAX_UPLINKS).find(|&slot| self.ifindex(slot) == ifindex)
    }

    fn ifindex(&self, slot: usize) -> u32 {
        self.mapping.u32(slot * RECORD).load(Ordering::Acquire)
    }

    fn mac(&self, slot: usize) -> [u8; 6] {
        let word = |at| self.mapping.u32(slot * RECORD + MAC + at).load(Ordering::Acquire).to_ne_bytes();
        let ([a, b, c, d], [e, f, ..]) = (word(0), word(4));
        [a, b, c, d, e, f]
    }
}
