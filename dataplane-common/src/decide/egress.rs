//! Packets from this host towards the overlay: from endpoints, from bridge ports, from the host's own stack.

use super::{
    Action, Case, Context, Input, Kind, Out, Party, Tables, Verdict, With, answer, any_fan, cold_path, drop,
    fan_of, filtered, host_of, in_slice, ipv4_frame, largest_packet, mtu_to, names_a_host, onward,
    own_fan_of, pass, service, silent, too_big, tracked, walls,
};
use crate::{
    abi::{FanRecord, PathRecord},
    ct::{self, Known, Tuple},
    outcome::{Hook, Outcome},
    packet::Packet,
    tunnel,
    wire::{ETH_LEN, Ipv4},
};

/// `endpoint-ingress` and `bridge-ingress`: a packet that an endpoint of this host sends.
///
/// On a bridge port the frame may be addressed to another port: only frames to the gateway's MAC are routed here.
#[inline(always)]
pub(super) fn local_ingress<P: Packet + ?Sized, T: Tables>(
    hook: Hook,
    packet: &P,
    context: &impl Context,
    tables: &T,
) -> Verdict {
    let Some(ip) = ipv4_frame(packet, context) else { return walls::no_ipv4(packet, context) };
    let Some(config) = tables.config() else { return pass(Outcome::PassNotOurs) };
    // The chains for what is forwarded may have seen it on the bridge, before it is handed on to this host.
    if hook as u32 == Hook::BridgeIngress as u32 && context.is_translated() {
        return pass(filtered::left_to_the_stack(config));
    }
    let input = Input { packet, context, tables, config, hook };
    let Some(fan) = fan_of(config, ip.dst) else { return outside(&input, &ip) };
    let own = if in_slice(fan, ip.src) { Some(fan) } else { own_fan_of(config, ip.src) };
    match own {
        Some(own) => from_own(&input, (fan, own), &ip),
        None => from_foreign(&input, fan, &ip),
    }
}

/// To an address of no overlay: perhaps a VIP, or the client of one.
#[inline(always)]
fn outside<P: Packet + ?Sized, C: Context, T: Tables>(input: &Input<'_, '_, P, C, T>, ip: &Ipv4) -> Verdict {
    if let Some(verdict) = walls::forged(input.packet, input.config, ip) {
        return verdict;
    }
    if input.config.services == 0 {
        return pass(Outcome::PassNotOurs);
    }
    cold_path();
    let Some(own) = own_fan_of(input.config, ip.src) else { return pass(Outcome::PassNotOurs) };
    let party = Party { fan: own.slot, is_outside: false };
    if input.tables.may_be_vip(ip.dst.to_be()) {
        return match sent_by_endpoint(input, own, ip) {
            Some(_) if is_cut(ip, input.context) && input.tables.is_vip(ip.dst.to_be()) => {
                drop(Outcome::DropTruncated)
            }
            Some(verdict) => verdict,
            None => service::to_vip(input, party, ip),
        };
    }
    let Known { rewrite, is_open, is_absent } = ct::known_answer(input.packet, ip, ETH_LEN, input.tables);
    if rewrite.is_kept() && !is_open {
        return pass(Outcome::PassNotOurs);
    }
    if let Some(verdict) = sent_by_endpoint(input, own, ip) {
        return verdict;
    }
    if is_open {
        cold_path();
        return Verdict::service(Case { kind: Kind::ToClient, fan: own.slot, party, is_absent });
    }
    onward::to_party(input, party, ip, rewrite)
}

/// From a source outside this host's slices: an endpoint may have other addresses and talk to the host from them, but
/// not into the overlay.
#[inline(always)]
fn from_foreign<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    fan: &FanRecord,
    ip: &Ipv4,
) -> Verdict {
    if !input.context.to_us() && !is_to_bridge(input.packet, fan) {
        return pass(Outcome::PassNotOurs);
    }
    if ip.dst == fan.gateway {
        return pass(Outcome::PassToHost);
    }
    drop(Outcome::DropForeignSource)
}

/// From an address of `own`'s slice to one of `fan`'s overlay.
#[inline(always)]
fn from_own<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    (fan, own): (&FanRecord, &FanRecord),
    ip: &Ipv4,
) -> Verdict {
    if input.config.services != 0 || input.config.detours != 0 {
        cold_path();
        return with_services(input, (fan, own), ip);
    }
    match sent_by_endpoint(input, own, ip) {
        Some(verdict) => verdict,
        None => to_overlay(input, (fan, own), ip, Tuple::KEPT),
    }
}

/// As [`from_own`] on a node that has services, or packets that have to go by the stack.
#[inline(always)]
fn with_services<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    (fan, own): (&FanRecord, &FanRecord),
    ip: &Ipv4,
) -> Verdict {
    let here = in_slice(fan, ip.dst);
    let sent = sent_by_endpoint(input, own, ip);
    // Ports of one bridge speak to each other without the gateway, backends with their clients too.
    let is_switched = sent.is_some_and(|sent| sent.outcome as u32 == Outcome::PassNotOurs as u32)
        && here
        && input.hook as u32 == Hook::EndpointIngress as u32
        && ip.is_plain()
        && fits(ip, input.context);
    if let Some(verdict) = sent
        && !is_switched
    {
        return verdict;
    }
    if tracked::is_answer(input.packet, ip, ETH_LEN, (input.tables, input.config)) {
        return Verdict::track(own.slot);
    }
    let Known { rewrite, is_open, is_absent } =
        ct::known_between(input.packet, ip, ETH_LEN, here, input.tables);
    if is_open {
        cold_path();
        let kind = if is_switched { Kind::Switched } else { Kind::Between };
        let party = Party { fan: own.slot, is_outside: false };
        return Verdict::service(Case { kind, fan: fan.slot, party, is_absent });
    }
    if is_switched && rewrite.is_kept() {
        return pass(Outcome::PassNotOurs);
    }
    to_overlay(input, (fan, own), ip, rewrite)
}

/// From an address of `own`'s slice to one of `fan`'s overlay, whatever services have to do with it.
#[inline(always)]
pub(super) fn to_overlay<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    (fan, own): (&FanRecord, &FanRecord),
    ip: &Ipv4,
    rewrite: Tuple,
) -> Verdict {
    let here = in_slice(fan, ip.dst);
    if here && ip.dst == fan.gateway {
        if rewrite.is_kept() {
            return pass(Outcome::PassToHost);
        }
        return Verdict::forward(rewrite, Out::STACK);
    }
    if ip.ttl <= 1 {
        return answer(input.packet, own.gateway, ip, With::TtlExceeded, Outcome::DropTtlExceeded);
    }
    if here {
        return match input.tables.endpoint(ip.dst) {
            Some(&endpoint) => Verdict::forward(rewrite, Out::endpoint(fan.slot, endpoint, true)),
            None if !rewrite.is_kept() => Verdict::forward(rewrite, Out::STACK),
            None => pass(Outcome::PassSlowPath),
        };
    }
    towards(input, (fan, own.gateway), ip, ip.dst, rewrite)
}

/// What becomes of a packet of an endpoint wherever it goes: not to the gateway, not the endpoint's, not plain.
#[inline(always)]
fn sent_by_endpoint<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    own: &FanRecord,
    ip: &Ipv4,
) -> Option<Verdict> {
    let &Input { packet, context, tables, hook, .. } = input;
    if !context.to_us() && !is_to_bridge(packet, own) {
        return Some(pass(Outcome::PassNotOurs));
    }
    if walls::is_nobodys(own, ip.src) {
        return Some(drop(Outcome::DropWrongEndpoint));
    }
    if hook as u32 == Hook::EndpointIngress as u32
        && let Some(known) = tables.endpoint(ip.src)
        && known.ifindex != context.ifindex()
    {
        return Some(drop(Outcome::DropWrongEndpoint));
    }
    if !ip.is_plain() || !fits(ip, context) {
        return Some(pass(Outcome::PassSlowPath));
    }
    None
}

/// Whether the frame is addressed to the fan's gateway as its ports see it.
#[inline(always)]
fn is_to_bridge<P: Packet + ?Sized>(packet: &P, fan: &FanRecord) -> bool {
    let destination: Option<[u8; 6]> = packet.read(0);
    destination == Some(fan.bridge_mac)
}

/// To `destination` in another host's slice; ICMP errors come from address `told_by`.
#[inline(always)]
pub(super) fn towards<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    (fan, told_by): (&FanRecord, u32),
    ip: &Ipv4,
    destination: u32,
    rewrite: Tuple,
) -> Verdict {
    let &Input { packet, context, tables, config, hook } = input;
    // What the host's stack sends has been routed, cannot go back to it, and is not to be told of its own routes.
    let by_stack = hook as u32 == Hook::HostEgress as u32;
    let host = host_of(fan, destination);
    if !names_a_host(fan, host) {
        if by_stack {
            return drop(Outcome::DropNoFan);
        }
        return answer(packet, told_by, ip, With::HostUnreachable, Outcome::DropNoFan);
    }
    let size = largest_packet(packet, context, ip);
    let mtu = mtu_to(tables, config, fan, host, size);
    if size > mtu {
        if mtu == PathRecord::SILENT {
            return silent(packet, told_by, ip);
        }
        if ip.dont_fragment() {
            return too_big(packet, told_by, ip, mtu);
        }
        if !by_stack && rewrite.is_kept() {
            return pass(Outcome::PassSlowPath);
        }
        // The stack gets it by the device from which its routes make it fragment for any path: what it has sent itself, anew,
        // and a packet of a service translated, between two overlay addresses. Not translated, it would be counted and
        // translated once more in fragments, for which connection tracking may wait in vain: the last may be small enough.
        cold_path();
        return Verdict::forward(rewrite, Out::STACK);
    }
    Verdict::forward(rewrite, Out::tunnel(fan.slot, host, !by_stack))
}

/// `host-egress`: a packet that the host's stack sends, its own or one it forwards. TTL is the stack's business.
#[inline(always)]
pub(super) fn host_egress<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    context: &impl Context,
    tables: &T,
) -> Verdict {
    let Some(ip) = ipv4_frame(packet, context) else { return drop(Outcome::DropNoFan) };
    let Some(config) = tables.config() else { return drop(Outcome::DropNoFan) };
    let input = Input { packet, context, tables, config, hook: Hook::HostEgress };
    let Some(fan) = fan_of(config, ip.dst) else { return host_to_vip(&input, &ip) };
    if in_slice(fan, ip.dst) {
        return drop(Outcome::DropLoop);
    }
    // This host may speak from its address in the underlay, as it does to who has called it there.
    let is_ours = in_slice(fan, ip.src) || ip.src == fan.address;
    let own = if is_ours { Some(fan) } else { own_fan_of(config, ip.src) };
    let Some(own) = own else { return drop(Outcome::DropForeignSource) };
    if context.is_translated() {
        cold_path();
        tracked::note(packet, &ip, tables);
    }
    let verdict = towards(&input, (fan, own.gateway), &ip, ip.dst, Tuple::KEPT);
    let is_forwarded = verdict.action as u32 == Action::Forward as u32;
    if is_forwarded && (!ip.well_formed() || !fits(&ip, context)) {
        return drop(Outcome::DropTooBig);
    }
    verdict
}

/// To an address of no overlay that is routed to the helper device: a VIP.
#[inline(always)]
fn host_to_vip<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    ip: &Ipv4,
) -> Verdict {
    if input.config.services == 0 {
        return drop(Outcome::DropNoFan);
    }
    let party = match own_fan_of(input.config, ip.src) {
        Some(fan) => Party { fan: fan.slot, is_outside: false },
        None if fan_of(input.config, ip.src).is_some() => return drop(Outcome::DropForeignSource),
        None => {
            cold_path();
            let Some(fan) = any_fan(input.config) else { return drop(Outcome::DropNoFan) };
            Party { fan: fan.slot, is_outside: true }
        }
    };
    if !fits(ip, input.context) {
        return drop(Outcome::DropTooBig);
    }
    // The stack has done what they ask for on the way here. A flow's packets all have their ports in one place then, and an
    // ICMP error need not quote a header of any length.
    if ip.has_options() && ip.well_formed() {
        return Verdict::remove_options();
    }
    service::to_vip(input, party, ip)
}

/// The header describes this frame, and the outer header's 16-bit length has room for it.
#[inline(always)]
fn fits(ip: &Ipv4, context: &impl Context) -> bool {
    !is_cut(ip, context) && tunnel::holds(ip)
}

/// The frame ends before the length that the header gives.
#[inline(always)]
fn is_cut(ip: &Ipv4, context: &impl Context) -> bool {
    ip.total_len + ETH_LEN as u32 > context.frame_len()
}
