//! Packets from this host towards the overlay: from endpoints, from bridge ports, from the host's own stack.

use super::{
    Context, Tables, Verdict, answer, drop, fan_of, host_of, in_slice, ipv4_frame, largest_packet, mtu_to,
    names_a_host, own_fan_of, pass,
};
use crate::{
    abi::{Config, FanRecord},
    icmp,
    outcome::{Hook, Outcome},
    packet::Packet,
    wire::{ETH_LEN, IPV4_LEN, Ipv4},
};

/// `endpoint-ingress` and `bridge-ingress`: a packet that an endpoint of this host sends.
///
/// On a bridge port the frame may be addressed to another port: only frames to the gateway's MAC are routed here.
#[inline(always)]
pub fn local_ingress<'t, P: Packet + ?Sized, T: Tables>(
    hook: Hook,
    packet: &P,
    context: &impl Context,
    tables: &'t T,
) -> Verdict<'t> {
    let Some(ip) = ipv4_frame(packet, context) else { return pass(Outcome::PassNotOurs) };
    let Some(config) = tables.config() else { return pass(Outcome::PassNotOurs) };
    let Some(fan) = fan_of(config, ip.dst) else { return pass(Outcome::PassNotOurs) };
    let world = World { packet, context, tables, config };
    let own = if in_slice(fan, ip.src) { Some(fan) } else { own_fan_of(config, ip.src) };
    match own {
        Some(own) => from_own(hook, world, (fan, own), ip),
        None => from_foreign(world, fan, &ip),
    }
}

/// What a decision reads.
struct World<'p, 't, P: ?Sized, C, T> {
    packet: &'p P,
    context: &'p C,
    tables: &'t T,
    config: &'t Config,
}

/// From a source outside this host's slices: an endpoint may have other addresses and talk to the host from them, but
/// not into the overlay.
#[inline(always)]
fn from_foreign<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: World<'_, 't, P, C, T>,
    fan: &FanRecord,
    ip: &Ipv4,
) -> Verdict<'t> {
    if !world.context.to_us() && !is_to_bridge(world.packet, fan) {
        return pass(Outcome::PassNotOurs);
    }
    if ip.dst == fan.gateway {
        return pass(Outcome::PassToHost);
    }
    drop(Outcome::DropForeignSource)
}

/// From an address of `own`'s slice to one of `fan`'s overlay.
#[inline(always)]
fn from_own<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    hook: Hook,
    world: World<'_, 't, P, C, T>,
    (fan, own): (&'t FanRecord, &'t FanRecord),
    ip: Ipv4,
) -> Verdict<'t> {
    let World { packet, context, tables, config } = world;
    if !context.to_us() && !is_to_bridge(packet, own) {
        return pass(Outcome::PassNotOurs);
    }
    if hook as u32 == Hook::EndpointIngress as u32
        && let Some(known) = tables.endpoint(ip.src)
        && known.ifindex != context.ifindex()
    {
        return drop(Outcome::DropWrongEndpoint);
    }
    if !ip.is_plain() || !fits(&ip, context) {
        return pass(Outcome::PassSlowPath);
    }
    let here = in_slice(fan, ip.dst);
    if here && ip.dst == fan.gateway {
        return pass(Outcome::PassToHost);
    }
    if ip.header.ttl <= 1 {
        return answer(packet, own.gateway, &ip, icmp::Error::TtlExceeded, Outcome::DropTtlExceeded);
    }
    if here {
        return match tables.endpoint(ip.dst) {
            Some(endpoint) => Verdict::DeliverLocally { fan, endpoint },
            None => pass(Outcome::PassSlowPath),
        };
    }
    route(packet, context, tables, config, (fan, own.gateway), ip)
}

/// Whether the frame is addressed to the fan's gateway as its ports see it.
#[inline(always)]
fn is_to_bridge<P: Packet + ?Sized>(packet: &P, fan: &FanRecord) -> bool {
    let destination: Option<[u8; 6]> = packet.read(0);
    destination == Some(fan.bridge_mac)
}

/// A packet of an endpoint to another host's slice.
#[inline(always)]
fn route<'t, P: Packet + ?Sized, T: Tables>(
    packet: &P,
    context: &impl Context,
    tables: &'t T,
    config: &'t Config,
    (fan, gateway): (&'t FanRecord, u32),
    ip: Ipv4,
) -> Verdict<'t> {
    let host = host_of(fan, ip.dst);
    if !names_a_host(fan, host) {
        return answer(packet, gateway, &ip, icmp::Error::HostUnreachable, Outcome::DropNoFan);
    }
    let size = largest_packet(packet, context, &ip);
    let mtu = mtu_to(tables, config, fan, host, size);
    if size > mtu {
        return too_big(packet, gateway, &ip, mtu, pass(Outcome::PassSlowPath));
    }
    Verdict::Encapsulate { fan, host, routed: true }
}

/// `host-egress`: a packet that the host's stack sends, its own or one it forwards. TTL is the stack's business.
#[inline(always)]
pub fn host_egress<'t, P: Packet + ?Sized, T: Tables>(
    packet: &P,
    context: &impl Context,
    tables: &'t T,
) -> Verdict<'t> {
    let Some(ip) = ipv4_frame(packet, context) else { return drop(Outcome::DropNoFan) };
    let Some(config) = tables.config() else { return drop(Outcome::DropNoFan) };
    let Some(fan) = fan_of(config, ip.dst) else { return drop(Outcome::DropNoFan) };
    if in_slice(fan, ip.dst) {
        return drop(Outcome::DropLoop);
    }
    let own = if in_slice(fan, ip.src) { Some(fan) } else { own_fan_of(config, ip.src) };
    let Some(own) = own else { return drop(Outcome::DropForeignSource) };
    let host = host_of(fan, ip.dst);
    if !names_a_host(fan, host) {
        return drop(Outcome::DropNoFan);
    }
    let size = largest_packet(packet, context, &ip);
    let mtu = mtu_to(tables, config, fan, host, size);
    if size > mtu {
        return too_big(packet, own.gateway, &ip, mtu, drop(Outcome::DropTooBig));
    }
    if !ip.well_formed() || !fits(&ip, context) {
        return drop(Outcome::DropTooBig);
    }
    Verdict::Encapsulate { fan, host, routed: false }
}

/// "Fragmentation needed" where the sender forbade fragments, else `otherwise`.
#[inline(always)]
fn too_big<'t, P: Packet + ?Sized>(
    packet: &P,
    gateway: u32,
    ip: &Ipv4,
    mtu: u32,
    otherwise: Verdict<'t>,
) -> Verdict<'t> {
    if !ip.dont_fragment() {
        return otherwise;
    }
    let error = icmp::Error::FragmentationNeeded { mtu: mtu as u16 };
    answer(packet, gateway, ip, error, Outcome::DropTooBig)
}

/// The header describes this frame, and the outer header's 16-bit length has room for it.
#[inline(always)]
fn fits(ip: &Ipv4, context: &impl Context) -> bool {
    ip.total_len + ETH_LEN as u32 <= context.frame_len()
        && ip.total_len + IPV4_LEN as u32 <= u32::from(u16::MAX)
}
