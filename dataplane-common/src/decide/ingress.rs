//! Packets from the underlay.

use super::{
    Case, Context, Input, Kind, Out, Party, Tables, Verdict, any_fan, cold_path, drop, fan_of, host_of,
    in_slice, ipv4_at, ipv4_frame, onward, pass, service, tracked,
};
use crate::{
    abi::{Config, FanRecord, MIN_PATH_MTU},
    checksum,
    ct::{self, Known, Tuple},
    ecn, icmp,
    outcome::{Hook, Outcome},
    packet::Packet,
    tunnel::{self, INNER},
    wire::{ETH_LEN, IPV4_LEN, IcmpHdr, Ipv4, Ipv4Words, PLAIN, PROTO_ICMP},
};

/// `uplink-ingress`: takes tunnel packets for this host's fans out of the underlay's traffic, learns from ICMP errors
/// about those that we sent, and serves VIPs to who routes them here. Anything else costs no hash look-up.
#[inline(always)]
pub(super) fn uplink_ingress<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    context: &impl Context,
    tables: &T,
) -> Verdict {
    let Some(outer) = ipv4_frame(packet, context) else { return pass(Outcome::PassNotOurs) };
    if tunnel::is_tunnel(&outer) {
        return decapsulate(packet, context, tables, outer);
    }
    let Some(config) = tables.config() else { return pass(Outcome::PassNotOurs) };
    if outer.proto == PROTO_ICMP
        && let Some(told) = about_tunnel(packet, context, (tables, config), &outer)
    {
        return told;
    }
    if config.services == 0 {
        return pass(Outcome::PassNotOurs);
    }
    cold_path();
    let input = Input { packet, context, tables, config, hook: Hook::UplinkIngress };
    bare(&input, &outer)
}

/// A packet without a tunnel: to a VIP from somebody who routes it here, or from a backend outside the overlays, or
/// neither.
#[inline(always)]
fn bare<P: Packet + ?Sized, C: Context, T: Tables>(input: &Input<'_, '_, P, C, T>, ip: &Ipv4) -> Verdict {
    let &Input { packet, context, tables, config, .. } = input;
    if !context.to_us() || !ip.is_plain() || ip.total_len + ETH_LEN as u32 > context.frame_len() {
        return pass(Outcome::PassNotOurs);
    }
    if tables.may_be_vip(ip.dst.to_be()) {
        if fan_of(config, ip.src).is_some() {
            // Its host would have put it into a tunnel packet.
            let is_vip = tables.is_vip(ip.dst.to_be());
            return if is_vip { drop(Outcome::DropSpoofedSource) } else { pass(Outcome::PassNotOurs) };
        }
        let Some(fan) = any_fan(config) else { return pass(Outcome::PassNotOurs) };
        return service::to_vip(input, Party { fan: fan.slot, is_outside: true }, ip);
    }
    let Some(fan) = own_address(config, ip.dst) else { return pass(Outcome::PassNotOurs) };
    let party = Party { fan: fan.slot, is_outside: true };
    let Known { rewrite, is_open, is_absent } = ct::known_answer(packet, ip, ETH_LEN, tables);
    if is_open {
        cold_path();
        return Verdict::service(Case { kind: Kind::ToClient, fan: fan.slot, party, is_absent });
    }
    if rewrite.is_kept() {
        return pass(Outcome::PassNotOurs);
    }
    onward::to_party(input, party, ip, rewrite)
}

/// The fan for which `address` is this host's in the underlay.
#[inline(always)]
fn own_address(config: &Config, address: u32) -> Option<&FanRecord> {
    super::find(config, |fan| fan.in_use() && fan.address == address)
}

#[inline(always)]
fn decapsulate<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    context: &impl Context,
    tables: &T,
    outer: Ipv4,
) -> Verdict {
    let Some(config) = tables.config() else { return pass(Outcome::PassNotOurs) };
    let Arrival { from, to, dst, tos } = match judge(packet, context, config, &outer) {
        Ok(arrival) => arrival,
        Err(refused) => return refused,
    };
    if config.services == 0 && config.detours == 0 {
        return Verdict::forward(Tuple::KEPT, arrived(tables, to, dst, tos));
    }
    cold_path();
    let Some(inner) = ipv4_at(packet, INNER) else { return drop(Outcome::DropTruncated) };
    if tracked::is_answer(packet, &inner, INNER, (tables, config)) {
        return Verdict::forward(Tuple::KEPT, Out::decapsulated_tracked(to.slot, tos));
    }
    let Known { rewrite, is_open, is_absent } = ct::known_answer(packet, &inner, INNER, tables);
    if is_open {
        cold_path();
        let party = Party { fan: from.slot, is_outside: false };
        return Verdict::service(Case { kind: Kind::Carried, fan: to.slot, party, is_absent });
    }
    answered(tables, to, &inner, tos, rewrite)
}

/// A tunnel packet that may come in.
pub(super) struct Arrival<'t> {
    /// The fan of its inner source.
    from: &'t FanRecord,
    /// The fan of its inner destination.
    to: &'t FanRecord,
    /// Its inner destination.
    dst: u32,
    /// The TOS byte that the inner packet gets.
    tos: u8,
}

/// Whether a tunnel packet may come in, and else what becomes of it. Every hook on the way from the underlay asks this.
#[inline(always)]
pub(super) fn judge<'t, P: Packet + ?Sized>(
    packet: &P,
    context: &impl Context,
    config: &'t Config,
    outer: &Ipv4,
) -> Result<Arrival<'t>, Verdict> {
    let Some(local) = fan_at(config, outer) else { return Err(pass(Outcome::PassNotOurs)) };
    if outer.vihl != PLAIN {
        let has_options = outer.has_options();
        return Err(if has_options { pass(Outcome::PassSlowPath) } else { drop(Outcome::DropBadHeader) });
    }
    if outer.is_fragment() {
        return Err(drop(Outcome::DropOuterFragment));
    }
    let Some(inner) = ipv4_at(packet, INNER) else { return Err(drop(Outcome::DropTruncated)) };
    let holds = |address| address & local.overlay_mask == local.overlay;
    let (from, to) = if holds(inner.src) && holds(inner.dst) {
        (local, local)
    } else {
        cold_path();
        match (fan_of(config, inner.src), fan_of(config, inner.dst)) {
            (Some(from), Some(to)) => (from, to),
            // The host that sent it speaks for itself.
            (None, Some(to)) if inner.src == outer.src => (local, to),
            (None, Some(_)) => return Err(drop(Outcome::DropSpoofedSource)),
            (Some(_), None) => return Err(drop(Outcome::DropNotOurSlice)),
            // Another tunnel between the same two hosts.
            (None, None) => return Err(pass(Outcome::PassNotOurs)),
        }
    };
    if let Some(malformed) = check(packet, context, outer, &inner) {
        return Err(malformed);
    }
    let is_spoofed = host_of(from, inner.src) != outer.src && inner.src != outer.src;
    if is_spoofed || outer.src == from.address {
        return Err(drop(Outcome::DropSpoofedSource));
    }
    if !in_slice(to, inner.dst) {
        return Err(drop(Outcome::DropNotOurSlice));
    }
    match inner_tos(&inner, outer) {
        Some(tos) => Ok(Arrival { from, to, dst: inner.dst, tos }),
        None => Err(drop(Outcome::DropEcn)),
    }
}

/// The TOS byte that the inner packet gets; `None` where it has to be dropped.
#[inline(always)]
pub(super) fn inner_tos(inner: &Ipv4, outer: &Ipv4) -> Option<u8> {
    if inner.tos == outer.tos {
        return Some(inner.tos);
    }
    cold_path();
    ecn::decapsulate(inner.tos, outer.tos)
}

/// Out of its tunnel packet, perhaps as a service's answer.
#[inline(always)]
pub(super) fn answered<T: Tables>(
    tables: &T,
    to: &FanRecord,
    inner: &Ipv4,
    tos: u8,
    rewrite: Tuple,
) -> Verdict {
    if !rewrite.is_kept() && rewrite.dst != inner.dst.to_be() {
        cold_path();
        // An answer to this host's gateway address, on behalf of a client outside the overlays: routed once more, but for
        // this host itself. To tell its sender that its TTL ran out would take a tunnel packet from here.
        if rewrite.dst != to.address.to_be() && inner.ttl <= 1 {
            return drop(Outcome::DropTtlExceeded);
        }
        return Verdict::forward(rewrite, Out::decapsulated_and_routed(tos));
    }
    Verdict::forward(rewrite, arrived(tables, to, inner.dst, tos))
}

/// To the endpoint that has the address, or to the stack.
#[inline(always)]
fn arrived<T: Tables>(tables: &T, to: &FanRecord, destination: u32, tos: u8) -> Out {
    if destination == to.gateway {
        return Out::decapsulated_to_stack(to.slot, tos);
    }
    match tables.endpoint(destination) {
        Some(&endpoint) => Out::decapsulated(to.slot, endpoint, tos),
        None => Out::decapsulated_to_stack(to.slot, tos),
    }
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
) -> Option<Verdict> {
    if !inner.is_plain() && !inner.well_formed() {
        return Some(drop(Outcome::DropBadHeader));
    }
    let truncated = outer.total_len + ETH_LEN as u32 > context.frame_len() || !tunnel::is_whole(outer, inner);
    if truncated {
        return Some(drop(Outcome::DropTruncated));
    }
    let words: Option<Ipv4Words> = packet.read(ETH_LEN);
    match words {
        Some(words) if checksum::intact(&words) => None,
        _ => Some(drop(Outcome::DropBadChecksum)),
    }
}

/// An ICMP error about a tunnel packet of ours: outer source, a host of the underlay, don't-fragment. That such a packet was
/// sent nobody remembers.
#[inline(always)]
fn about_tunnel<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    context: &impl Context,
    (tables, config): (&T, &Config),
    outer: &Ipv4,
) -> Option<Verdict> {
    const MESSAGE: usize = ETH_LEN + IPV4_LEN;
    const QUOTE: usize = MESSAGE + size_of::<IcmpHdr>();
    let is_whole = outer.total_len + ETH_LEN as u32 <= context.frame_len();
    if outer.has_options() || outer.is_fragment() || !is_whole {
        return None;
    }
    let message: Option<IcmpHdr> = packet.read(MESSAGE);
    let message = message?;
    if message.kind != icmp::UNREACHABLE && message.kind != icmp::TIME_EXCEEDED {
        return None;
    }
    let quoted = ipv4_at(packet, QUOTE)?;
    let fan = super::find(config, |fan| {
        fan.in_use()
            && outer.dst == fan.address
            && quoted.src == fan.address
            && quoted.dst & fan.underlay_mask == fan.underlay
    })?;
    let is_ours = tunnel::is_tunnel(&quoted) && quoted.is_plain() && quoted.dont_fragment();
    if !is_ours || !is_intact(packet, outer) {
        return None;
    }
    if message.kind != icmp::UNREACHABLE || message.code != icmp::CODE_FRAGMENTATION_NEEDED {
        return Some(Verdict::relay());
    }
    learn(tables, fan, &quoted, &message)
}

/// "Fragmentation needed" (RFC 1191, RFC 2003 section 5.1). It is believed when the packet is larger, by the length that it
/// quotes, than the MTU it tells, and that MTU is sane; it can only lower.
#[inline(always)]
fn learn<T: Tables>(tables: &T, fan: &FanRecord, quoted: &Ipv4, message: &IcmpHdr) -> Option<Verdict> {
    let mtu = u32::from(u16::from_be_bytes(message.mtu));
    if quoted.total_len <= mtu || mtu < MIN_PATH_MTU {
        return None;
    }
    let inner = tunnel::carried_len(mtu);
    if inner >= fan.mtu || tables.path_mtu(quoted.dst).is_some_and(|known| known <= inner) {
        return None;
    }
    Some(Verdict::learn_path_mtu(quoted.dst, inner))
}

/// Whether an ICMP error has the right checksum, as far as programs read it: one that quotes no more than it has to (RFC 792:
/// a header and eight bytes), as many routers do. Of a longer one, as Linux sends, the rest is not read, and its sum
/// taken for right; one that is shorter is no error at all.
#[inline(always)]
fn is_intact<P: Packet + ?Sized>(packet: &P, outer: &Ipv4) -> bool {
    const WORDS: usize = (size_of::<IcmpHdr>() + icmp::QUOTE_LEN) / 2;
    const SHORTEST: u32 = (IPV4_LEN + 2 * WORDS) as u32;
    if outer.total_len != SHORTEST {
        return outer.total_len > SHORTEST;
    }
    let message: Option<[u16; WORDS]> = packet.read(ETH_LEN + IPV4_LEN);
    let Some(message) = message else { return false };
    let sum: u32 = message.into_iter().map(u32::from).sum();
    checksum::fold(sum) == 0xffff
}
