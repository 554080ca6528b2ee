//! Packets to VIPs and from their backends: which flow one belongs to, and what its addresses become.
//!
//! A flow is chosen at its first packet and kept in two entries, one a direction. It waits in table `young` until the
//! backend has answered and, for TCP, the client has acknowledged that; only then it moves to table `flows`, so that
//! packets from forged sources can fill nothing but `young`.

use crate::{
    abi::{BackendRecord, FlowKey, FlowRecord, FragmentKey, LiveFlow, ServiceWord, State, VipKey},
    decide::off_the_common_way,
    packet::Packet,
    wire::{Ipv4, PROTO_TCP},
};

mod choice;
mod flow;
mod fragment;
mod quote;
mod segment;

pub use choice::slot_hash;
pub use segment::{Segment, Tuple};

/// The tables of services and flows.
pub trait Services {
    /// Whether there may be a service on an address; wrong answers are only "yes".
    fn may_be_vip(&self, address: u32) -> bool;
    /// Whether there is a service on an address.
    fn is_vip(&self, address: u32) -> bool;
    /// Whether there may be a backend; wrong answers are only "yes".
    fn may_be_backend(&self, address: u32, port: u16, protocol: u8) -> bool;
    /// The service of exactly this key.
    fn service(&self, key: &VipKey) -> Option<(u32, ServiceWord)>;
    /// What a slot of a service's ring holds: a backend's place behind the service's first.
    fn ring_slot(&self, word: ServiceWord, slot: u32) -> Option<u32>;
    /// A backend by its row.
    fn backend(&self, row: u32) -> Option<&BackendRecord>;
    /// Has a flow that only a former table knows stand in the present ones; says whether there are former tables. For a
    /// program: before the look-up and not where that finds nothing, which would double what the verifier walks on Linux 6.1.
    fn bring_over(&self, _: &FlowKey) -> bool {
        false
    }
    /// A flow whose backend has answered.
    fn flow(&self, key: &FlowKey) -> Option<&LiveFlow>;
    /// A flow whose backend has not.
    fn young(&self, key: &FlowKey) -> Option<&LiveFlow>;
    /// Enters a flow. Says whether it is there now.
    fn enter_flow(&self, key: &FlowKey, record: &FlowRecord) -> bool;
    /// Enters a young flow. Says whether it is there now.
    fn enter_young(&self, key: &FlowKey, record: &FlowRecord) -> bool;
    /// Forgets a flow, in both tables.
    fn forget(&self, key: &FlowKey);
    /// The addresses that the first fragment of a packet got; [`Tuple::KEPT`] where none is remembered.
    fn fragment(&self, key: &FragmentKey) -> Tuple;
    /// Remembers them.
    fn remember_fragment(&self, key: &FragmentKey, addresses: &Tuple);
    /// The first of the ports that a translated source gets, and how many there are.
    fn other_ports(&self) -> (u16, u16);
    /// Whether a client may be sent another refusal by ICMP, which counts as sent then
    /// ([`REFUSALS_PER_SECOND`](crate::abi::REFUSALS_PER_SECOND)).
    fn may_refuse(&self, client: u32) -> bool;
    /// The coarse clock ([`SEEN_SHIFT`](crate::abi::SEEN_SHIFT)).
    fn now(&self) -> u32;
    /// Whether one of the numbers below `most` does; none is asked for after that. For a program: a loop of the kernel's, whose
    /// body the verifier walks once.
    fn any(&self, most: u32, does: impl FnMut(u32) -> bool) -> bool {
        (0..most).any(does)
    }
    /// Any number.
    fn random(&self) -> u32;
    /// Tells whoever watches that a flow was entered.
    fn announce(&self, key: &FlowKey, forward: &FlowRecord);
}

/// What becomes of a packet to a VIP. No `Result`, for the reason of [`Tuple::KEPT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The addresses and ports that it gets; [`Tuple::KEPT`] when it is refused.
    pub rewrite: Tuple,
    /// Why it is refused.
    pub refusal: Option<Refusal>,
}

impl Fate {
    #[inline(always)]
    const fn rewritten(rewrite: Tuple) -> Self {
        Self { rewrite, refusal: None }
    }

    #[inline(always)]
    fn refused(refusal: Refusal) -> Self {
        off_the_common_way();
        Self { rewrite: Tuple::KEPT, refusal: Some(refusal) }
    }
}

/// Why a packet to a VIP cannot be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No service, or nothing that a service could serve.
    NoService,
    /// The service has no usable backend.
    NoBackend,
    /// Every way to the backend that would be free collides with another flow.
    Collision,
    /// Its flow's backend is gone.
    BackendGone,
    /// It comes from an address that is no single host's.
    BadSource,
    /// A fragment that came before its packet's first: it does not say which flow it belongs to.
    FragmentEarly,
}

/// Where the packets of a flow come from, as its backend sees them.
pub trait Place {
    /// One of the flags of [`FlowRecord::TRANSLATED`], or 0 where a client's packets to a backend keep their source.
    fn source(&self, client: u32, backend: &BackendRecord) -> u8;
    /// The address that [`FlowRecord::FROM_GATEWAY`] or [`FlowRecord::FROM_UPLINK`] stands for.
    fn address(&self, flags: u8, backend: u32) -> u32;
}

/// The key under which flows of services know a packet: of its own addresses and ports, or, of an ICMP error, of what answers
/// the packet that it quotes. None of a packet without ports.
pub fn flow_key<P: Packet + ?Sized>(packet: &P, ip: &Ipv4, offset: usize) -> Option<FlowKey> {
    if ip.is_later_fragment() {
        return None;
    }
    match Segment::read(packet, ip, offset) {
        Some(segment) => Some(segment.key(ip)),
        None => quote::flow_key(packet, ip, offset),
    }
}

/// What becomes of a packet to an address that may be a VIP.
#[inline(always)]
pub fn to_vip<P: Packet + ?Sized, T: Services>(
    packet: &P,
    ip: &Ipv4,
    offset: usize,
    place: &impl Place,
    tables: &T,
) -> Fate {
    if ip.is_later_fragment() {
        return fragment::later_to_vip(ip, tables);
    }
    let fate = match Segment::read(packet, ip, offset) {
        Some(segment) => whole(&segment, ip, place, tables),
        None => quote::to_vip(packet, ip, offset, place, tables),
    };
    if ip.is_fragment() {
        off_the_common_way();
        fragment::remember(ip, &fate.rewrite, tables);
    }
    fate
}

#[inline(always)]
fn whole<T: Services>(segment: &Segment, ip: &Ipv4, place: &impl Place, tables: &T) -> Fate {
    let key = segment.key(ip);
    let now = tables.now();
    tables.bring_over(&key);
    let mut former = None;
    if let Some(flow) = tables.flow(&key)
        && flow.lives(key.protocol, now)
    {
        if flow.is_reply() {
            return Fate::rewritten(replied(segment, &key, flow, now, tables));
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
            return Fate::rewritten(tuple);
        }
        off_the_common_way();
        if key.protocol == PROTO_TCP && !over {
            return Fate::refused(Refusal::BackendGone);
        }
        // A new life of the same addresses and ports, which may lead to another backend.
        former = Some(flow);
    }
    off_the_common_way();
    unconfirmed(segment, &key, former, place, now, tables)
}

/// A packet of a flow that is not confirmed yet, or of none, or the first of another life of a `former` one.
#[inline(always)]
fn unconfirmed<T: Services>(
    segment: &Segment,
    key: &FlowKey,
    former: Option<&LiveFlow>,
    place: &impl Place,
    now: u32,
    tables: &T,
) -> Fate {
    if former.is_none()
        && let Some(young) = tables.young(key)
        && young.lives(key.protocol, now)
    {
        if young.is_reply() {
            return Fate::rewritten(answered(segment, key, young, now, tables));
        }
        if tables.backend(young.row()).is_some_and(|backend| young.is_with(backend, key.protocol)) {
            let tuple = young.forward(key, place);
            if segment.acknowledges(young) {
                confirm(key, &tuple.answered(key.protocol), young, now, tables);
            }
            return Fate::rewritten(tuple);
        }
    }
    choice::choose(segment, key, former, place, now, tables)
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
/// for those of a flow of a service, it gets another port.
#[inline(always)]
pub fn beside<P: Packet + ?Sized, T: Services>(packet: &P, ip: &Ipv4, offset: usize, tables: &T) -> Tuple {
    if ip.is_fragment() {
        return Tuple::KEPT;
    }
    let Some(segment) = Segment::read(packet, ip, offset) else { return Tuple::KEPT };
    let key = segment.key(ip);
    if !tables.may_be_backend(key.dst, key.dport, key.protocol) {
        return Tuple::KEPT;
    }
    let now = tables.now();
    tables.bring_over(&key);
    if let Some(flow) = tables.flow(&key)
        && flow.lives(key.protocol, now)
    {
        flow.touch(&segment, now);
        return flow.forward(&key, &choice::Straight);
    }
    if let Some(young) = tables.young(&key)
        && young.lives(key.protocol, now)
    {
        let tuple = young.forward(&key, &choice::Straight);
        if segment.acknowledges(young) {
            confirm(&key, &tuple.answered(key.protocol), young, now, tables);
        }
        return tuple;
    }
    if key.protocol == PROTO_TCP && !segment.is_syn() {
        return Tuple::KEPT;
    }
    choice::straight(&segment, &key, now, tables)
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

#[cfg(test)]
mod tests;
