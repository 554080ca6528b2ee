//! Map `uplinks`: what the program in front of the stack knows of the devices that it runs on.

use bytemuck::{Pod, Zeroable};

use crate::wire::mac_words;

/// Most uplinks of one node that run the program.
pub const MAX_UPLINKS: usize = 16;

/// The one element of map `uplinks`, memory-mapped by the agent.
///
/// A record is written with its interface index last, which is cleared first. A program that meets one in between leaves its
/// packet to the next hook, which decides the same.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Uplinks {
    /// The uplinks, in any order.
    pub records: [UplinkRecord; MAX_UPLINKS],
    /// What is asked for, as a number of the agent's; 0: nobody has said. No program reads it.
    pub asked: u32,
    /// Zero.
    pub spare: [u8; 60],
}

impl Uplinks {
    /// Whether an address is a device's own.
    #[inline(always)]
    pub fn is_own(&self, ifindex: u32, mac: [u16; 3]) -> bool {
        self.records.iter().any(|record| record.ifindex == ifindex && mac_words(&record.mac) == mac)
    }
}

/// One uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct UplinkRecord {
    /// Its interface index; 0: a free slot.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Zero.
    pub spare: [u8; 6],
}

const _: () = {
    assert!(size_of::<UplinkRecord>() == 16);
    assert!(size_of::<Uplinks>() == 16 * MAX_UPLINKS + 64);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_devices_own_only_on_that_device() {
        let mut uplinks = Uplinks::zeroed();
        uplinks.records[3] = UplinkRecord { ifindex: 7, mac: [2, 0, 0, 0, 0, 9], spare: [0; 6] };
        let own = mac_words(&[2, 0, 0, 0, 0, 9]);
        assert!(uplinks.is_own(7, own));
        assert!(!uplinks.is_own(8, own));
        assert!(!uplinks.is_own(7, mac_words(&[0xff; 6])));
    }
}
