//! The first packet of a flow: which backend, and under which port.

use super::{Place, Refusal, Segment, Services, Translation, Tuple, flow, fragment};
use crate::{
    abi::{BackendRecord, FLOW_LAYOUT, FlowKey, FlowRecord, LiveFlow, ServiceWord, State, VipKey, mix},
    decide::off_the_common_way,
    icmp,
    packet::Packet,
    wire::{Ipv4, PROTO_TCP},
};

/// How many other ports are tried where the client's own is taken, or shared with others.
const TRIES: u32 = 128;
/// How many slots are looked into for another backend. Of two with weights of 1 and 10 the second is missed once in 450 times.
const SLOTS: u32 = 64;

/// A connection beside those of services: its packets keep their source.
pub(super) struct Straight;

impl Place for Straight {
    #[inline(always)]
    fn source(&self, _: u32, _: &BackendRecord) -> u8 {
        0
    }

    #[inline(always)]
    fn address(&self, _: u8, _: u32) -> u32 {
        0
    }
}

/// The hash that picks a ring's slot: the same on every node, so that a flow finds its backend without its entry.
#[inline(always)]
pub const fn slot_hash(key: &FlowKey) -> u32 {
    const SEED: u32 = 0x9e37_79b9;
    let ports = (u16::from_be(key.sport) as u32) << 16 | u16::from_be(key.dport) as u32;
    let hash = mix(u32::from_be(key.src) ^ SEED);
    let hash = mix(hash.wrapping_add(u32::from_be(key.dst)));
    mix(hash.wrapping_add(ports) ^ key.protocol as u32)
}

/// Begins a flow with its first packet to a VIP: chooses a backend and enters both directions. [`Refusal::Collision`] where no
/// port towards that backend is free: it may be begun once more, with `another`.
#[inline(always)]
pub fn begin<P: Packet + ?Sized, T: Services>(
    packet: &P,
    ip: &Ipv4,
    offset: usize,
    (place, another): (&impl Place, bool),
    tables: &T,
) -> Translation {
    let Some(segment) = Segment::read(packet, ip, offset) else {
        return Translation::refused(Refusal::NoService);
    };
    let begun = choose(&segment, &segment.key(ip), (place, another), tables.now(), tables);
    if ip.is_fragment() {
        off_the_common_way();
        fragment::remember(ip, &begun.rewrite, tables);
    }
    begun
}

/// Begins a flow with its first packet straight to a backend: as it is, unless a flow of a service has its answers' key.
#[inline(always)]
pub fn begin_beside<P: Packet + ?Sized, T: Services>(
    packet: &P,
    ip: &Ipv4,
    offset: usize,
    tables: &T,
) -> Tuple {
    match Segment::read(packet, ip, offset) {
        Some(segment) => straight(&segment, &segment.key(ip), tables.now(), tables),
        None => Tuple::KEPT,
    }
}

#[inline(always)]
fn choose<T: Services>(
    segment: &Segment,
    key: &FlowKey,
    (place, another): (&impl Place, bool),
    now: u32,
    tables: &T,
) -> Translation {
    if key.dport == 0 {
        return Translation::refused(Refusal::NoService);
    }
    let Some((service, word)) = service(key, tables) else { return Translation::refused(Refusal::NoService) };
    if !icmp::names_a_host(u32::from_be(key.src)) {
        return Translation::refused(Refusal::BadSource);
    }
    if word.flags & ServiceWord::EMPTY != 0 {
        return Translation::refused(Refusal::NoBackend);
    }
    let hash = if word.flags & ServiceWord::RANDOM != 0 { tables.random() } else { slot_hash(key) };
    let picked = if another { pick_other(word, hash, tables) } else { pick(word, hash, tables) };
    let Some((row, backend)) = picked else { return Translation::refused(Refusal::NoBackend) };
    let mut forward = FlowRecord { service: service as u16, ..first_packet(segment, now) };
    lead(&mut forward, key, row, backend, place);
    if let Some(former) = tables.flow(key).filter(|flow| flow.lives(key.protocol, now)) {
        let record = former.record();
        let source = flow::source(key, &record, place);
        let reply_key = flow::reply_key(key, &record, source);
        tables.bring_over(&reply_key);
        // Another flow may have taken the key once this one's answers had ceased.
        let reply = tables.flow(&reply_key);
        if let Some(reply) = reply.filter(|reply| reply.is_same_as(&flow::reply_record(key, &record))) {
            if is_same_way(&forward, &record) && key.protocol == PROTO_TCP {
                former.reopen(1, forward.bytes, now);
                reply.reopen(0, 0, now);
                tables.announce(key, &forward);
                return Translation::rewritten(flow::forwarded(key, &record, source));
            }
            tables.forget(&reply_key);
        }
        tables.forget(key);
    }
    enter(key, forward, place, now, tables)
}

/// Has a flow lead to a backend, under the client's own port.
#[inline(always)]
fn lead(forward: &mut FlowRecord, key: &FlowKey, row: u32, backend: &BackendRecord, place: &impl Place) {
    forward.address = backend.address;
    forward.port = if backend.port == 0 { key.dport } else { backend.port };
    forward.other_port = 0;
    forward.backend = FlowRecord::backend_of(row, backend.generation);
    forward.flags = place.source(key.src, backend);
}

/// Whether a connection that was over may start again in its former entries, because the new one leads to the same backend. A
/// client that comes back to its ports time and again takes no room for it, and the tables no time.
#[inline(always)]
fn is_same_way(forward: &FlowRecord, former: &FlowRecord) -> bool {
    let differs = former.backend ^ forward.backend
        | u32::from(former.service ^ forward.service)
        | u32::from(former.flags ^ forward.flags);
    differs == 0
}

/// What the first packet of a flow says of it.
#[inline(always)]
fn first_packet(segment: &Segment, now: u32) -> FlowRecord {
    FlowRecord {
        address: 0,
        port: 0,
        other_port: 0,
        backend: 0,
        service: FlowRecord::DIRECT,
        state: State::New as u8,
        flags: 0,
        seen: now,
        number: 0,
        packets: 1,
        bytes: segment.len as u64,
        layout: FLOW_LAYOUT,
        spare: 0,
    }
}

#[inline(always)]
fn straight<T: Services>(segment: &Segment, key: &FlowKey, now: u32, tables: &T) -> Tuple {
    let own = FlowRecord { address: key.dst, port: key.dport, ..first_packet(segment, now) };
    let reply_key = flow::reply_key(key, &own, key.src);
    tables.bring_over(&reply_key);
    if is_free(&reply_key, &flow::reply_record(key, &own), now, tables) {
        return Tuple::KEPT;
    }
    enter(key, own, &Straight, now, tables).rewrite
}

/// The service of the exact port, else of any port.
#[inline(always)]
fn service<T: Services>(key: &FlowKey, tables: &T) -> Option<(u32, ServiceWord)> {
    let exact = VipKey { address: key.dst, port: key.dport, protocol: key.protocol, pad: 0 };
    tables.service(&exact).or_else(|| tables.service(&VipKey { port: 0, ..exact }))
}

/// A backend of the service, by its ring.
#[inline(always)]
fn pick<T: Services>(word: ServiceWord, hash: u32, tables: &T) -> Option<(u32, &BackendRecord)> {
    let place = if word.log2_bits == 0 { 0 } else { tables.ring_slot(word, word.slot(hash))? };
    let row = word.base + place;
    let backend = tables.backend(row)?;
    if backend.flags & BackendRecord::GONE == 0 { Some((row, backend)) } else { None }
}

/// Enters both directions, the reply first: where its key is another flow's, the client gets another port. So does every
/// client whose flow comes from an address that others use too.
#[inline(always)]
fn enter<T: Services>(
    key: &FlowKey,
    mut forward: FlowRecord,
    place: &impl Place,
    now: u32,
    tables: &T,
) -> Translation {
    let source = flow::source(key, &forward, place);
    if find_port(key, &mut forward, source, now, tables) && record(key, &forward, source, tables) {
        Translation::rewritten(flow::forwarded(key, &forward, source))
    } else {
        Translation::refused(Refusal::Collision)
    }
}

/// Another backend than the one that the hash picks; that one where there seems to be no other.
#[inline(always)]
fn pick_other<T: Services>(word: ServiceWord, hash: u32, tables: &T) -> Option<(u32, &BackendRecord)> {
    let (row, _) = pick(word, hash, tables)?;
    let mut other = row;
    let found = &mut other;
    tables.any(SLOTS, move |attempt| {
        if let Some((row_there, _)) = pick(word, mix(hash.wrapping_add(attempt)), tables) {
            *found = row_there;
        }
        *found != row
    });
    Some((other, tables.backend(other)?))
}

/// Finds a port of the client's under which the backend's answers are no other flow's.
#[inline(always)]
fn find_port<T: Services>(
    key: &FlowKey,
    forward: &mut FlowRecord,
    source: u32,
    now: u32,
    tables: &T,
) -> bool {
    tables.bring_over(&flow::reply_key(key, forward, source));
    let is_shared = forward.flags & (FlowRecord::FROM_GATEWAY | FlowRecord::FROM_UPLINK) != 0;
    if !is_shared && has_free_answers(key, forward, source, now, tables) {
        return true;
    }
    // By value, what can be: a reference takes as much of the programs' stack again.
    let tried = &mut *forward;
    let found = tables.any(TRIES, move |attempt| {
        tried.other_port = other_port(key, attempt, tables);
        has_free_answers(key, tried, source, now, tables)
    });
    // Former tables are not looked into for every port that is tried.
    if tables.bring_over(&flow::reply_key(key, forward, source)) {
        return has_free_answers(key, forward, source, now, tables);
    }
    found
}

/// The port that a flow tries at this attempt.
#[inline(always)]
fn other_port<T: Services>(key: &FlowKey, attempt: u32, tables: &T) -> u16 {
    let (first, count) = tables.other_ports();
    let offset = slot_hash(key).wrapping_add(attempt.wrapping_mul(613)) % u32::from(count.max(1));
    first.wrapping_add(offset as u16).to_be()
}

/// Whether the answers of a flow come under a key of their own.
#[inline(always)]
fn has_free_answers<T: Services>(
    key: &FlowKey,
    forward: &FlowRecord,
    source: u32,
    now: u32,
    tables: &T,
) -> bool {
    is_free(&flow::reply_key(key, forward, source), &flow::reply_record(key, forward), now, tables)
}

/// Enters both directions of a flow whose reply key is free.
#[inline(always)]
fn record<T: Services>(key: &FlowKey, forward: &FlowRecord, source: u32, tables: &T) -> bool {
    let reply_key = flow::reply_key(key, forward, source);
    let entered =
        tables.enter_young(&reply_key, &flow::reply_record(key, forward)) && tables.enter_young(key, forward);
    if entered {
        tables.announce(key, forward);
    }
    entered
}

/// Whether no other flow's packets come under this key. An entry that translates to the same is an earlier life of this
/// very flow.
#[inline(always)]
fn is_free<T: Services>(key: &FlowKey, reply: &FlowRecord, now: u32, tables: &T) -> bool {
    let others = |found: Option<&LiveFlow>| {
        found.is_some_and(|entry| !entry.is_same_as(reply) && entry.lives(key.protocol, now))
    };
    !others(tables.flow(key)) && !others(tables.young(key))
}
