//! The first packet of a flow: which backend, and under which port.

use super::{Fate, Refusal, Segment, Services, Tuple, flow};
use crate::abi::{BackendRecord, FlowKey, FlowRecord, ServiceWord, State, VipKey, mix};

/// Ports that a client's port may become where its own is taken: above the ephemeral ports of Linux.
const OTHER_PORTS: core::ops::Range<u32> = 61_000..65_536;
/// How many of them are tried.
const TRIES: u32 = 8;

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
    hidden: impl FnOnce(u32) -> bool,
    now: u32,
    tables: &T,
) -> Fate {
    let Some((service, word)) = service(key, tables) else { return Fate::refused(Refusal::NoService) };
    if word.flags & ServiceWord::EMPTY != 0 {
        return Fate::refused(Refusal::NoBackend);
    }
    let Some((row, backend)) = pick(word, key, tables) else { return Fate::refused(Refusal::NoBackend) };
    let hairpin = backend.address == key.src || hidden(backend.address);
    let forward = FlowRecord {
        address: backend.address,
        port: if backend.port == 0 { key.dport } else { backend.port },
        other_port: 0,
        backend: FlowRecord::backend_of(row, backend.generation),
        service: service as u16,
        state: State::New as u8,
        flags: if hairpin { FlowRecord::HAIRPIN } else { 0 },
        seen: now,
        number: 0,
        packets: 1,
        bytes: segment.len as u64,
    };
    enter(key, forward, now, tables)
}

/// The first packet straight to a backend: as it is, unless a flow of a service has its answers' key.
#[inline(always)]
pub(super) fn straight<T: Services>(segment: &Segment, key: &FlowKey, now: u32, tables: &T) -> Tuple {
    let own = FlowRecord {
        address: key.dst,
        port: key.dport,
        other_port: 0,
        backend: 0,
        service: FlowRecord::DIRECT,
        state: State::New as u8,
        flags: 0,
        seen: now,
        number: 0,
        packets: 1,
        bytes: segment.len as u64,
    };
    if is_free(&flow::reply_key(key, &own), &flow::reply_record(key, &own), now, tables) {
        return Tuple::KEPT;
    }
    enter(key, own, now, tables).rewrite
}

/// The service of the exact port, else of any port.
#[inline(always)]
fn service<T: Services>(key: &FlowKey, tables: &T) -> Option<(u32, ServiceWord)> {
    let exact = VipKey { address: key.dst, port: key.dport, protocol: key.protocol, pad: 0 };
    tables.service(&exact).or_else(|| tables.service(&VipKey { port: 0, ..exact }))
}

/// A backend of the service, by its ring.
#[inline(always)]
fn pick<'t, T: Services>(
    word: ServiceWord,
    key: &FlowKey,
    tables: &'t T,
) -> Option<(u32, &'t BackendRecord)> {
    let hash = if word.flags & ServiceWord::RANDOM != 0 { tables.random() } else { slot_hash(key) };
    let place = if word.log2_bits == 0 { 0 } else { tables.ring_slot(word, word.slot(hash))? };
    let row = word.base + place;
    let backend = tables.backend(row)?;
    if backend.flags & BackendRecord::GONE == 0 { Some((row, backend)) } else { None }
}

/// Enters both directions, the reply first: where its key is another flow's, the client gets another port.
#[inline(always)]
fn enter<T: Services>(key: &FlowKey, mut forward: FlowRecord, now: u32, tables: &T) -> Fate {
    let start = slot_hash(key);
    for attempt in 0..=TRIES {
        if attempt > 0 {
            let port = OTHER_PORTS.start
                + start.wrapping_add(attempt.wrapping_mul(613)) % (OTHER_PORTS.end - OTHER_PORTS.start);
            forward.other_port = (port as u16).to_be();
        }
        let reply_key = flow::reply_key(key, &forward);
        let reply = flow::reply_record(key, &forward);
        if is_free(&reply_key, &reply, now, tables) && tables.enter_young(&reply_key, &reply) {
            return if tables.enter_young(key, &forward) {
                tables.announce(key, &forward);
                Fate::rewritten(flow::forwarded(key, &forward))
            } else {
                Fate::refused(Refusal::Collision)
            };
        }
    }
    Fate::refused(Refusal::Collision)
}

/// Whether no other flow's packets come under this key. An entry that translates to the same is an earlier life of this
/// very flow.
#[inline(always)]
fn is_free<T: Services>(key: &FlowKey, reply: &FlowRecord, now: u32, tables: &T) -> bool {
    let others = |found: Option<&crate::abi::LiveFlow>| {
        found.is_some_and(|entry| {
            entry.lives(key.protocol, now)
                && (entry.address.get() != reply.address
                    || entry.port.get() != reply.port
                    || entry.number.get() != reply.number
                    || entry.other_port.get() != reply.other_port)
        })
    };
    !others(tables.flow(key)) && !others(tables.young(key))
}
