//! The first packet of a flow: which backend, and under which port.

use super::{Fate, Place, Refusal, Segment, Services, Tuple, flow};
use crate::{
    abi::{BackendRecord, FLOW_LAYOUT, FlowKey, FlowRecord, LiveFlow, ServiceWord, State, VipKey, mix},
    icmp,
    wire::PROTO_TCP,
};

/// How many other ports are tried where the client's own is taken, or shared with others.
const TRIES: u32 = 128;
/// How often all that is tried: then with another backend, if there is one, else in case a former table had the port.
const ROUNDS: u32 = 2;
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

/// Chooses a backend and enters both directions.
#[inline(always)]
pub(super) fn choose<T: Services>(
    segment: &Segment,
    key: &FlowKey,
    former: Option<&LiveFlow>,
    place: &impl Place,
    now: u32,
    tables: &T,
) -> Fate {
    if key.dport == 0 {
        return Fate::refused(Refusal::NoService);
    }
    let Some((service, word)) = service(key, tables) else { return Fate::refused(Refusal::NoService) };
    if !icmp::names_a_host(u32::from_be(key.src)) {
        return Fate::refused(Refusal::BadSource);
    }
    if word.flags & ServiceWord::EMPTY != 0 {
        return Fate::refused(Refusal::NoBackend);
    }
    let hash = if word.flags & ServiceWord::RANDOM != 0 { tables.random() } else { slot_hash(key) };
    let Some((row, backend)) = pick(word, hash, tables) else { return Fate::refused(Refusal::NoBackend) };
    let mut forward = FlowRecord { service: service as u16, ..first_packet(segment, now) };
    lead(&mut forward, key, row, backend, place);
    if let Some(former) = former {
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
                return Fate::rewritten(flow::forwarded(key, &record, source));
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

/// The first packet straight to a backend: as it is, unless a flow of a service has its answers' key.
#[inline(always)]
pub(super) fn straight<T: Services>(segment: &Segment, key: &FlowKey, now: u32, tables: &T) -> Tuple {
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
/// client whose flow comes from an address that others use too. Where none of the ports that are tried is free, the flow goes
/// to another backend of the service.
#[inline(always)]
fn enter<T: Services>(
    key: &FlowKey,
    mut forward: FlowRecord,
    place: &impl Place,
    now: u32,
    tables: &T,
) -> Fate {
    let mut source = flow::source(key, &forward, place);
    let mut found = false;
    for round in 0..ROUNDS {
        if found {
            break;
        }
        if round > 0
            && let Some((row, backend)) = pick_other(key, FlowRecord::row_of(forward.backend), tables)
        {
            lead(&mut forward, key, row, backend, place);
            source = flow::source(key, &forward, place);
        }
        found = find_port(key, &mut forward, source, now, tables);
    }
    if found && record(key, &forward, source, tables) {
        Fate::rewritten(flow::forwarded(key, &forward, source))
    } else {
        Fate::refused(Refusal::Collision)
    }
}

/// Another backend of the flow's service than the one in a row. The service is looked up once more: what is kept meanwhile takes
/// room on the programs' stack.
#[inline(always)]
fn pick_other<'t, T: Services>(key: &FlowKey, row: u32, tables: &'t T) -> Option<(u32, &'t BackendRecord)> {
    let (_, word) = service(key, tables)?;
    let hash = slot_hash(key);
    let mut other = row;
    let found = &mut other;
    tables.any(SLOTS, move |attempt| {
        if let Some((row_there, _)) = pick(word, mix(hash.wrapping_add(attempt)), tables) {
            *found = row_there;
        }
        *found != row
    });
    if other == row { None } else { Some((other, tables.backend(other)?)) }
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
