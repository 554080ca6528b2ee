//! Layout of the maps of flows that the host's connection tracking translates.

use super::{FlowKey, SEEN_SHIFT, backend_bit};
use crate::wire::PROTO_TCP;

/// Bit of a packet's mark between the programs and our own rules of nf_tables, which comes off there again. From a rule to a
/// program: connection tracking translates its flow. From a program to a rule: connection tracking is to see it.
pub const TRACKED_MARK: u32 = 0x1000_0000;

/// Bit of a packet's mark between two programs: it is a segment of a super-packet that was to be cut, which is done once.
pub const SEGMENT_MARK: u32 = 0x2000_0000;

/// Flows that connection tracking translates, one entry each, and one for the fragments of each pair of addresses: map
/// `translated`.
pub const TRANSLATED_FLOWS: u32 = 32_768;
/// Elements of map `translated_slots`: 64 KiB.
pub const TRANSLATED_SLOTS: u32 = 8_192;

/// The place of what answers, its address and port as on the wire, in map `translated_slots`.
#[inline(always)]
pub const fn translated_slot(address: u32, port: u16, protocol: u8) -> u32 {
    backend_bit(address, port, protocol) % TRANSLATED_SLOTS
}

/// How long an entry of map `translated` counts without a packet: as long as the kernel keeps an idle connection
/// (`nf_conntrack_tcp_timeout_established`, five days), and longer than it keeps anything else.
#[inline(always)]
pub const fn translated_life(key: &FlowKey) -> u32 {
    const SECOND: u64 = 1_000_000_000;
    const CONNECTION: u32 = ((5 * 24 * 3600 * SECOND) >> SEEN_SHIFT) as u32;
    const OTHER: u32 = ((600 * SECOND) >> SEEN_SHIFT) as u32;
    if key.protocol == PROTO_TCP { CONNECTION } else { OTHER }
}
