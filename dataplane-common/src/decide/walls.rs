//! What an endpoint may not send, wherever it goes: other hosts would take it for this host's own.
//!
//! A packet to the underlay leaves with this host's address, or with whichever one nothing checks. Its receiver believes a tunnel
//! packet by that address, and learns from ICMP errors how large ours may be.

use network_types::ip::Ipv4Hdr;

use super::{Context, Tag, cold_path, drop, find, pass};
use crate::{
    abi::{Config, FanRecord},
    icmp,
    outcome::Outcome,
    packet::Packet,
    tunnel,
    verdict::Verdict,
    wire::{ETH_LEN, IcmpHdr, Ipv4, PROTO_ICMP},
};

/// A frame in which no IPv4 packet is to be seen. The kernel takes a first tag out of it before the programs look, and further
/// priority tags behind them, so that what these hide would reach the stack unseen.
#[inline(always)]
pub(super) fn no_ipv4<P: Packet + ?Sized>(packet: &P, context: &impl Context) -> Verdict {
    let hides = Tag::of(packet) == Tag::Priority;
    if hides && !context.foreign_vlan() { drop(Outcome::DropStackedTags) } else { pass(Outcome::PassNotOurs) }
}

/// To an address of no overlay: a tunnel packet to a host of the underlay, or an error about one.
#[inline(always)]
pub(super) fn forged<P: Packet + ?Sized>(packet: &P, config: &Config, ip: &Ipv4) -> Option<Verdict> {
    let is_tunnel = tunnel::carries_packets(ip.proto);
    if !is_tunnel && ip.proto != PROTO_ICMP {
        return None;
    }
    cold_path();
    let fan = find(config, |fan| fan.in_use() && in_underlay(fan, ip.dst))?;
    if is_tunnel {
        return Some(drop(Outcome::DropEndpointTunnel));
    }
    if is_error_about_tunnel(packet, fan, ip) { Some(drop(Outcome::DropEndpointError)) } else { None }
}

/// Options move the message, so that it is not read in place.
#[inline(always)]
fn is_error_about_tunnel<P: Packet + ?Sized>(packet: &P, fan: &FanRecord, ip: &Ipv4) -> bool {
    if ip.is_later_fragment() {
        return false;
    }
    let message = ETH_LEN + ip.header_len as usize;
    let kind: Option<u8> = packet.copy(message);
    if !kind.is_some_and(icmp::is_error) {
        return false;
    }
    // An error is too short to need fragments (RFC 1812, section 4.3.2.3), and what the later ones quote is not known.
    if ip.is_fragment() {
        return true;
    }
    let quoted: Option<Ipv4Hdr> = packet.copy(message + size_of::<IcmpHdr>());
    let Some(quoted) = quoted else { return false };
    let quoted = Ipv4::new(quoted);
    tunnel::carries_packets(quoted.proto) && in_underlay(fan, quoted.src) && in_underlay(fan, quoted.dst)
}

#[inline(always)]
fn in_underlay(fan: &FanRecord, address: u32) -> bool {
    address & fan.underlay_mask == fan.underlay
}

/// Whether an address of this host's slice can be no endpoint's: the gateway's, the slice's network or broadcast address.
#[inline(always)]
pub(super) fn is_nobodys(fan: &FanRecord, address: u32) -> bool {
    // One more than the last address of the slice is the first, so that one comparison asks for both.
    address == fan.gateway || address.wrapping_add(1) & !fan.slice_mask <= 1
}
