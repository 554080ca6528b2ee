//! Packets from this host towards the overlay: from endpoints, from bridge ports, from the host's own stack.

use super::{
    Context, Forward, Tables, Verdict, answer, any_fan, drop, fan_of, forward, host_of, in_slice, ipv4_frame,
    largest_packet, mtu_to, names_a_host, off_the_common_way, own_fan_of, pass,
    service::{self, Client},
    too_big,
};
use crate::{
    abi::{Config, FanRecord},
    icmp,
    outcome::{Hook, Outcome},
    packet::Packet,
    vip::{self, Tuple},
    wire::{ETH_LEN, IPV4_LEN, Ipv4},
};

/// What a decision reads.
pub(super) struct World<'p, 't, P: ?Sized, C, T> {
    pub packet: &'p P,
    pub context: &'p C,
    pub tables: &'t T,
    pub config: &'t Config,
    pub hook: Hook,
}

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
    let world = World { packet, context, tables, config, hook };
    let Some(fan) = fan_of(config, ip.dst) else { return outside(&world, &ip) };
    let own = if in_slice(fan, ip.src) { Some(fan) } else { own_fan_of(config, ip.src) };
    match own {
        Some(own) => from_own(&world, (fan, own), &ip),
        None => from_foreign(&world, fan, &ip),
    }
}

/// To an address of no overlay: perhaps a VIP, or the client of one.
#[inline(always)]
fn outside<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    ip: &Ipv4,
) -> Verdict<'t> {
    if world.config.services == 0 {
        return pass(Outcome::PassNotOurs);
    }
    off_the_common_way();
    let Some(own) = own_fan_of(world.config, ip.src) else { return pass(Outcome::PassNotOurs) };
    let client = Client { fan: own, is_outside: false };
    if !world.tables.may_be_vip(ip.dst.to_be()) {
        return service::to_client(world, client, ip);
    }
    match sent_by_endpoint(world, own, ip) {
        Some(verdict) => verdict,
        None => service::to_vip(world, client, ip, || pass(Outcome::PassNotOurs)),
    }
}

/// From a source outside this host's slices: an endpoint may have other addresses and talk to the host from them, but
/// not into the overlay.
#[inline(always)]
fn from_foreign<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
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
    world: &World<'_, 't, P, C, T>,
    (fan, own): (&'t FanRecord, &'t FanRecord),
    ip: &Ipv4,
) -> Verdict<'t> {
    if world.config.services != 0 {
        off_the_common_way();
        return with_services(world, (fan, own), ip);
    }
    match sent_by_endpoint(world, own, ip) {
        Some(verdict) => verdict,
        None => to_overlay(world, (fan, own), ip, Tuple::KEPT),
    }
}

/// As [`from_own`] on a node that has services.
#[inline(always)]
fn with_services<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    (fan, own): (&'t FanRecord, &'t FanRecord),
    ip: &Ipv4,
) -> Verdict<'t> {
    let here = in_slice(fan, ip.dst);
    let sent = sent_by_endpoint(world, own, ip);
    // Ports of one bridge speak to each other without the gateway, backends with their clients too.
    let switched = matches!(sent, Some(Verdict::Pass(Outcome::PassNotOurs)))
        && here
        && world.hook as u32 == Hook::EndpointIngress as u32
        && ip.is_plain()
        && fits(ip, world.context);
    if let Some(verdict) = sent
        && !switched
    {
        return verdict;
    }
    let rewrite = translated(world, ip, here);
    if switched && rewrite.is_kept() {
        return pass(Outcome::PassNotOurs);
    }
    to_overlay(world, (fan, own), ip, rewrite)
}

/// What services have to do with a packet between two overlay addresses: a backend's answer, which only its client's host
/// translates, or a connection beside a service's.
#[inline(always)]
fn translated<P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, '_, P, C, T>,
    ip: &Ipv4,
    here: bool,
) -> Tuple {
    if here {
        let answer = vip::from_backend(world.packet, ip, ETH_LEN, world.tables);
        if !answer.is_kept() {
            return answer;
        }
    }
    vip::beside(world.packet, ip, ETH_LEN, world.tables)
}

/// From an address of `own`'s slice to one of `fan`'s overlay.
#[inline(always)]
fn to_overlay<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    (fan, own): (&'t FanRecord, &'t FanRecord),
    ip: &Ipv4,
    rewrite: Tuple,
) -> Verdict<'t> {
    let here = in_slice(fan, ip.dst);
    if here && ip.dst == fan.gateway {
        if rewrite.is_kept() {
            return pass(Outcome::PassToHost);
        }
        return Verdict::Translate { rewrite, forward: Forward::ToHost { fan } };
    }
    if ip.header.ttl <= 1 {
        return answer(world.packet, own.gateway, ip, icmp::Error::TtlExceeded, Outcome::DropTtlExceeded);
    }
    if here {
        return match world.tables.endpoint(ip.dst) {
            Some(endpoint) => forward(rewrite, Forward::Deliver { fan, endpoint }),
            None => pass(Outcome::PassSlowPath),
        };
    }
    towards(world, (fan, own), ip, ip.dst, rewrite)
}

/// What becomes of a packet of an endpoint wherever it goes: not to the gateway, not the endpoint's, not plain.
#[inline(always)]
pub(super) fn sent_by_endpoint<P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, '_, P, C, T>,
    own: &FanRecord,
    ip: &Ipv4,
) -> Option<Verdict<'static>> {
    let &World { packet, context, tables, hook, .. } = world;
    if !context.to_us() && !is_to_bridge(packet, own) {
        return Some(pass(Outcome::PassNotOurs));
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

/// To `destination` in another host's slice.
#[inline(always)]
pub(super) fn towards<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    (fan, own): (&'t FanRecord, &'t FanRecord),
    ip: &Ipv4,
    destination: u32,
    rewrite: Tuple,
) -> Verdict<'t> {
    let &World { packet, context, tables, config, hook } = world;
    // What the host's stack sends has been routed, cannot go back to it, and is not to be told of its own routes.
    let by_stack = hook as u32 == Hook::HostEgress as u32;
    let host = host_of(fan, destination);
    if !names_a_host(fan, host) {
        if by_stack {
            return drop(Outcome::DropNoFan);
        }
        return answer(packet, own.gateway, ip, icmp::Error::HostUnreachable, Outcome::DropNoFan);
    }
    let size = largest_packet(packet, context, ip);
    let mtu = mtu_to(tables, config, fan, host, size);
    if size > mtu {
        if ip.dont_fragment() {
            return too_big(packet, own.gateway, ip, mtu);
        }
        return if by_stack { drop(Outcome::DropTooBig) } else { pass(Outcome::PassSlowPath) };
    }
    forward(rewrite, Forward::Encapsulate { fan, host, routed: !by_stack })
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
    let world = World { packet, context, tables, config, hook: Hook::HostEgress };
    let Some(fan) = fan_of(config, ip.dst) else { return host_to_vip(&world, &ip) };
    if in_slice(fan, ip.dst) {
        return drop(Outcome::DropLoop);
    }
    let own = if in_slice(fan, ip.src) { Some(fan) } else { own_fan_of(config, ip.src) };
    let Some(own) = own else { return drop(Outcome::DropForeignSource) };
    match towards(&world, (fan, own), &ip, ip.dst, Tuple::KEPT) {
        Verdict::Forward(_) if !ip.well_formed() || !fits(&ip, context) => drop(Outcome::DropTooBig),
        verdict => verdict,
    }
}

/// To an address of no overlay that is routed to the helper device: a VIP.
#[inline(always)]
fn host_to_vip<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    ip: &Ipv4,
) -> Verdict<'t> {
    if world.config.services == 0 {
        return drop(Outcome::DropNoFan);
    }
    let client = match own_fan_of(world.config, ip.src) {
        Some(fan) => Client { fan, is_outside: false },
        None if fan_of(world.config, ip.src).is_some() => return drop(Outcome::DropForeignSource),
        None => {
            off_the_common_way();
            let Some(fan) = any_fan(world.config) else { return drop(Outcome::DropNoFan) };
            Client { fan, is_outside: true }
        }
    };
    if !fits(ip, world.context) {
        return drop(Outcome::DropTooBig);
    }
    // The stack has done what they ask for on the way here. A flow's packets all have their ports in one place then, and an
    // ICMP error need not quote a header of any length.
    if ip.has_options() && ip.well_formed() {
        return Verdict::RemoveOptions;
    }
    // An address of the range of VIPs that none has.
    let nobody = || answer(world.packet, client.host(), ip, icmp::Error::HostUnreachable, Outcome::DropNoFan);
    service::to_vip(world, client, ip, nobody)
}

/// The header describes this frame, and the outer header's 16-bit length has room for it.
#[inline(always)]
fn fits(ip: &Ipv4, context: &impl Context) -> bool {
    ip.total_len + ETH_LEN as u32 <= context.frame_len()
        && ip.total_len + IPV4_LEN as u32 <= u32::from(u16::MAX)
}
