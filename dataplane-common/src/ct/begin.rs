//! The first packet of a flow: its backend, and the port under which that knows the client.

use super::{Draft, Flows, Place, Refusal, Segment, Source, Translation, Tuple, fragment};
use crate::{
    abi::{FLOW_LAYOUT, FlowKey, FlowRecord, LiveFlow, ServiceWord, State},
    codegen::{cold_path, unknown},
    lb,
    packet::Packet,
    wire::{Ipv4, PROTO_TCP},
};

/// How many other ports are tried where the client's own is taken, or shared with others.
const TRIES: u32 = 128;
/// The client gets another port from the start: other clients use its address, too.
const NEEDS_OTHER: u8 = FlowRecord::SHARED_SOURCE | FlowRecord::HOST_SOURCE;

/// Where a flow leads that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// To a backend of the service that it asks for.
    Service,
    /// The same, but another backend than the one of its slot.
    Other,
    /// Where it is addressed: straight to what may be a backend.
    Addressed,
}

/// Begins a flow with its first packet: chooses a backend, and enters both directions. [`Refusal::Collision`] where no port towards
/// that backend is free: it may be begun once more, towards [another](Towards::Other). A packet straight to a backend stays as it
/// is, unless a flow of a service has its answers' key.
#[inline(always)]
pub fn begin<P: Packet + ?Sized, T: Flows>(
    packet: &P,
    ip: &Ipv4,
    (offset, is_absent): (usize, bool),
    (place, towards): (&impl Place, Towards),
    tables: &T,
) -> Translation {
    let Some(segment) = Segment::read(packet, ip, offset) else {
        return Translation::refused(Refusal::NoService);
    };
    let key = segment.key(ip);
    let now = tables.now();
    let Some(draft) = tables.draft(Draft::Own) else { return Translation::refused(Refusal::Collision) };
    first_packet(draft, &segment, now);
    let is_direct = towards as u32 == Towards::Addressed as u32;
    if is_direct {
        draw_straight(draft, &key);
    } else {
        let is_another = towards as u32 == Towards::Other as u32;
        if let Some(refusal) = choose(draft, &segment, &key, (place, is_another), tables) {
            return Translation::refused(refusal);
        }
        if !is_absent {
            let reopened = reopen(draft, &key, now, tables);
            if !reopened.is_kept() {
                return Translation::rewritten(reopened);
            }
        }
    }
    let begun = enter(&key, draft, now, tables);
    // Rule 8 of `codegen`.
    if let Some(ip) = packet.read(offset).map(Ipv4::new)
        && ip.is_fragment()
    {
        cold_path();
        fragment::remember(&ip, &begun.rewrite, tables);
    }
    // Where no port is free it goes as it is, and its answers where they can.
    if is_direct && begun.rewrite.sport == key.sport { Translation::KEPT } else { begun }
}

/// Draws up a flow towards a backend of its service; why it cannot be served.
#[inline(always)]
fn choose<T: Flows>(
    draft: &LiveFlow,
    segment: &Segment,
    key: &FlowKey,
    (place, another): (&impl Place, bool),
    tables: &T,
) -> Option<Refusal> {
    if key.dport == 0 {
        return Some(Refusal::NoService);
    }
    let Some((service, word)) = lb::service(key, tables) else { return Some(Refusal::NoService) };
    if word.flags & ServiceWord::EMPTY != 0 {
        return Some(Refusal::NoBackend);
    }
    let Some((row, backend)) = lb::choose(word, key, another, tables) else {
        return Some(Refusal::NoBackend);
    };
    draft.service.set(service as u16);
    draft.dst.set(backend.address);
    draft.dport.set(if backend.port == 0 { key.dport } else { backend.port });
    draft.backend.set(FlowRecord::backend_of(row, backend.generation));
    let Source { address, flags } = place.source(key, backend);
    draft.src.set(address);
    draft.flags.set(flags);
    if key.protocol == PROTO_TCP && !segment.is_syn() && flags & NEEDS_OTHER != 0 {
        // It knew the client by a port that nobody knows any more, and may know another connection by any that is free here:
        // that would be told of segments which are not its own, and neither reset nor answer this one.
        return Some(Refusal::BackendGone);
    }
    None
}

/// Starts a connection that is over again in its former entries, where it leads the same way; else they are forgotten.
#[inline(always)]
fn reopen<T: Flows>(draft: &LiveFlow, key: &FlowKey, now: u32, tables: &T) -> Tuple {
    let Some(former) = tables.flow(key).filter(|flow| flow.lives(key.protocol, now)) else {
        return Tuple::KEPT;
    };
    cold_path();
    let tuple = former.rewrite();
    let reply_key = tuple.answered(key.protocol);
    tables.migrate(&reply_key);
    // Another flow may have taken the key once this one's answers had ceased.
    let reply = tables.flow(&reply_key).filter(|reply| reply.answers(key));
    if let Some(reply) = reply {
        if draft.is_same_way(former) && key.protocol == PROTO_TCP {
            former.reopen(1, draft.bytes.get(), now);
            // Rule 6 of `codegen`.
            let none = unknown(0);
            reply.reopen(none, none, now);
            tables.announce(key, former);
            return tuple;
        }
        let is_its = || tables.flow(&reply_key).is_some_and(|reply| reply.answers(key));
        tables.take_over(&reply_key, || {
            let is_its = is_its();
            if is_its {
                tables.forget(&reply_key);
            }
            is_its
        });
    }
    tables.forget(key);
    Tuple::KEPT
}

/// What the first packet of a flow says of it.
#[inline(always)]
fn first_packet(draft: &LiveFlow, segment: &Segment, now: u32) {
    draft.service.set(FlowRecord::DIRECT);
    draft.state.set(State::New as u8);
    draft.flags.set(0);
    draft.seen.set(now);
    draft.acknowledged.set(0);
    draft.sequence.set(0);
    draft.packets.set(1);
    draft.bytes.set(u64::from(segment.len));
    draft.layout.set(FLOW_LAYOUT);
}

/// Draws up a flow that stays as it is, but perhaps for its port.
#[inline(always)]
fn draw_straight(draft: &LiveFlow, key: &FlowKey) {
    draft.src.set(key.src);
    draft.dst.set(key.dst);
    draft.dport.set(key.dport);
    draft.backend.set(0);
}

/// Enters both directions, the reply first: where its key is another flow's, the client gets another port. So does every
/// client whose flow comes from an address that others use too.
#[inline(always)]
fn enter<T: Flows>(key: &FlowKey, draft: &LiveFlow, now: u32, tables: &T) -> Translation {
    if !find_port(key, draft, now, tables) || !tables.enter_unconfirmed(key, draft, true) {
        return Translation::refused(Refusal::Collision);
    }
    tables.announce(key, draft);
    Translation::rewritten(draft.rewrite())
}

/// Finds a port of the client's under which the backend's answers are no other flow's, and enters them. What is over gives way
/// once no port was found that is free.
#[inline(always)]
fn find_port<T: Flows>(key: &FlowKey, draft: &LiveFlow, now: u32, tables: &T) -> bool {
    let flags = draft.flags.get();
    let tries_own = flags & NEEDS_OTHER == 0;
    draft.sport.set(key.sport);
    tables.migrate(&draft.rewrite().answered(key.protocol));
    let Some(reply) = tables.draft(Draft::Other) else { return false };
    reply.become_other(key, draft);
    let falls_back = flags & FlowRecord::HOST_SOURCE != 0;
    let mut is_over = false;
    let has_to_be_taken = &mut is_over;
    // The client's own port first, unless others use its address too, and then 128 others; a second time what is over gives
    // way; and in the end the own port after all, where only this host's sockets could have it.
    let is_found = tables.any(2 * TRIES + 2, move |attempt| {
        let is_own = attempt == 0 && tries_own || attempt > 2 * TRIES && falls_back;
        if !is_own && (attempt == 0 || attempt > 2 * TRIES) {
            return false;
        }
        draft.sport.set(if is_own { key.sport } else { snat_port(key, attempt, tables) });
        match claim(key, (draft, reply), (attempt > TRIES, now), tables) {
            Claim::Refused => false,
            Claim::Entered => true,
            Claim::ToBeTaken => {
                *has_to_be_taken = true;
                true
            }
        }
    });
    if !is_found || is_over && !take_port(key, draft, reply, now, tables) {
        return false;
    }
    !is_taken_formerly(key, draft, now, tables)
}

/// Whether another flow has the key of the answers in a former table: these are not looked into for every port that is tried.
#[inline(always)]
fn is_taken_formerly<T: Flows>(key: &FlowKey, draft: &LiveFlow, now: u32, tables: &T) -> bool {
    let reply_key = draft.rewrite().answered(key.protocol);
    if !tables.migrate(&reply_key) {
        return false;
    }
    tables.flow(&reply_key).is_some_and(|found| !found.answers(key) && found.lives(key.protocol, now))
}

/// The port that a flow tries at this attempt.
#[inline(always)]
fn snat_port<T: Flows>(key: &FlowKey, attempt: u32, tables: &T) -> u16 {
    let (first, count) = tables.snat_ports();
    let offset = lb::slot_hash(key).wrapping_add(attempt.wrapping_mul(613)) % u32::from(count.max(1));
    first.wrapping_add(offset as u16).to_be()
}

/// What came of trying a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// It is another flow's.
    Refused,
    /// It is the flow's: its answers are entered.
    Entered,
    /// It is the flow's, once what is over is [taken over](take_port).
    ToBeTaken,
}

/// Enters the answers of a flow under their key, if that is no other flow's. Of two processors that claim one, one gets it.
#[inline(always)]
fn claim<T: Flows>(
    key: &FlowKey,
    (draft, reply): (&LiveFlow, &LiveFlow),
    (takes, now): (bool, u32),
    tables: &T,
) -> Claim {
    let reply_key = draft.rewrite().answered(key.protocol);
    let confirmed = tables.flow(&reply_key);
    if confirmed.is_none() && tables.enter_unconfirmed(&reply_key, reply, false) {
        return Claim::Entered;
    }
    cold_path();
    let begun = tables.unconfirmed(&reply_key);
    let may_be_had =
        |entry: Option<&LiveFlow>| entry.is_none_or(|entry| is_free(entry, (key, draft), (takes, now)));
    if may_be_had(confirmed) && may_be_had(begun) { Claim::ToBeTaken } else { Claim::Refused }
}

/// Enters the answers under a key that may be had, in place of what is over. Not in the loop over ports, whose body the verifier
/// walks several times, and a function of its own: few flows need it.
#[inline(never)]
fn take_port<T: Flows>(key: &FlowKey, draft: &LiveFlow, reply: &LiveFlow, now: u32, tables: &T) -> bool {
    let reply_key = draft.rewrite().answered(key.protocol);
    tables.take_over(&reply_key, || {
        // Another processor may have had it meanwhile.
        let may_be_had =
            |entry: Option<&LiveFlow>| entry.is_none_or(|entry| is_free(entry, (key, draft), (true, now)));
        if !may_be_had(tables.flow(&reply_key)) || !may_be_had(tables.unconfirmed(&reply_key)) {
            return false;
        }
        // What is left of it, the client's entry, finds its answers gone before it sends anything ([`SEEN_STEP`]).
        tables.forget(&reply_key);
        tables.enter_unconfirmed(&reply_key, reply, false)
    })
}

/// Whether an entry leaves its key to the answers of a flow, which has a draft: it is of an earlier life of that flow, or its time
/// is over, or it is over and the flow `takes` what is.
#[inline(always)]
fn is_free(entry: &LiveFlow, (key, draft): (&FlowKey, &LiveFlow), (takes, now): (bool, u32)) -> bool {
    entry.is_half(key, draft)
        || !entry.lives(key.protocol, now)
        || takes && entry.gives_way(key.protocol, now)
}
