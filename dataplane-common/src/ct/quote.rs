//! ICMP errors about packets of flows: they go to the party that knows the flow, with the quoted packet as that party
//! sent it (RFC 5508, section 4).

use super::{Flows, Refusal, Translation, Tuple};
use crate::{
    abi::{FlowKey, LiveFlow},
    codegen::cold_path,
    icmp,
    packet::Packet,
    wire::{IPV4_LEN, IcmpHdr, Ipv4, Ipv4Ports, PROTO_ICMP, PROTO_TCP, PROTO_UDP},
};

/// Offset of the quoted packet in an error behind an IPv4 header without options.
const QUOTED: usize = IPV4_LEN + size_of::<IcmpHdr>();

/// The key of the flow's packets in the error's own direction: those that answer the quoted packet.
#[inline(always)]
pub(super) fn flow_key<P: Packet + ?Sized>(packet: &P, ip: &Ipv4, offset: usize) -> Option<FlowKey> {
    if ip.proto != PROTO_ICMP || !ip.is_plain() || ip.is_fragment() {
        return None;
    }
    let message: IcmpHdr = packet.copy(offset + IPV4_LEN)?;
    if !icmp::is_error(message.kind) {
        return None;
    }
    key_answering(packet, offset + QUOTED)
}

/// The key of what answers the packet quoted at `offset`.
#[inline(always)]
fn key_answering<P: Packet + ?Sized>(packet: &P, offset: usize) -> Option<FlowKey> {
    let quoted: Ipv4Ports = packet.copy(offset)?;
    let is_known = quoted.protocol == PROTO_TCP || quoted.protocol == PROTO_UDP;
    if !is_known || !quoted.has_ports() {
        return None;
    }
    Some(FlowKey::new(quoted.dst, quoted.src, quoted.dport, quoted.sport, quoted.protocol))
}

/// The living entry of a flow, confirmed or not.
#[inline(always)]
fn entry<'t, T: Flows>(key: &FlowKey, tables: &'t T) -> Option<&'t LiveFlow> {
    let now = tables.now();
    tables.migrate(key);
    let lives = |flow: &&LiveFlow| flow.lives(key.protocol, now);
    match tables.flow(key) {
        Some(flow) if lives(&flow) => Some(flow),
        _ => tables.unconfirmed(key).filter(lives),
    }
}

/// An error to a VIP: about an answer of the backend, which the client did not take.
#[inline(always)]
pub(super) fn to_vip<P: Packet + ?Sized, T: Flows>(
    packet: &P,
    ip: &Ipv4,
    offset: usize,
    tables: &T,
) -> Translation {
    cold_path();
    let Some(key) = flow_key(packet, ip, offset) else { return Translation::refused(Refusal::NoService) };
    match entry(&key, tables) {
        Some(flow) => Translation::rewritten(flow.rewrite()),
        None => Translation::refused(Refusal::NoService),
    }
}

/// An error to a client: about what it sent to its VIP, from the backend or somebody on the way there.
#[inline(always)]
pub(super) fn from_backend<P: Packet + ?Sized, T: Flows>(
    packet: &P,
    ip: &Ipv4,
    offset: usize,
    tables: &T,
) -> Tuple {
    cold_path();
    to_client(flow_key(packet, ip, offset), tables)
}

/// What answers the packet quoted at `offset`, which a client of this node sent to its VIP; [`Tuple::KEPT`] where it is of no flow.
#[inline(always)]
pub fn answering<P: Packet + ?Sized, T: Flows>(packet: &P, offset: usize, tables: &T) -> Tuple {
    cold_path();
    to_client(key_answering(packet, offset), tables)
}

#[inline(always)]
fn to_client<T: Flows>(key: Option<FlowKey>, tables: &T) -> Tuple {
    let Some(key) = key else { return Tuple::KEPT };
    if !tables.may_be_backend(key.src, key.sport, key.protocol) {
        return Tuple::KEPT;
    }
    match entry(&key, tables) {
        Some(flow) if flow.is_reply() => flow.rewrite(),
        _ => Tuple::KEPT,
    }
}
