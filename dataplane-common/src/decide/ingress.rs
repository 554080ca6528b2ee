//! Packets from the underlay.

use super::{Context, Tables, Verdict, fan_of, host_of, in_slice, ipv4_at, ipv4_frame};
use crate::{
    abi::{Config, FanRecord, MIN_PATH_MTU},
    checksum, ecn, icmp,
    outcome::Outcome,
    packet::Packet,
    wire::{ETH_LEN, IPV4_LEN, IcmpHdr, Ipv4, Ipv4Words, PROTO_ICMP, PROTO_IPIP},
};

/// Offset of what follows an outer header without options.
const INNER: usize = ETH_LEN + IPV4_LEN;

const NOT_OURS: Verdict<'static> = Verdict::Pass(Outcome::PassNotOurs);

/// `uplink-ingress`: takes tunnel packets for this host's fans out of the underlay's traffic, and learns from
/// ICMP errors about those that we sent. Anything else costs no look-up.
#[inline(always)]
pub fn uplink_ingress<'t, P: Packet + ?Sized, T: Tables>(
    packet: &P,
    context: &impl Context,
    tables: &'t T,
) -> Verdict<'t> {
    let Some(outer) = ipv4_frame(packet, context) else { return NOT_OURS };
    match outer.header.proto {
        PROTO_IPIP => decapsulate(packet, context, tables, outer),
        PROTO_ICMP => learn(packet, tables, outer),
        _ => NOT_OURS,
    }
}

#[inline(always)]
fn decapsulate<'t, P: Packet + ?Sized, T: Tables>(
    packet: &P,
    context: &impl Context,
    tables: &'t T,
    outer: Ipv4,
) -> Verdict<'t> {
    let Some(config) = tables.config() else { return NOT_OURS };
    let Some(local) = fan_at(config, &outer) else { return NOT_OURS };
    if outer.has_options() {
        return Verdict::Pass(Outcome::PassSlowPath);
    }
    if outer.is_fragment() {
        return Verdict::Drop(Outcome::DropOuterFragment);
    }
    let Some(inner) = ipv4_at(packet, INNER) else { return Verdict::Drop(Outcome::DropTruncated) };
    let to =
        if inner.dst & local.overlay_mask == local.overlay { Some(local) } else { fan_of(config, inner.dst) };
    let from =
        if inner.src & local.overlay_mask == local.overlay { Some(local) } else { fan_of(config, inner.src) };
    if to.is_none() && from.is_none() {
        // Another tunnel between the same two hosts.
        return NOT_OURS;
    }
    if let Some(malformed) = check(packet, context, &outer, &inner) {
        return Verdict::Drop(malformed);
    }
    let Some(from) = from else { return Verdict::Drop(Outcome::DropSpoofedSource) };
    if host_of(from, inner.src) != outer.src || outer.src == from.address {
        return Verdict::Drop(Outcome::DropSpoofedSource);
    }
    let Some(to) = to else { return Verdict::Drop(Outcome::DropNotOurSlice) };
    if !in_slice(to, inner.dst) {
        return Verdict::Drop(Outcome::DropNotOurSlice);
    }
    let Some(tos) = ecn::decapsulate(inner.header.tos, outer.header.tos) else {
        return Verdict::Drop(Outcome::DropEcn);
    };
    let endpoint = if inner.dst == to.gateway { None } else { tables.endpoint(inner.dst) };
    Verdict::Decapsulate { fan: to, endpoint, tos }
}

/// The fan that an outer packet may belong to: its destination is ours, its source a host of the underlay.
#[inline(always)]
fn fan_at<'t>(config: &'t Config, outer: &Ipv4) -> Option<&'t FanRecord> {
    super::find(config, |fan| {
        fan.in_use() && outer.dst == fan.address && outer.src & fan.underlay_mask == fan.underlay
    })
}

/// What is wrong with the lengths and headers of a tunnel packet.
#[inline(always)]
fn check<P: Packet + ?Sized>(
    packet: &P,
    context: &impl Context,
    outer: &Ipv4,
    inner: &Ipv4,
) -> Option<Outcome> {
    if !outer.well_formed() || !inner.well_formed() {
        return Some(Outcome::DropBadHeader);
    }
    let truncated = outer.total_len + ETH_LEN as u32 > context.frame_len()
        || inner.total_len + IPV4_LEN as u32 > outer.total_len;
    if truncated {
        return Some(Outcome::DropTruncated);
    }
    let words: Option<Ipv4Words> = packet.read(ETH_LEN);
    match words {
        Some(words) if checksum::intact(&words) => None,
        _ => Some(Outcome::DropBadChecksum),
    }
}

/// An ICMP "fragmentation needed" about a tunnel packet of ours: RFC 1191, RFC 2003 section 5.1.
/// It is believed when it quotes our outer source, a host of the underlay, and a sane MTU; it can only lower.
#[inline(always)]
fn learn<'t, P: Packet + ?Sized, T: Tables>(packet: &P, tables: &'t T, outer: Ipv4) -> Verdict<'t> {
    const QUOTE: usize = INNER + size_of::<IcmpHdr>();
    if outer.has_options() || outer.is_fragment() {
        return NOT_OURS;
    }
    let message: Option<IcmpHdr> = packet.read(INNER);
    let Some(message) = message else { return NOT_OURS };
    if message.kind != icmp::UNREACHABLE || message.code != icmp::CODE_FRAGMENTATION_NEEDED {
        return NOT_OURS;
    }
    let Some(quoted) = ipv4_at(packet, QUOTE) else { return NOT_OURS };
    let Some(config) = tables.config() else { return NOT_OURS };
    let fan = super::find(config, |fan| {
        fan.in_use()
            && outer.dst == fan.address
            && quoted.src == fan.address
            && quoted.dst & fan.underlay_mask == fan.underlay
    });
    let Some(fan) = fan else { return NOT_OURS };
    let mtu = u32::from(u16::from_be_bytes(message.mtu));
    if quoted.header.proto != PROTO_IPIP || mtu < MIN_PATH_MTU {
        return NOT_OURS;
    }
    let inner = mtu - IPV4_LEN as u32;
    if inner >= fan.mtu || tables.path_mtu(quoted.dst).is_some_and(|known| known <= inner) {
        return NOT_OURS;
    }
    Verdict::LearnPathMtu { host: quoted.dst, mtu: inner }
}
