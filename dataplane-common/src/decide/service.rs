//! Packets to VIPs, and answers to clients that no tunnel leads to.

use super::{
    Answer, Context, Forward, Tables, Verdict, With, answer, drop, egress, egress::World, fan_of, in_slice,
    largest_packet, off_the_common_way, pass, too_big,
};
use crate::{
    abi::{BackendRecord, Config, Encapsulation, FanRecord, FlowRecord},
    icmp,
    outcome::{Hook, Outcome},
    packet::Packet,
    vip::{self, Place, Refusal, Segment, Tuple},
    wire::{ETH_LEN, IPV4_LEN, Ipv4, PROTO_ICMP, PROTO_TCP},
};

/// Who speaks to a VIP, or answers for one.
#[derive(Clone, Copy)]
pub struct Client<'t> {
    /// The fan of its address; some fan of this node where it has none.
    pub fan: &'t FanRecord,
    /// Its address lies in no overlay.
    pub is_outside: bool,
}

impl Client<'_> {
    /// The address of this host that it knows a way to.
    #[inline(always)]
    pub(super) fn host(&self) -> u32 {
        if self.is_outside { self.fan.address } else { self.fan.gateway }
    }
}

/// This node between a client and its backends.
struct Here<'t> {
    config: &'t Config,
    hook: Hook,
    client: Client<'t>,
}

impl Place for Here<'_> {
    #[inline(always)]
    fn source(&self, client: u32, backend: &BackendRecord) -> u8 {
        let address = u32::from_be(backend.address);
        let Some(fan) = fan_of(self.config, address) else {
            let is_here = backend.flags & BackendRecord::HERE != 0;
            return if is_here { FlowRecord::FROM_VIP } else { FlowRecord::FROM_UPLINK };
        };
        // A bridge's ports answer each other past its own hook, and the host's stack its endpoints past all.
        let past_the_hooks = address == fan.gateway
            || self.hook as u32 == Hook::BridgeIngress as u32 && in_slice(self.client.fan, address);
        if client == backend.address || past_the_hooks {
            FlowRecord::FROM_VIP
        } else if self.client.is_outside && !in_slice(fan, address) {
            FlowRecord::FROM_GATEWAY
        } else {
            0
        }
    }

    #[inline(always)]
    fn address(&self, flags: u8, backend: u32) -> u32 {
        let address = if flags & FlowRecord::FROM_UPLINK != 0 {
            self.client.fan.address
        } else {
            fan_of(self.config, u32::from_be(backend)).map_or(self.client.fan.gateway, |fan| fan.gateway)
        };
        address.to_be()
    }
}

/// To what may be a VIP; `otherwise` where it is none.
#[inline(always)]
pub(super) fn to_vip<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    client: Client<'t>,
    ip: &Ipv4,
    otherwise: impl FnOnce() -> Verdict<'t>,
) -> Verdict<'t> {
    let by_stack = world.hook as u32 == Hook::HostEgress as u32;
    if !by_stack && ip.header.ttl <= 1 {
        return expired(world, client, ip);
    }
    let here = Here { config: world.config, hook: world.hook, client };
    let fate = vip::to_vip(world.packet, ip, ETH_LEN, &here, world.tables);
    let Some(refusal) = fate.refusal else { return to_backend(world, client, ip, fate.rewrite) };
    off_the_common_way();
    // The filter may have taken another address for a VIP.
    if !world.tables.is_vip(ip.dst.to_be()) {
        return otherwise();
    }
    if is_echo_request(world.packet, ip) {
        return Verdict::Answer(Answer::with(With::Echo, Outcome::AnsweredEcho));
    }
    let outcome = match refusal {
        Refusal::NoService if world.hook as u32 == Hook::UplinkIngress as u32 => return otherwise(),
        Refusal::BadSource => return drop(Outcome::DropBadSource),
        Refusal::FragmentEarly => return drop(Outcome::DropFragmentEarly),
        Refusal::NoService => Outcome::RefusedNoService,
        Refusal::NoBackend => Outcome::RefusedNoBackend,
        Refusal::Collision => Outcome::RefusedCollision,
        Refusal::BackendGone => Outcome::RefusedBackendGone,
    };
    refuse(world, client, ip, outcome)
}

/// Of an endpoint to an address of no overlay: perhaps a backend's answer to a client there.
#[inline(always)]
pub(super) fn to_client<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    backend: Client<'t>,
    ip: &Ipv4,
) -> Verdict<'t> {
    let rewrite = vip::from_backend(world.packet, ip, ETH_LEN, world.tables);
    if rewrite.is_kept() {
        return pass(Outcome::PassNotOurs);
    }
    if let Some(verdict) = egress::sent_by_endpoint(world, backend.fan, ip) {
        return verdict;
    }
    if ip.header.ttl <= 1 {
        return expired(world, backend, ip);
    }
    to_backend(world, backend, ip, rewrite)
}

#[inline(always)]
fn expired<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    client: Client<'t>,
    ip: &Ipv4,
) -> Verdict<'t> {
    if ip.header.ttl == 0 {
        return drop(Outcome::DropTtlExceeded);
    }
    answer(world.packet, client.host(), ip, icmp::Error::TtlExceeded, Outcome::DropTtlExceeded)
}

#[inline(always)]
fn is_echo_request<P: Packet + ?Sized>(packet: &P, ip: &Ipv4) -> bool {
    if ip.header.proto != PROTO_ICMP || ip.is_fragment() || !ip.is_plain() {
        return false;
    }
    let kind: Option<[u8; 2]> = packet.read(ETH_LEN + IPV4_LEN);
    kind == Some([icmp::ECHO_REQUEST, 0])
}

/// On to where the translated packet's destination lives: a backend, or the client of an answer.
#[inline(always)]
pub(super) fn to_backend<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    sender: Client<'t>,
    ip: &Ipv4,
    rewrite: Tuple,
) -> Verdict<'t> {
    let destination = u32::from_be(rewrite.dst);
    let Some(fan) = fan_of(world.config, destination) else { return route(world, sender, ip, rewrite) };
    if !in_slice(fan, destination) {
        let verdict = egress::towards(world, (fan, sender.fan), ip, destination, rewrite);
        return match verdict {
            Verdict::Answer(answer) if sender.is_outside => {
                Verdict::Answer(Answer { source: sender.fan.address, ..answer })
            }
            verdict => verdict,
        };
    }
    if destination == fan.gateway {
        return Verdict::Translate { rewrite, forward: Forward::ToHost { fan } };
    }
    match world.tables.endpoint(destination) {
        Some(endpoint) => Verdict::Translate { rewrite, forward: Forward::Deliver { fan, endpoint } },
        // The stack asks for the neighbour, and has no way to tell the sender of the bridge's MTU: the sender that it sees
        // may be the VIP.
        None if ip.dont_fragment() && largest_packet(world.packet, world.context, ip) > fan.mtu => {
            too_big(world.packet, sender.host(), ip, fan.mtu)
        }
        None => Verdict::Translate { rewrite, forward: Forward::ToHost { fan } },
    }
}

/// Out as the routing table says: what the uplink carries.
#[inline(always)]
fn route<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    sender: Client<'t>,
    ip: &Ipv4,
    rewrite: Tuple,
) -> Verdict<'t> {
    off_the_common_way();
    let mtu = sender.fan.mtu + Encapsulation::Ipip.overhead();
    if largest_packet(world.packet, world.context, ip) <= mtu {
        return Verdict::Translate { rewrite, forward: Forward::Route { sender } };
    }
    if !ip.dont_fragment() {
        return drop(Outcome::DropTooBig);
    }
    too_big(world.packet, sender.host(), ip, mtu)
}

/// As a closed port answers.
#[inline(always)]
fn refuse<'t, P: Packet + ?Sized, C: Context, T: Tables>(
    world: &World<'_, 't, P, C, T>,
    client: Client<'t>,
    ip: &Ipv4,
    outcome: Outcome,
) -> Verdict<'t> {
    if ip.header.proto == PROTO_TCP {
        return match Segment::read(world.packet, ip, ETH_LEN) {
            Some(segment) if !segment.is_reset() => Verdict::Answer(Answer::with(With::Reset, outcome)),
            _ => drop(outcome),
        };
    }
    match answer(world.packet, client.host(), ip, icmp::Error::PortUnreachable, outcome) {
        Verdict::Answer(answer) if world.tables.may_refuse(ip.src.to_be()) => {
            Verdict::Answer(Answer { outcome, ..answer })
        }
        _ => drop(outcome),
    }
}
