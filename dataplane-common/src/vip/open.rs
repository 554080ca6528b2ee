//! What packets of services need that belong to no established flow, but to one that begins, ends, or is spoken about.

use super::{
    Place, Refusal, Services, Translation, choice, flow, fragment, quote,
    segment::{Segment, Tuple},
};
use crate::{
    abi::{FlowKey, FlowRecord, LiveFlow, State},
    decide::off_the_common_way,
    packet::Packet,
    wire::{Ipv4, PROTO_TCP},
};

/// What becomes of a packet to an address that may be a VIP; [`Refusal::Unknown`] where it begins a flow.
#[inline(always)]
pub fn to_vip<P: Packet + ?Sized, T: Services>(
    packet: &P,
    ip: &Ipv4,
    offset: usize,
    place: &impl Place,
    tables: &T,
) -> Translation {
    if ip.is_later_fragment() {
        return fragment::later_to_vip(ip, tables);
    }
    let found = match Segment::read(packet, ip, offset) {
        Some(segment) => whole(&segment, ip, place, tables),
        None => quote::to_vip(packet, ip, offset, place, tables),
    };
    if ip.is_fragment() {
        off_the_common_way();
        fragment::remember(ip, &found.rewrite, tables);
    }
    found
}

#[inline(always)]
fn whole<T: Services>(segment: &Segment, ip: &Ipv4, place: &impl Place, tables: &T) -> Translation {
    let key = segment.key(ip);
    let now = tables.now();
    tables.bring_over(&key);
    if let Some(flow) = tables.flow(&key)
        && flow.lives(key.protocol, now)
    {
        if flow.is_reply() {
            return Translation::rewritten(replied(segment, &key, flow, now, tables));
        }
        let known = tables.backend(flow.row()).is_some_and(|backend| flow.is_with(backend, key.protocol));
        let over = segment.is_syn() && (!known || flow.state.get() >= State::Closing as u8);
        if known && !over {
            let tuple = flow.forward(&key, place);
            if flow.state.get() == State::Answered as u8 && segment.acknowledges(flow) {
                off_the_common_way();
                flow.settle(tables.flow(&tuple.answered(key.protocol)), now);
            }
            flow.touch(segment, now);
            return Translation::rewritten(tuple);
        }
        off_the_common_way();
        if key.protocol == PROTO_TCP && !over {
            return Translation::refused(Refusal::BackendGone);
        }
        // A new life of the same addresses and ports, which may lead to another backend.
        return Translation::refused(Refusal::Unknown);
    }
    off_the_common_way();
    unconfirmed(segment, &key, place, now, tables)
}

/// A packet of a flow that is not confirmed yet, or of none.
#[inline(always)]
fn unconfirmed<T: Services>(
    segment: &Segment,
    key: &FlowKey,
    place: &impl Place,
    now: u32,
    tables: &T,
) -> Translation {
    if let Some(young) = tables.young(key)
        && young.lives(key.protocol, now)
    {
        if young.is_reply() {
            return Translation::rewritten(answered(segment, key, young, now, tables));
        }
        if tables.backend(young.row()).is_some_and(|backend| young.is_with(backend, key.protocol)) {
            let tuple = young.forward(key, place);
            if segment.acknowledges(young) {
                confirm(key, &tuple.answered(key.protocol), young, now, tables);
            }
            return Translation::rewritten(tuple);
        }
    }
    Translation::refused(Refusal::Unknown)
}

/// What the addresses of a packet from a backend become; [`Tuple::KEPT`] where it belongs to no flow of a service.
#[inline(always)]
pub fn from_backend<P: Packet + ?Sized, T: Services>(
    packet: &P,
    ip: &Ipv4,
    offset: usize,
    tables: &T,
) -> Tuple {
    if ip.is_later_fragment() {
        off_the_common_way();
        return tables.fragment(&fragment::key(ip));
    }
    let tuple = match Segment::read(packet, ip, offset) {
        Some(segment) => answer(&segment, ip, tables),
        None => quote::from_backend(packet, ip, offset, tables),
    };
    if ip.is_fragment() {
        off_the_common_way();
        fragment::remember(ip, &tuple, tables);
    }
    tuple
}

#[inline(always)]
fn answer<T: Services>(segment: &Segment, ip: &Ipv4, tables: &T) -> Tuple {
    let key = segment.key(ip);
    if !tables.may_be_backend(key.src, key.sport, key.protocol) {
        return Tuple::KEPT;
    }
    let now = tables.now();
    tables.bring_over(&key);
    if let Some(flow) = tables.flow(&key)
        && flow.lives(key.protocol, now)
        && flow.is_reply()
    {
        return replied(segment, &key, flow, now, tables);
    }
    off_the_common_way();
    match tables.young(&key) {
        Some(young) if young.lives(key.protocol, now) && young.is_reply() => {
            answered(segment, &key, young, now, tables)
        }
        _ => Tuple::KEPT,
    }
}

/// What the addresses of a packet straight to an address that may be a backend become: where the answers would be taken
/// for those of a flow of a service, it gets another port. [`Refusal::Unknown`] where it begins a flow.
#[inline(always)]
pub fn beside<P: Packet + ?Sized, T: Services>(
    packet: &P,
    ip: &Ipv4,
    offset: usize,
    tables: &T,
) -> Translation {
    if ip.is_fragment() {
        return Translation::KEPT;
    }
    let Some(segment) = Segment::read(packet, ip, offset) else { return Translation::KEPT };
    let key = segment.key(ip);
    if !tables.may_be_backend(key.dst, key.dport, key.protocol) {
        return Translation::KEPT;
    }
    let now = tables.now();
    tables.bring_over(&key);
    if let Some(flow) = tables.flow(&key)
        && flow.lives(key.protocol, now)
    {
        flow.touch(&segment, now);
        return Translation::rewritten(flow.forward(&key, &choice::Straight));
    }
    if let Some(young) = tables.young(&key)
        && young.lives(key.protocol, now)
    {
        let tuple = young.forward(&key, &choice::Straight);
        if segment.acknowledges(young) {
            confirm(&key, &tuple.answered(key.protocol), young, now, tables);
        }
        return Translation::rewritten(tuple);
    }
    if key.protocol == PROTO_TCP && !segment.is_syn() {
        return Translation::KEPT;
    }
    Translation::refused(Refusal::Unknown)
}

/// A backend's packet in a flow of table `flows`. While a reopened one is not confirmed, each is remembered with the forward
/// entry, which the client's acknowledgement meets: the first may be a late one of the former life.
#[inline(always)]
fn replied<T: Services>(segment: &Segment, key: &FlowKey, reply: &LiveFlow, now: u32, tables: &T) -> Tuple {
    let tuple = reply.reply(key);
    if reply.state.get() == State::New as u8 && !segment.is_reset() {
        off_the_common_way();
        if let Some(forward) = tables.flow(&tuple.answered(key.protocol)) {
            forward.note_answer(segment);
        }
    }
    reply.touch(segment, now);
    tuple
}

/// The backend's answer in a young flow: remembered with the forward entry, which the client's acknowledgement meets.
/// UDP needs no more.
#[inline(always)]
fn answered<T: Services>(segment: &Segment, key: &FlowKey, reply: &LiveFlow, now: u32, tables: &T) -> Tuple {
    let tuple = reply.reply(key);
    let forward_key = tuple.answered(key.protocol);
    if let Some(forward) = tables.young(&forward_key)
        && !segment.is_reset()
    {
        if key.protocol == PROTO_TCP {
            forward.note_answer(segment);
        } else {
            confirm(&forward_key, key, forward, now, tables);
        }
    }
    tuple
}

/// Moves a young flow to those that nothing but time and other such flows can evict: the reply first, so that there is
/// never a flow whose answers are not known. The young entries are left to age.
#[inline(always)]
fn confirm<T: Services>(key: &FlowKey, reply_key: &FlowKey, young: &LiveFlow, now: u32, tables: &T) {
    let number = young.number.get().wrapping_add(1);
    let forward = FlowRecord { state: State::Established as u8, seen: now, number, ..young.record() };
    if tables.enter_flow(reply_key, &flow::reply_record(key, &forward)) {
        tables.enter_flow(key, &forward);
    }
}
