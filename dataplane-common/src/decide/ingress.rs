//! Packets from the underlay.

use super::{
    Context, Forward, Tables, Verdict, any_fan, drop,
    egress::World,
    fan_of, forward, host_of, in_slice, ipv4_at, ipv4_frame, off_the_common_way, pass,
    service::{self, Client},
};
use crate::{
    abi::{Config, FanRecord, MIN_PATH_MTU},
    checksum, ecn, icmp,
    outcome::{Hook, Outcome},
    packet::Packet,
    vip,
    wire::{ETH_LEN, IPV4_LEN, IcmpHdr, Ipv4, Ipv4Words, PLAIN, PROTO_ICMP, PROTO_IPIP},
};

/// Offset of what follows an outer header without options.
const INNER: usize = ETH_LEN + IPV4_LEN;

/// `uplink-ingress`: takes tunnel packets for this host's fans out of the underlay's traffic, learns from ICMP errors
/// about those that we sent, and serves VIPs to who routes them here. Anything else costs no hash look-up.
#[inline(always)]
pub fn uplink_ingress<'t, P: Packet + ?Sized, T: Tables>(
    packet: &P,
    context: &impl Context,
    tables: &'t T,
) -> Verdict<'t> {
    let Some(outer) = ipv4_frame(packet, context) else { return pass(Outcome::PassNotOurs) };
    if outer.header.proto == PROTO_IPIP {
        return decapsulate(packet, context, tables, outer);
    }
    let Some(config) = tables.config() else { return pass(Outcome::PassNotOurs) };
    if outer.header.proto == PROTO_ICMP
        && let Some(learnt) = learn(packet, tables, config, &outer)
    {
        return learnt;
    }
    if config.services == 0 {
        return pass(Outcome::PassNotOurs);
    }
    off_the_common_way();
    let world = World { packet, context, tables, config, hook: Hook::UplinkIngress };
    bare(&world, &outer)
}

/// A packet without a tunnel: to a VIP from somebody who routes it here, or from a backend outside the overlays, or
/// neither.
#[inline(always)]
fn bare<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    ip: &Ipv4,
) -> Verdict<'t> {
    let &World { packet, context, tables, config, .. } = world;
    let not_ours = || pass(Outcome::PassNotOurs);
    if !context.to_us() || !ip.is_plain() || ip.total_len + ETH_LEN as u32 > context.frame_len() {
        return not_ours();
    }
    if tables.may_be_vip(ip.dst.to_be()) {
        if fan_of(config, ip.src).is_some() {
            // Its host would have put it into a tunnel packet.
            let is_vip = tables.is_vip(ip.dst.to_be());
            return if is_vip { drop(Outcome::DropSpoofedSource) } else { not_ours() };
        }
        let Some(fan) = any_fan(config) else { return not_ours() };
        return service::to_vip(world, Client { fan, is_outside: true }, ip, not_ours);
    }
    let Some(fan) = own_address(config, ip.dst) else { return not_ours() };
    let rewrite = vip::from_backend(packet, ip, ETH_LEN, tables);
    if rewrite.is_kept() {
        return not_ours();
    }
    service::to_backend(world, Client { fan, is_outside: true }, ip, rewrite)
}

/// The fan for which `address` is this host's in the underlay.
#[inline(always)]
fn own_address(config: &Config, address: u32) -> Option<&FanRecord> {
    super::find(config, |fan| fan.in_use() && fan.address == address)
}

#[inline(always)]
fn decapsulate<'t, P: Packet + ?Sized, T: Tables>(
    packet: &P,
    context: &impl Context,
    tables: &'t T,
    outer: Ipv4,
) -> Verdict<'t> {
    let Some(config) = tables.config() else { return pass(Outcome::PassNotOurs) };
    let Some(local) = fan_at(config, &outer) else { return pass(Outcome::PassNotOurs) };
    if outer.header.vihl != PLAIN {
        return if outer.has_options() { pass(Outcome::PassSlowPath) } else { drop(Outcome::DropBadHeader) };
    }
    if outer.is_fragment() {
        return drop(Outcome::DropOuterFragment);
    }
    let Some(inner) = ipv4_at(packet, INNER) else { return drop(Outcome::DropTruncated) };
    let holds = |address| address & local.overlay_mask == local.overlay;
    let (from, to) = if holds(inner.src) && holds(inner.dst) {
        (local, local)
    } else {
        off_the_common_way();
        match (fan_of(config, inner.src), fan_of(config, inner.dst)) {
            (Some(from), Some(to)) => (from, to),
            (None, Some(_)) => return drop(Outcome::DropSpoofedSource),
            (Some(_), None) => return drop(Outcome::DropNotOurSlice),
            // Another tunnel between the same two hosts.
            (None, None) => return pass(Outcome::PassNotOurs),
        }
    };
    if let Some(malformed) = check(packet, context, &outer, &inner) {
        return malformed;
    }
    if host_of(from, inner.src) != outer.src || outer.src == from.address {
        return drop(Outcome::DropSpoofedSource);
    }
    if !in_slice(to, inner.dst) {
        return drop(Outcome::DropNotOurSlice);
    }
    let tos = if inner.header.tos == outer.header.tos {
        inner.header.tos
    } else {
        off_the_common_way();
        match ecn::decapsulate(inner.header.tos, outer.header.tos) {
            Some(tos) => tos,
            None => return drop(Outcome::DropEcn),
        }
    };
    let endpoint = if inner.dst == to.gateway { None } else { tables.endpoint(inner.dst) };
    let arrived = Forward::Decapsulate { fan: to, endpoint, tos };
    if config.services == 0 {
        return Verdict::Forward(arrived);
    }
    off_the_common_way();
    let Some(inner) = ipv4_at(packet, INNER) else { return drop(Outcome::DropTruncated) };
    let rewrite = vip::from_backend(packet, &inner, INNER, tables);
    if !rewrite.is_kept() && rewrite.dst != inner.dst.to_be() {
        off_the_common_way();
        // An answer to this host's gateway address, on behalf of a client outside the overlays.
        return Verdict::Translate { rewrite, forward: Forward::DecapsulateAndRoute { tos } };
    }
    forward(rewrite, arrived)
}

/// The fan that an outer packet may belong to: its destination is ours, its source a host of the underlay.
#[inline(always)]
fn fan_at<'t>(config: &'t Config, outer: &Ipv4) -> Option<&'t FanRecord> {
    super::find(config, |fan| {
        fan.in_use() && outer.dst == fan.address && outer.src & fan.underlay_mask == fan.underlay
    })
}

/// What is wrong with the lengths and headers of a tunnel packet whose outer header has no options.
#[inline(always)]
fn check<P: Packet + ?Sized>(
    packet: &P,
    context: &impl Context,
    outer: &Ipv4,
    inner: &Ipv4,
) -> Option<Verdict<'static>> {
    if !inner.is_plain() && !inner.well_formed() {
        return Some(drop(Outcome::DropBadHeader));
    }
    let truncated = outer.total_len + ETH_LEN as u32 > context.frame_len()
        || inner.total_len + IPV4_LEN as u32 > outer.total_len;
    if truncated {
        return Some(drop(Outcome::DropTruncated));
    }
    let words: Option<Ipv4Words> = packet.read(ETH_LEN);
    match words {
        Some(words) if checksum::intact(&words) => None,
        _ => Some(drop(Outcome::DropBadChecksum)),
    }
}

/// An ICMP "fragmentation needed" about a tunnel packet of ours: RFC 1191, RFC 2003 section 5.1.
/// It is believed when it quotes our outer source, a host of the underlay, and a sane MTU; it can only lower.
#[inline(always)]
fn learn<'t, P: Packet + ?Sized, T: Tables>(
    packet: &P,
    tables: &'t T,
    config: &Config,
    outer: &Ipv4,
) -> Option<Verdict<'t>> {
    const QUOTE: usize = INNER + size_of::<IcmpHdr>();
    if outer.has_options() || outer.is_fragment() {
        return None;
    }
    let message: Option<IcmpHdr> = packet.read(INNER);
    let message = message?;
    if message.kind != icmp::UNREACHABLE || message.code != icmp::CODE_FRAGMENTATION_NEEDED {
        return None;
    }
    let quoted = ipv4_at(packet, QUOTE)?;
    let fan = super::find(config, |fan| {
        fan.in_use()
            && outer.dst == fan.address
            && quoted.src == fan.address
            && quoted.dst & fan.underlay_mask == fan.underlay
    })?;
    let mtu = u32::from(u16::from_be_bytes(message.mtu));
    if quoted.header.proto != PROTO_IPIP || mtu < MIN_PATH_MTU {
        return None;
    }
    let inner = mtu - IPV4_LEN as u32;
    if inner >= fan.mtu || tables.path_mtu(quoted.dst).is_some_and(|known| known <= inner) {
        return None;
    }
    Some(Verdict::LearnPathMtu { host: quoted.dst, mtu: inner })
}
