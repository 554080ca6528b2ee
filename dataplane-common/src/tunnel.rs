//! Tunnel packets of fans: what they look like. Where they go is not known here.
//!
//! IPv4 in IPv4 (RFC 2003): one more header, which says nothing but the two hosts.

use crate::{
    checksum, ecn,
    wire::{ETH_LEN, IPV4_LEN, Ipv4, Ipv4Fields, Ipv4Words, PLAIN, PROTO_GRE, PROTO_IPIP, PROTO_IPV6},
};

/// Bytes that a tunnel packet is longer than what it carries.
pub const OVERHEAD: usize = IPV4_LEN;
/// Offset in a frame of what a tunnel packet carries, behind an outer header without options.
pub const INNER: usize = ETH_LEN + OVERHEAD;
/// The protocol in the outer header.
pub const PROTOCOL: u8 = PROTO_IPIP;

/// Initial TTL of outer headers (RFC 1700).
const TTL: u8 = 64;
/// Don't-fragment, offset 0.
const DONT_FRAGMENT: [u8; 2] = [0x40, 0x00];

/// Whether a packet is a tunnel packet, of whatever fan.
#[inline(always)]
pub const fn is_tunnel(outer: &Ipv4) -> bool {
    outer.proto == PROTOCOL
}

/// Whether a protocol carries packets for hosts of an underlay that make tunnels of any kind which fans know.
#[inline(always)]
pub const fn carries_packets(protocol: u8) -> bool {
    matches!(protocol, PROTO_IPIP | PROTO_IPV6 | PROTO_GRE)
}

/// Bytes of the largest packet that a tunnel packet of so many bytes carries.
#[inline(always)]
pub const fn carried_len(outer: u32) -> u32 {
    outer.saturating_sub(OVERHEAD as u32)
}

/// Whether a tunnel packet can hold a packet: its length has 16 bits.
#[inline(always)]
pub const fn holds(inner: &Ipv4) -> bool {
    inner.total_len + OVERHEAD as u32 <= u16::MAX as u32
}

/// Whether the outer length has room for the inner one.
#[inline(always)]
pub const fn is_whole(outer: &Ipv4, inner: &Ipv4) -> bool {
    inner.total_len + OVERHEAD as u32 <= outer.total_len
}

/// The outer header of a packet between two hosts (RFC 2003, section 3.1). Identification 0: with don't-fragment set it has no
/// meaning (RFC 6864, section 4.1).
#[inline(always)]
pub fn header(source: u32, destination: u32, inner: &Ipv4Fields) -> Ipv4Words {
    let inner_len = u16::from_be(inner.tot_len);
    let [l0, l1] = inner_len.wrapping_add(OVERHEAD as u16).to_be_bytes();
    let [f0, f1] = DONT_FRAGMENT;
    let mut words = Ipv4Words([
        u32::from_ne_bytes([PLAIN, ecn::encapsulate(inner.tos), l0, l1]),
        u32::from_ne_bytes([0, 0, f0, f1]),
        u32::from_ne_bytes([TTL, PROTOCOL, 0, 0]),
        source.to_be(),
        destination.to_be(),
    ]);
    let [c0, c1] = checksum::of_words(&words).to_ne_bytes();
    words.0[2] |= u32::from_ne_bytes([0, 0, c0, c1]);
    words
}
