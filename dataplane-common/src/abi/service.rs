//! Layout of the maps that hold services, their backends and their rings.
//!
//! Addresses and ports are as on the wire (network order), so that the bytes of a packet are compared as they stand.

use bytemuck::{Pod, Zeroable};

/// Services that the tables hold.
pub const MAX_SERVICES: u32 = 16_384;
/// Backends that the table holds, all services together.
pub const MAX_BACKENDS: u32 = 131_072;
/// Backends of one service.
pub const MAX_SERVICE_BACKENDS: u32 = 1_024;
/// Bits of the filter of VIPs: 8 KiB, which stay in a processor's first cache.
pub const VIP_FILTER_BITS: u32 = 65_536;
/// Bits of the filter of backends: 64 KiB.
pub const BACKEND_FILTER_BITS: u32 = 524_288;
/// Slots in one segment of rings, two bytes each: 4 MiB.
pub const SEGMENT_SLOTS: u32 = 2 * 1024 * 1024;
/// Segments of rings; each exists once it is needed.
pub const SEGMENTS: u32 = 16;
/// Slots are handed out in units of this many, the smallest ring.
pub const RING_UNIT: u32 = 256;
/// Largest ring.
pub const MAX_RING: u32 = 65_536;
/// Ring slots in one element of a segment.
pub const SLOTS_PER_ELEMENT: u32 = 4;

const _: () = assert!(MAX_RING.is_multiple_of(RING_UNIT) && SEGMENT_SLOTS.is_multiple_of(MAX_RING));

/// Key of map `services`: a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct VipKey {
    /// Address.
    pub address: u32,
    /// Port; 0: any.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Element of map `service`, by the index that `services` gives; memory-mapped by the agent.
///
/// A change of ring or backends is published by one aligned store of [`word`](Self::word): a packet sees the old set or
/// the new, never a mixture. The key stands here again because a hash element may be reused for another key while a
/// program still reads it: who finds another key here has found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct ServiceRecord {
    /// [`ServiceWord`].
    pub word: u64,
    /// The VIP.
    pub key: VipKey,
    /// Zero.
    pub spare: [u8; 48],
}

/// What a packet needs of a service, in one word: ring and first backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceWord {
    /// First row of the service's backends in map `backends`, 17 bits.
    pub base: u32,
    /// First slot of its ring, in units of [`RING_UNIT`], 17 bits.
    pub ring: u32,
    /// Binary logarithm of the ring's slots, 5 bits; 0: one backend, and no ring.
    pub log2_slots: u32,
    /// [`ServiceWord::EMPTY`], [`ServiceWord::RANDOM`], 8 bits.
    pub flags: u32,
}

impl ServiceWord {
    /// No backend is usable.
    pub const EMPTY: u32 = 1;
    /// A backend is drawn for every flow instead of computed.
    pub const RANDOM: u32 = 2;

    /// As it stands in the record.
    pub const fn pack(self) -> u64 {
        self.base as u64 & 0x1_ffff
            | (self.ring as u64 & 0x1_ffff) << 17
            | (self.log2_slots as u64 & 0x1f) << 34
            | (self.flags as u64 & 0xff) << 39
    }

    /// From the record.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self {
            base: (word & 0x1_ffff) as u32,
            ring: (word >> 17 & 0x1_ffff) as u32,
            log2_slots: (word >> 34 & 0x1f) as u32,
            flags: (word >> 39 & 0xff) as u32,
        }
    }
}

/// Element of map `backends`; memory-mapped by the agent. A row is written before a service's word points to it, and
/// then only its flags change until no word and no flow points to it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct BackendRecord {
    /// Address.
    pub address: u32,
    /// Port; 0: the one that the client chose.
    pub port: u16,
    /// [`BackendRecord::GONE`].
    pub flags: u16,
    /// Index of its service, so that counts and events name it.
    pub service: u32,
    /// One more each time that the row is given to another backend: a flow that holds an older one has lost its backend.
    pub generation: u32,
}

impl BackendRecord {
    /// It was removed: its flows are ended at their next packet.
    pub const GONE: u16 = 1;
}

/// The filters' bit of a VIP's address.
#[inline(always)]
pub const fn vip_bit(address: u32) -> u32 {
    mix(address) & (VIP_FILTER_BITS - 1)
}

/// The filter's bit of a backend.
#[inline(always)]
pub const fn backend_bit(address: u32, port: u16, protocol: u8) -> u32 {
    mix(address ^ (port as u32).rotate_left(16) ^ (protocol as u32) << 8) & (BACKEND_FILTER_BITS - 1)
}

/// The finalizer of MurmurHash3 for 32 bits: every input bit reaches every output bit.
#[inline(always)]
pub const fn mix(mut value: u32) -> u32 {
    value ^= value >> 16;
    value = value.wrapping_mul(0x85eb_ca6b);
    value ^= value >> 13;
    value = value.wrapping_mul(0xc2b2_ae35);
    value ^ value >> 16
}

const _: () = {
    assert!(size_of::<VipKey>() == 8);
    assert!(size_of::<ServiceRecord>() == 64);
    assert!(size_of::<BackendRecord>() == 16);
};
