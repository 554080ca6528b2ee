//! Packets that may not skip the stack, because the host's connection tracking has to see them: past it nobody would translate the
//! answers of a flow back whose first packet it has translated (published ports, virtual addresses of others).
//!
//! What connection tracking translates it alone knows: a rule of ours marks such packets behind it, and the programs that see
//! them leave remember what their answers will be.

use super::{Context, Tables, fan_of, ipv4_frame, pass};
use crate::{
    abi::{Config, FlowKey},
    codegen::cold_path,
    ct::{self, Segment},
    outcome::Outcome,
    packet::Packet,
    verdict::Verdict,
    wire::{ETH_LEN, Ipv4},
};

/// `endpoint-egress`: a packet that the host's stack sends to an endpoint.
#[inline(always)]
pub(super) fn endpoint_egress<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    context: &impl Context,
    tables: &T,
) -> Verdict {
    if !context.is_translated() {
        return pass(Outcome::PassNotOurs);
    }
    let Some(ip) = ipv4_frame(packet, context) else { return pass(Outcome::PassNotOurs) };
    let Some(config) = tables.config() else { return pass(Outcome::PassNotOurs) };
    if !skips_the_stack(config, ip.src, tables) {
        return pass(Outcome::PassNotOurs);
    }
    note(packet, &ip, tables);
    pass(Outcome::PassTranslated)
}

/// Whether programs bring an endpoint's packets to an address past the stack: where it lies in an overlay, or is a VIP.
#[inline(always)]
fn skips_the_stack<T: Tables>(config: &Config, address: u32, tables: &T) -> bool {
    match fan_of(config, address) {
        Some(fan) => address != fan.gateway,
        None => config.services != 0 && tables.may_be_vip(address.to_be()),
    }
}

/// Remembers what answers a packet that connection tracking has translated.
#[inline(always)]
pub(super) fn note<P: Packet + ?Sized, T: Tables>(packet: &P, ip: &Ipv4, tables: &T) {
    let (src, dst, protocol) = (ip.dst.to_be(), ip.src.to_be(), ip.proto);
    if !ip.is_later_fragment()
        && let Some(segment) = Segment::read(packet, ip, ETH_LEN)
    {
        remember(&FlowKey::new(src, dst, segment.dport, segment.sport, protocol), tables);
    }
    remember(&FlowKey::new(src, dst, 0, 0, protocol), tables);
}

#[inline(always)]
fn remember<T: Tables>(key: &FlowKey, tables: &T) {
    if !tables.is_translated(key) {
        tables.note_translated(key);
    }
}

/// Whether a packet answers a flow that connection tracking translates. Fragments do where any flow between both addresses does:
/// all of them have to go one way.
#[inline(always)]
pub(super) fn is_answer<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    ip: &Ipv4,
    offset: usize,
    (tables, config): (&T, &Config),
) -> bool {
    if config.detours & Config::TRANSLATED == 0 {
        return false;
    }
    cold_path();
    let key = match ct::flow_key(packet, ip, offset) {
        Some(key) if !ip.is_fragment() => key,
        _ => FlowKey::new(ip.src.to_be(), ip.dst.to_be(), 0, 0, ip.proto),
    };
    is_known(&key, tables)
}

#[inline(always)]
fn is_known<T: Tables>(key: &FlowKey, tables: &T) -> bool {
    tables.may_be_translated(key.src, key.sport, key.protocol) && tables.is_translated(key)
}
