//! Packets of endpoints and of the host's processes to a VIP.

use super::{
    Context, Forward, Tables, Verdict, answer, drop, egress, egress::World, fan_of, in_slice, largest_packet,
};
use crate::{
    abi::FanRecord,
    icmp,
    outcome::{Hook, Outcome},
    packet::Packet,
    vip::{self, Refusal, Segment, Tuple},
    wire::{ETH_LEN, IPV4_LEN, Ipv4, PROTO_ICMP, PROTO_TCP},
};

/// To a VIP, from an address of `own`'s slice.
#[inline(always)]
pub(super) fn to_vip<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    own: &'t FanRecord,
    ip: &Ipv4,
) -> Verdict<'t> {
    if world.hook as u32 != Hook::HostEgress as u32 && ip.header.ttl <= 1 {
        return answer(world.packet, own.gateway, ip, icmp::Error::TtlExceeded, Outcome::DropTtlExceeded);
    }
    if is_echo_request(world.packet, ip) {
        return Verdict::Echo;
    }
    // A bridge's ports answer each other past its own hook, and the host's stack its endpoints past all.
    let past_the_hooks = |backend: u32| {
        let backend = u32::from_be(backend);
        backend == own.gateway || world.hook as u32 == Hook::BridgeIngress as u32 && in_slice(own, backend)
    };
    let fate = vip::to_vip(world.packet, ip, ETH_LEN, past_the_hooks, world.tables);
    let refused = match fate.refusal {
        None => return to_backend(world, own, ip, fate.rewrite),
        Some(Refusal::Fragment) => return drop(Outcome::DropFragment),
        Some(Refusal::NoService) => Outcome::RefusedNoService,
        Some(Refusal::NoBackend) => Outcome::RefusedNoBackend,
        Some(Refusal::Collision) => Outcome::RefusedCollision,
        Some(Refusal::BackendGone) => Outcome::RefusedBackendGone,
    };
    refuse(world, own, ip, refused)
}

#[inline(always)]
fn is_echo_request<P: Packet + ?Sized>(packet: &P, ip: &Ipv4) -> bool {
    if ip.header.proto != PROTO_ICMP || ip.is_fragment() || !ip.is_plain() {
        return false;
    }
    let kind: Option<[u8; 2]> = packet.read(ETH_LEN + IPV4_LEN);
    kind == Some([icmp::ECHO_REQUEST, 0])
}

/// On to where the translated packet's destination lives.
#[inline(always)]
fn to_backend<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    own: &'t FanRecord,
    ip: &Ipv4,
    rewrite: Tuple,
) -> Verdict<'t> {
    let destination = u32::from_be(rewrite.dst);
    let Some(fan) = fan_of(world.config, destination) else { return drop(Outcome::DropNoFan) };
    if !in_slice(fan, destination) {
        return egress::towards(world, (fan, own), ip, destination, rewrite);
    }
    if destination == fan.gateway {
        return Verdict::Translate { rewrite, forward: Forward::ToHost };
    }
    match world.tables.endpoint(destination) {
        Some(endpoint) => Verdict::Translate { rewrite, forward: Forward::Deliver { fan, endpoint } },
        // The stack asks for the neighbour, and has no way to tell the sender of the bridge's MTU: the sender that it sees
        // may be the VIP.
        None if ip.dont_fragment() && largest_packet(world.packet, world.context, ip) > fan.mtu => {
            let error = icmp::Error::FragmentationNeeded { mtu: fan.mtu as u16 };
            answer(world.packet, own.gateway, ip, error, Outcome::DropTooBig)
        }
        None => Verdict::Translate { rewrite, forward: Forward::ToHost },
    }
}

/// As a closed port answers.
#[inline(always)]
fn refuse<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    own: &FanRecord,
    ip: &Ipv4,
    outcome: Outcome,
) -> Verdict<'t> {
    if ip.header.proto != PROTO_TCP {
        return match answer(world.packet, own.gateway, ip, icmp::Error::PortUnreachable, outcome) {
            Verdict::Answer { source, error, .. } => Verdict::Answer { source, error, outcome },
            verdict => verdict,
        };
    }
    match Segment::read(world.packet, ip, ETH_LEN) {
        Some(segment) if !segment.is_reset() => Verdict::Reset(outcome),
        _ => drop(outcome),
    }
}
