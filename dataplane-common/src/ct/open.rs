//! What packets of services need that belong to no established flow, but to one that begins, ends, or is spoken about.

use super::{
    Draft, Flows, Refusal, Translation, fragment, quote,
    segment::{Segment, Tuple},
};
use crate::{
    abi::{FlowKey, LiveFlow, State},
    codegen::cold_path,
    packet::Packet,
    wire::{Ipv4, PROTO_TCP},
};

/// What becomes of a packet to an address that may be a VIP; [`Refusal::Unknown`] where it begins a flow.
#[inline(always)]
pub fn to_vip<P: Packet + ?Sized, T: Flows>(
    packet: &P,
    ip: &Ipv4,
    (offset, is_absent): (usize, bool),
    tables: &T,
) -> Translation {
    if ip.is_later_fragment() {
        return fragment::later_to_vip(ip, tables);
    }
    let found = match Segment::read(packet, ip, offset) {
        Some(segment) => whole(&segment, ip, is_absent, tables),
        None => quote::to_vip(packet, ip, offset, tables),
    };
    if ip.is_fragment() {
        cold_path();
        fragment::remember(ip, &found.rewrite, tables);
    }
    found
}

#[inline(always)]
fn whole<T: Flows>(segment: &Segment, ip: &Ipv4, is_absent: bool, tables: &T) -> Translation {
    let key = segment.key(ip);
    let now = tables.now();
    let Some(flow) = confirmed(&key, is_absent, tables).filter(|flow| flow.lives(key.protocol, now)) else {
        cold_path();
        return unconfirmed(segment, &key, now, tables);
    };
    if flow.is_reply() {
        return Translation::rewritten(replied(segment, &key, flow, now, tables));
    }
    let is_known =
        tables.backend(flow.row()).is_some_and(|backend| flow.stays_with(backend, segment, key.protocol));
    let is_over = segment.is_syn() && (!is_known || flow.state.get() >= State::Closing as u8);
    let tuple = flow.rewrite();
    if is_known && !is_over && continued(segment, &key, flow, &tuple, now, tables) {
        return Translation::rewritten(tuple);
    }
    if key.protocol == PROTO_TCP && !is_over {
        return Translation::refused(Refusal::BackendGone);
    }
    // A new life of the same addresses and ports, which may lead to another backend.
    Translation::refused(Refusal::Unknown)
}

/// The confirmed flow of a key, unless it `is_absent` ([`Case::is_absent`](crate::verdict::Case::is_absent)).
#[inline(always)]
fn confirmed<'t, T: Flows>(key: &FlowKey, is_absent: bool, tables: &'t T) -> Option<&'t LiveFlow> {
    if is_absent {
        return None;
    }
    tables.migrate(key);
    tables.flow(key)
}

/// Whether a packet belongs to a flow that is not confirmed.
#[inline(always)]
pub fn is_begun<P: Packet + ?Sized, T: Flows>(packet: &P, ip: &Ipv4, offset: usize, tables: &T) -> bool {
    let Some(segment) = Segment::read(packet, ip, offset) else { return false };
    let key = segment.key(ip);
    tables.unconfirmed(&key).is_some_and(|unconfirmed| unconfirmed.lives(key.protocol, tables.now()))
}

/// Goes on with a client's flow by its next packet; not when the key of its answers has become another flow's.
#[inline(always)]
fn continued<T: Flows>(
    segment: &Segment,
    key: &FlowKey,
    flow: &LiveFlow,
    tuple: &Tuple,
    now: u32,
    tables: &T,
) -> bool {
    let reply_key = tuple.answered(key.protocol);
    if flow.state.get() < State::Established as u8 {
        cold_path();
        if segment.acknowledges(flow) {
            flow.settle(tables.flow(&reply_key), segment, now);
        }
        flow.count(segment);
        return true;
    }
    flow.count(segment);
    other_half(&reply_key, (key, flow), now, tables)
        .inspect(|reply| flow.follow(segment, reply, now))
        .is_some()
}

/// The entry under a key of the other direction of a confirmed flow, of which one is known with its own key; it is entered anew
/// where it is gone. `None` where another flow has its key.
#[inline(always)]
fn other_half<'t, T: Flows>(
    key: &FlowKey,
    (own_key, own): (&FlowKey, &LiveFlow),
    now: u32,
    tables: &'t T,
) -> Option<&'t LiveFlow> {
    tables.migrate(key);
    if let Some(found) = tables.flow(key) {
        let is_it = found.is_half(own_key, own);
        if is_it || found.lives(key.protocol, now) {
            return if is_it { Some(found) } else { None };
        }
    }
    cold_path();
    // A flow that begins may have claimed it.
    let is_claimed = tables
        .unconfirmed(key)
        .is_some_and(|found| !found.is_half(own_key, own) && found.lives(key.protocol, now));
    if is_claimed {
        return None;
    }
    let draft = tables.draft(Draft::Other)?;
    draft.become_other(own_key, own);
    draft.seen.set(now);
    tables.enter_flow(key, draft, true);
    tables.flow(key)
}

/// A packet of a flow that is not confirmed yet, or of none.
#[inline(always)]
fn unconfirmed<T: Flows>(segment: &Segment, key: &FlowKey, now: u32, tables: &T) -> Translation {
    if let Some(unconfirmed) = tables.unconfirmed(key)
        && unconfirmed.lives(key.protocol, now)
    {
        if unconfirmed.is_reply() {
            return Translation::rewritten(answered(segment, key, unconfirmed, now, tables));
        }
        let is_known = tables
            .backend(unconfirmed.row())
            .is_some_and(|backend| unconfirmed.stays_with(backend, segment, key.protocol));
        let tuple = unconfirmed.rewrite();
        if is_known && spoken(segment, key, &tuple, unconfirmed, now, tables) {
            return Translation::rewritten(tuple);
        }
    }
    Translation::refused(Refusal::Unknown)
}

/// The client's next packet in an unconfirmed flow: it may confirm it. Datagrams that nobody answers keep their flow. False
/// where the flow's answers are not known any more: it begins anew.
#[inline(always)]
fn spoken<T: Flows>(
    segment: &Segment,
    key: &FlowKey,
    tuple: &Tuple,
    unconfirmed: &LiveFlow,
    now: u32,
    tables: &T,
) -> bool {
    let reply_key = tuple.answered(key.protocol);
    let Some(reply) = tables.unconfirmed(&reply_key).filter(|reply| reply.answers(key)) else {
        return false;
    };
    if key.protocol == PROTO_TCP {
        if segment.acknowledges(unconfirmed) {
            confirm(key, &reply_key, unconfirmed, (segment.sequence(), 0, now), tables);
        }
        return true;
    }
    unconfirmed.count(segment);
    unconfirmed.seen.set(now);
    reply.seen.set(now);
    true
}

/// What the addresses of a packet from a backend become; [`Tuple::KEPT`] where it belongs to no flow of a service.
#[inline(always)]
pub fn from_backend<P: Packet + ?Sized, T: Flows>(
    packet: &P,
    ip: &Ipv4,
    (offset, is_absent): (usize, bool),
    tables: &T,
) -> Tuple {
    if ip.is_later_fragment() {
        cold_path();
        return tables.fragment(&fragment::key(ip));
    }
    let tuple = match Segment::read(packet, ip, offset) {
        Some(segment) => answer(&segment, ip, is_absent, tables),
        None => quote::from_backend(packet, ip, offset, tables),
    };
    if ip.is_fragment() {
        cold_path();
        fragment::remember(ip, &tuple, tables);
    }
    tuple
}

#[inline(always)]
fn answer<T: Flows>(segment: &Segment, ip: &Ipv4, is_absent: bool, tables: &T) -> Tuple {
    let key = segment.key(ip);
    if !tables.may_be_backend(key.src, key.sport, key.protocol) {
        return Tuple::KEPT;
    }
    let now = tables.now();
    if let Some(flow) = confirmed(&key, is_absent, tables)
        && flow.lives(key.protocol, now)
        && flow.is_reply()
    {
        return replied(segment, &key, flow, now, tables);
    }
    cold_path();
    match tables.unconfirmed(&key) {
        Some(unconfirmed) if unconfirmed.lives(key.protocol, now) && unconfirmed.is_reply() => {
            answered(segment, &key, unconfirmed, now, tables)
        }
        _ => Tuple::KEPT,
    }
}

/// What the addresses of a packet straight to an address that may be a backend become: where the answers would be taken
/// for those of a flow of a service, it gets another port. [`Refusal::Unknown`] where it begins a flow.
#[inline(always)]
pub fn direct<P: Packet + ?Sized, T: Flows>(packet: &P, ip: &Ipv4, offset: usize, tables: &T) -> Translation {
    if ip.is_fragment() {
        return Translation::KEPT;
    }
    let Some(segment) = Segment::read(packet, ip, offset) else { return Translation::KEPT };
    let key = segment.key(ip);
    if !tables.may_be_backend(key.dst, key.dport, key.protocol) {
        return Translation::KEPT;
    }
    let now = tables.now();
    tables.migrate(&key);
    if let Some(flow) = tables.flow(&key)
        && flow.lives(key.protocol, now)
        && !(segment.is_syn() && flow.state.get() >= State::Closing as u8)
    {
        let rewrite = flow.rewrite_of(&key);
        if continued(&segment, &key, flow, &flow.rewrite(), now, tables) {
            return Translation { rewrite, refusal: None };
        }
    } else if let Some(unconfirmed) = tables.unconfirmed(&key)
        && unconfirmed.lives(key.protocol, now)
    {
        let rewrite = unconfirmed.rewrite_of(&key);
        if spoken(&segment, &key, &unconfirmed.rewrite(), unconfirmed, now, tables) {
            return Translation { rewrite, refusal: None };
        }
    }
    if key.protocol == PROTO_TCP && !segment.is_syn() {
        return Translation::KEPT;
    }
    Translation::refused(Refusal::Unknown)
}

/// A backend's packet in a flow of table `flows`. While a reopened one is not confirmed, each is remembered with the forward
/// entry, which the client's acknowledgement meets: the first may be a late one of the former life.
#[inline(always)]
fn replied<T: Flows>(segment: &Segment, key: &FlowKey, reply: &LiveFlow, now: u32, tables: &T) -> Tuple {
    let forward_key = reply.rewrite().answered(key.protocol);
    reply.count(segment);
    if reply.state.get() < State::Established as u8 {
        cold_path();
        if let Some(forward) = tables.flow(&forward_key)
            && !segment.is_reset()
        {
            forward.note_answer(segment);
        }
    } else if let Some(forward) = other_half(&forward_key, (key, reply), now, tables) {
        reply.follow(segment, forward, now);
    }
    reply.rewrite_of(key)
}

/// The backend's answer in an unconfirmed flow: remembered with the forward entry, which the client's acknowledgement meets.
/// UDP needs no more.
#[inline(always)]
fn answered<T: Flows>(segment: &Segment, key: &FlowKey, reply: &LiveFlow, now: u32, tables: &T) -> Tuple {
    let forward_key = reply.rewrite().answered(key.protocol);
    if let Some(forward) = tables.unconfirmed(&forward_key)
        && !segment.is_reset()
    {
        if key.protocol == PROTO_TCP {
            forward.note_answer(segment);
        } else {
            confirm(&forward_key, key, forward, (0, segment.len, now), tables);
        }
    }
    reply.rewrite_of(key)
}

/// Moves an unconfirmed flow to those that nothing but time and other such flows can evict, where the key of its answers is no
/// other flow's. The unconfirmed entries are left to age: the answers are known all the while. The reply last, because of two
/// entries the kernel evicts the older first: without the client's the flow goes on with either side's next packet, while an
/// answer without its own would reach the client as the backend's, and silence whoever only listens. `sequence` is what the
/// backend has acknowledged, `answered` the bytes of its answer where that is what confirms.
#[inline(always)]
fn confirm<T: Flows>(
    key: &FlowKey,
    reply_key: &FlowKey,
    unconfirmed: &LiveFlow,
    (sequence, answered, now): (u32, u32, u32),
    tables: &T,
) {
    let found = tables.flow(reply_key);
    if found.is_some_and(|found| !found.is_half(key, unconfirmed) && found.lives(key.protocol, now)) {
        cold_path();
        return;
    }
    let (Some(own), Some(other)) = (tables.draft(Draft::Own), tables.draft(Draft::Other)) else { return };
    own.take(unconfirmed);
    own.state.set(State::Established as u8);
    own.seen.set(now);
    other.become_other(key, own);
    own.acknowledged.set(unconfirmed.sequence.get().wrapping_add(1));
    other.acknowledged.set(sequence);
    if answered != 0 {
        other.packets.set(1);
        other.bytes.set(u64::from(answered));
    }
    tables.enter_flow(key, own, true);
    tables.enter_flow(reply_key, other, true);
}
