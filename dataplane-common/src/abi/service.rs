//! Layout of the maps that hold services, their backends and their rings.
//!
//! Addresses and ports are as on the wire (network order), so that the bytes of a packet are compared as they stand.

use bytemuck::{Pod, Zeroable};

use crate::wire::{PROTO_TCP, PROTO_UDP};

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
/// Elements of eight bytes in one segment of rings: 4 MiB.
pub const SEGMENT_ELEMENTS: u32 = 512 * 1024;
/// Segments of rings; each exists once it is needed.
pub const SEGMENTS: u32 = 96;
/// Elements are handed out in units of this many.
pub const RING_UNIT: u32 = 64;
/// Slots of every ring but the largest services'. A prime, so that any step visits them all; at half a byte a slot
/// 10,000 rings take 88 MiB.
pub const RING_SLOTS: u32 = 18_427;
/// Slots of the ring of a service with more backends than [`MANY_BACKENDS`]. A prime.
pub const LARGE_RING_SLOTS: u32 = 32_749;
/// The most backends that [`RING_SLOTS`] serve.
pub const MANY_BACKENDS: u32 = 128;

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

impl VipKey {
    /// The entry that every address with a VIP has, whatever its ports.
    #[inline(always)]
    pub const fn any(address: u32) -> Self {
        Self { address, port: 0, protocol: 0, pad: 0 }
    }
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
    /// First element of its ring, in units of [`RING_UNIT`], 20 bits.
    pub ring: u32,
    /// Binary logarithm of the bits that a slot of its ring takes, 3 bits: 2, 3 or 4; 0: one backend, and no ring.
    pub log2_bits: u32,
    /// [`ServiceWord::EMPTY`], [`ServiceWord::RANDOM`], [`ServiceWord::LARGE`], 8 bits.
    pub flags: u32,
}

impl ServiceWord {
    /// No backend is usable.
    pub const EMPTY: u32 = 1;
    /// A backend is drawn for every flow instead of computed.
    pub const RANDOM: u32 = 2;
    /// Its ring has [`LARGE_RING_SLOTS`].
    pub const LARGE: u32 = 4;

    /// As it stands in the record.
    pub const fn pack(self) -> u64 {
        self.base as u64 & 0x1_ffff
            | (self.ring as u64 & 0xf_ffff) << 17
            | (self.log2_bits as u64 & 7) << 37
            | (self.flags as u64 & 0xff) << 40
    }

    /// From the record.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self {
            base: (word & 0x1_ffff) as u32,
            ring: (word >> 17 & 0xf_ffff) as u32,
            log2_bits: (word >> 37 & 7) as u32,
            flags: (word >> 40 & 0xff) as u32,
        }
    }

    /// Slots of its ring.
    #[inline(always)]
    pub const fn slots(self) -> u32 {
        if self.flags & Self::LARGE == 0 { RING_SLOTS } else { LARGE_RING_SLOTS }
    }

    /// The slot of a hash: where it lies among all hashes, there the slot lies in the ring.
    #[inline(always)]
    pub const fn slot(self, hash: u32) -> u32 {
        ((hash as u64 * self.slots() as u64) >> 32) as u32
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
    /// [`BackendRecord::GONE`], [`BackendRecord::HERE`], [`BackendRecord::ABSENT`], [`BackendRecord::OUT`].
    pub flags: u16,
    /// Index of its service, so that counts and events name it.
    pub service: u32,
    /// One more each time that the row is given to another backend: a flow that holds an older one has lost its backend.
    pub generation: u32,
}

impl BackendRecord {
    /// It was removed: its flows are ended at their next packet.
    pub const GONE: u16 = 1;
    /// Its address lies in no overlay and is this host's own.
    pub const HERE: u16 = 2;
    /// Its endpoint has vanished: flows that nobody can be told of, those of UDP, move on at their next packet.
    pub const ABSENT: u16 = 4;
    /// It is out of rotation: it takes no new flows, and a connection whose handshake is not complete chooses again.
    pub const OUT: u16 = 8;

    /// The flags that end a flow of a protocol. Computed from the protocol's number instead of compared with it
    /// ([rule 3](crate::codegen)): a branch would cost every packet.
    #[inline(always)]
    pub(crate) const fn over(protocol: u8) -> u16 {
        Self::GONE | (protocol >> 2) as u16 & Self::ABSENT
    }
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
    assert!((SEGMENTS * (SEGMENT_ELEMENTS / RING_UNIT)) < 1 << 20);
    assert!(size_of::<VipKey>() == 8);
    assert!(size_of::<ServiceRecord>() == 64);
    assert!(size_of::<BackendRecord>() == 16);
    assert!(BackendRecord::over(PROTO_TCP) == BackendRecord::GONE);
    assert!(BackendRecord::over(PROTO_UDP) == BackendRecord::GONE | BackendRecord::ABSENT);
};
