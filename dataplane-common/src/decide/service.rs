//! Packets to VIPs and from their backends. What most packets need is decided by the hook's own program, the rest by
//! [`bare_service`] in a program of its own, which the others call.

use super::{
    Action, Answer, Case, Context, Input, Kind, Onward, Party, Tables, Verdict, With, answer, cold_path,
    drop, fan_in, fan_of, in_slice, ingress, ipv4_at, ipv4_frame, onward, pass, tracked,
};
use crate::{
    abi::{BackendRecord, Config, FlowKey, FlowRecord},
    ct::{self, Known, Place, Refusal, Segment, Source, Towards, Translation, Tuple},
    icmp,
    outcome::{Hook, Outcome},
    packet::Packet,
    tunnel,
    wire::{ETH_LEN, IPV4_LEN, Ipv4, PROTO_ICMP, PROTO_TCP},
};

/// This node between a client and its backends.
struct Node<'t, T> {
    config: &'t Config,
    tables: &'t T,
    hook: Hook,
    client: Party,
}

impl<T: Tables> Place for Node<'_, T> {
    #[inline(always)]
    fn source(&self, key: &FlowKey, backend: &BackendRecord) -> Source {
        let address = u32::from_be(backend.address);
        let own = fan_in(self.config, self.client.fan);
        let Some(fan) = fan_of(self.config, address) else {
            return if backend.flags & BackendRecord::HERE != 0 {
                // This host answers past the programs.
                Source { address: key.dst, flags: 0 }
            } else {
                // It knows no way to an overlay.
                Source { address: own.address.to_be(), flags: FlowRecord::SHARED_SOURCE }
            };
        };
        // A bridge's ports answer each other past its own hook, the host's stack its endpoints past all, and an endpoint itself.
        // Where nobody is known to have the address, the stack asks for it, and tells of it in vain what it sees as the sender:
        // only as the VIP's does that pass a program.
        let is_unknown = in_slice(fan, address) && self.tables.endpoint(address).is_none();
        let past_the_hooks = key.src == backend.address
            || address == fan.gateway
            || is_unknown
            || self.hook as u32 == Hook::BridgeIngress as u32 && in_slice(own, address);
        if past_the_hooks {
            Source { address: key.dst, flags: 0 }
        } else if self.client.is_outside && !in_slice(fan, address) {
            // The tunnel carries overlay addresses alone.
            Source { address: fan.gateway.to_be(), flags: FlowRecord::SHARED_SOURCE }
        } else if self.hook as u32 == Hook::HostEgress as u32 && !self.client.is_outside {
            Source { address: key.src, flags: FlowRecord::HOST_SOURCE }
        } else {
            Source { address: key.src, flags: 0 }
        }
    }
}

/// To what may be a VIP: on its way where its flow is established, and else a case for [`bare_service`] or [`begin`].
#[inline(always)]
pub(super) fn to_vip<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    client: Party,
    ip: &Ipv4,
) -> Verdict {
    let Known { rewrite, is_open, is_absent } = ct::established(input.packet, ip, ETH_LEN, input.tables);
    if rewrite.is_kept() {
        cold_path();
        let case = Case { kind: Kind::ToVip, fan: client.fan, party: client, is_absent };
        return if is_open {
            Verdict::begin(Case { kind: Kind::Opening, ..case })
        } else {
            Verdict::service(case)
        };
    }
    onward::to_party(input, client, ip, rewrite)
}

/// Decides what the hook's own program has left open of a packet outside of tunnel packets.
#[inline(always)]
pub fn bare_service<P: Packet + ?Sized, T: Tables>(
    hook: Hook,
    case: Case,
    packet: &P,
    context: &impl Context,
    tables: &T,
) -> Verdict {
    let Some(config) = tables.config() else { return pass(Outcome::PassNotOurs) };
    let input = Input { packet, context, tables, config, hook };
    let Some(ip) = ipv4_frame(packet, context) else { return pass(Outcome::PassNotOurs) };
    bare(&input, case, &ip)
}

/// Decides what `uplink-ingress` has left open of a packet in a tunnel packet.
#[inline(always)]
pub fn carried_service<P: Packet + ?Sized, T: Tables>(case: Case, packet: &P, tables: &T) -> Verdict {
    let Some(config) = tables.config() else { return pass(Outcome::PassNotOurs) };
    let Some(inner) = ipv4_at(packet, tunnel::INNER) else { return drop(Outcome::DropTruncated) };
    let Some(outer) = ipv4_at(packet, ETH_LEN) else { return drop(Outcome::DropTruncated) };
    let Some(tos) = ingress::inner_tos(&inner, &outer) else { return drop(Outcome::DropEcn) };
    let rewrite = ct::from_backend(packet, &inner, (tunnel::INNER, case.is_absent), tables);
    ingress::answered(tables, fan_in(config, case.fan), &inner, tos, rewrite)
}

#[inline(always)]
fn bare<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    case: Case,
    ip: &Ipv4,
) -> Verdict {
    let &Input { packet, tables, config, .. } = input;
    if case.kind as u32 == Kind::ToVip as u32 {
        return open_to_vip(input, case, ip);
    }
    let is_between = case.kind as u32 != Kind::ToClient as u32;
    let mut rewrite = Tuple::KEPT;
    if !is_between || in_slice(fan_in(config, case.fan), ip.dst) {
        rewrite = ct::from_backend(packet, ip, (ETH_LEN, case.is_absent), tables);
    }
    if is_between {
        if rewrite.is_kept() {
            let Translation { rewrite: direct, refusal } = ct::direct(packet, ip, ETH_LEN, tables);
            if refusal.is_some() {
                return Verdict::begin(case);
            }
            rewrite = direct;
        }
        return between(case, rewrite);
    }
    if rewrite.is_kept() {
        return pass(Outcome::PassNotOurs);
    }
    Verdict::onward(Onward { rewrite, between: None, party: case.party })
}

/// Between two overlay addresses.
#[inline(always)]
fn between(case: Case, rewrite: Tuple) -> Verdict {
    if rewrite.is_kept() && case.kind as u32 == Kind::Switched as u32 {
        return pass(Outcome::PassNotOurs);
    }
    Verdict::onward(Onward { rewrite, between: Some(case.fan), party: case.party })
}

/// Begins a flow of a service with its first packet, or one straight to a backend.
#[inline(always)]
pub fn begin<P: Packet + ?Sized, T: Tables>(
    hook: Hook,
    case: Case,
    packet: &P,
    context: &impl Context,
    tables: &T,
) -> Verdict {
    let Some(config) = tables.config() else { return pass(Outcome::PassNotOurs) };
    let input = Input { packet, context, tables, config, hook };
    let Some(ip) = ipv4_frame(packet, context) else { return pass(Outcome::PassNotOurs) };
    let is_direct = case.kind as u32 > Kind::ToOther as u32;
    if !is_direct {
        if let Some(verdict) = barred(&input, case.party, &ip) {
            return verdict;
        }
        if case.kind as u32 == Kind::Opening as u32 && ct::is_begun(packet, &ip, ETH_LEN, tables) {
            return Verdict::service(Case { kind: Kind::ToVip, ..case });
        }
    }
    let is_first = case.kind as u32 != Kind::ToOther as u32;
    let towards = match case.kind {
        Kind::ToVip | Kind::Opening => Towards::Service,
        Kind::ToOther => Towards::Other,
        _ => Towards::Addressed,
    };
    let node = Node { config, tables, hook, client: case.party };
    let Translation { rewrite, refusal } =
        ct::begin(packet, &ip, (ETH_LEN, case.is_absent), (&node, towards), tables);
    if is_direct {
        return between(case, rewrite);
    }
    // Rule 8 of `codegen`.
    let Some(ip) = ipv4_at(packet, ETH_LEN) else { return drop(Outcome::DropTruncated) };
    match refusal {
        None => Verdict::onward(Onward { rewrite, between: None, party: case.party }),
        Some(Refusal::Collision) if is_first => Verdict::begin(Case { kind: Kind::ToOther, ..case }),
        Some(refusal) => refused(&input, case.party, &ip, refusal),
    }
}

/// To a VIP, and of no established flow.
#[inline(always)]
fn open_to_vip<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    case: Case,
    ip: &Ipv4,
) -> Verdict {
    let client = case.party;
    if let Some(verdict) = barred(input, client, ip) {
        return verdict;
    }
    let Translation { rewrite, refusal } =
        ct::to_vip(input.packet, ip, (ETH_LEN, case.is_absent), input.tables);
    match refusal {
        None => Verdict::onward(Onward { rewrite, between: None, party: client }),
        Some(_) if answers_publication(input, ip) => Verdict::track(client.fan),
        Some(Refusal::Unknown) => Verdict::begin(case),
        Some(refusal) => refused(input, client, ip, refusal),
    }
}

/// Whether a packet to a VIP answers its client at a port that the host publishes.
#[inline(always)]
fn answers_publication<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    ip: &Ipv4,
) -> bool {
    input.hook as u32 != Hook::HostEgress as u32
        && tracked::is_answer(input.packet, ip, ETH_LEN, (input.tables, input.config))
}

/// What becomes of a packet that no service serves, whatever it asks for: on its last hop, from nobody's address, a fragment
/// without ports. The filter may have taken another address for a VIP: that is asked first.
#[inline(always)]
fn barred<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    client: Party,
    ip: &Ipv4,
) -> Option<Verdict> {
    let by_stack = input.hook as u32 == Hook::HostEgress as u32;
    let is_spent = !by_stack && ip.ttl <= 1;
    let is_nobodys = !icmp::names_a_host(ip.src) || ip.src == ip.dst;
    let is_icmp_fragment = ip.is_fragment() && ip.proto == PROTO_ICMP;
    if !is_spent && !is_nobodys && !is_icmp_fragment {
        return None;
    }
    cold_path();
    if !input.tables.is_vip(ip.dst.to_be()) {
        return Some(no_vip(input, client, ip));
    }
    if is_nobodys {
        return Some(drop(Outcome::DropBadSource));
    }
    Some(if is_icmp_fragment { drop(Outcome::DropIcmpFragment) } else { onward::expired(input, client, ip) })
}

/// To a VIP, which cannot serve it.
#[inline(always)]
fn refused<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    client: Party,
    ip: &Ipv4,
    refusal: Refusal,
) -> Verdict {
    // The filter may have taken another address for a VIP.
    if !input.tables.is_vip(ip.dst.to_be()) {
        return no_vip(input, client, ip);
    }
    if is_echo_request(input.packet, ip) {
        return Verdict::answer(Answer::with(With::Echo, Outcome::AnsweredEcho));
    }
    let outcome = match refusal {
        Refusal::NoService if input.hook as u32 == Hook::UplinkIngress as u32 => {
            return no_vip(input, client, ip);
        }
        Refusal::FragmentEarly => return drop(Outcome::DropFragmentEarly),
        Refusal::NoService | Refusal::Unknown => Outcome::RefusedNoService,
        Refusal::NoBackend => Outcome::RefusedNoBackend,
        Refusal::Collision => Outcome::RefusedCollision,
        Refusal::BackendGone => Outcome::RefusedBackendGone,
    };
    refuse(input, client, ip, outcome)
}

/// To an address that is no VIP. From the host's stack, which routes here only what is in the range of VIPs, it goes nowhere.
#[inline(always)]
fn no_vip<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    client: Party,
    ip: &Ipv4,
) -> Verdict {
    if input.hook as u32 != Hook::HostEgress as u32 {
        return pass(Outcome::PassNotOurs);
    }
    answer(input.packet, client.host(input.config), ip, With::HostUnreachable, Outcome::DropNoFan)
}

#[inline(always)]
fn is_echo_request<P: Packet + ?Sized>(packet: &P, ip: &Ipv4) -> bool {
    if ip.proto != PROTO_ICMP || ip.is_fragment() || !ip.is_plain() {
        return false;
    }
    let kind: Option<[u8; 2]> = packet.read(ETH_LEN + IPV4_LEN);
    kind == Some([icmp::ECHO_REQUEST, 0])
}

/// As a closed port answers.
#[inline(always)]
fn refuse<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    client: Party,
    ip: &Ipv4,
    outcome: Outcome,
) -> Verdict {
    if ip.proto == PROTO_TCP {
        return match Segment::read(input.packet, ip, ETH_LEN) {
            Some(segment) if !segment.is_reset() => Verdict::answer(Answer::with(With::Reset, outcome)),
            Some(_) => drop(outcome),
            None => drop(Outcome::DropTruncated),
        };
    }
    let source = client.host(input.config);
    let refused = answer(input.packet, source, ip, With::PortUnreachable, outcome);
    if refused.action as u32 != Action::Answer as u32 || !input.tables.may_refuse(ip.src.to_be()) {
        return drop(outcome);
    }
    Verdict::answer(Answer { with: With::PortUnreachable, source, mtu: 0, outcome })
}
