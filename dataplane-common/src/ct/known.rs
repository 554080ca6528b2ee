//! What most packets of services need: an entry of an established flow, which says all. It is part of every hook's program.

use super::{
    Flows,
    segment::{Segment, Tuple},
};
use crate::{
    abi::FlowKey,
    codegen::cold_path,
    icmp,
    packet::Packet,
    wire::{IPV4_LEN, Ipv4, PROTO_ICMP, PROTO_TCP},
};

/// What the established flows make of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The addresses and ports that it gets; [`Tuple::KEPT`] where it belongs to no established flow.
    pub rewrite: Tuple,
    /// It may belong to a flow that is not established, or begin one: only the whole decision can say.
    pub is_open: bool,
    /// No confirmed flow has it, and no former table.
    pub is_absent: bool,
}

impl Known {
    const NOTHING: Self = Self { rewrite: Tuple::KEPT, is_open: false, is_absent: false };
    const OPEN: Self = Self { is_open: true, ..Self::NOTHING };

    #[inline(always)]
    const fn rewritten(rewrite: Tuple) -> Self {
        Self { rewrite, is_open: false, is_absent: false }
    }
}

/// What becomes of a client's packet of an established flow; of all others whether one opens a connection that is in no table of
/// established flows ([`Known::is_open`]).
#[inline(always)]
pub fn established<P: Packet + ?Sized, T: Flows>(packet: &P, ip: &Ipv4, offset: usize, tables: &T) -> Known {
    // Without a hop left it ends here, even where this host is its last.
    if ip.is_fragment() || ip.ttl == 0 {
        return Known::NOTHING;
    }
    let Some(segment) = Segment::read(packet, ip, offset) else { return Known::NOTHING };
    let key = segment.key(ip);
    let Some(flow) = tables.flow(&key) else {
        cold_path();
        let is_absent = !tables.has_former();
        return Known { rewrite: Tuple::KEPT, is_open: segment.is_syn() && is_absent, is_absent };
    };
    if !flow.is_steady(&segment, tables.now()) || flow.is_reply() {
        return Known::NOTHING;
    }
    let Some(backend) = tables.backend(flow.row()) else { return Known::NOTHING };
    if !flow.is_with(backend, key.protocol) {
        return Known::NOTHING;
    }
    flow.count(&segment);
    Known::rewritten(flow.rewrite())
}

/// What becomes of a packet that may be a backend's answer.
#[inline(always)]
pub fn known_answer<P: Packet + ?Sized, T: Flows>(packet: &P, ip: &Ipv4, offset: usize, tables: &T) -> Known {
    if ip.is_fragment() {
        cold_path();
        return Known::OPEN;
    }
    match Segment::read(packet, ip, offset) {
        Some(segment) => answer_of(&segment, &segment.key(ip), tables),
        None => quoting(packet, ip, offset),
    }
}

/// What becomes of a packet between two overlay addresses: a backend's answer, when it goes `here`, or a packet straight to a
/// backend.
#[inline(always)]
pub fn known_between<P: Packet + ?Sized, T: Flows>(
    packet: &P,
    ip: &Ipv4,
    offset: usize,
    here: bool,
    tables: &T,
) -> Known {
    if ip.is_fragment() {
        cold_path();
        return Known { is_open: here, ..Known::NOTHING };
    }
    let Some(segment) = Segment::read(packet, ip, offset) else {
        return if here { quoting(packet, ip, offset) } else { Known::NOTHING };
    };
    let key = segment.key(ip);
    if here {
        let answer = answer_of(&segment, &key, tables);
        if answer.is_open || !answer.rewrite.is_kept() {
            return answer;
        }
    }
    direct(&segment, &key, tables)
}

/// An ICMP error may be about a flow's packet.
#[inline(always)]
fn quoting<P: Packet + ?Sized>(packet: &P, ip: &Ipv4, offset: usize) -> Known {
    cold_path();
    if ip.proto != PROTO_ICMP || !ip.is_plain() {
        return Known::NOTHING;
    }
    let kind: Option<[u8; 2]> = packet.read(offset + IPV4_LEN);
    match kind {
        Some([kind, _]) if icmp::is_error(kind) => Known::OPEN,
        _ => Known::NOTHING,
    }
}

#[inline(always)]
fn answer_of<T: Flows>(segment: &Segment, key: &FlowKey, tables: &T) -> Known {
    if !tables.may_be_backend(key.src, key.sport, key.protocol) {
        return Known::NOTHING;
    }
    if let Some(flow) = tables.flow(key) {
        if flow.is_steady(segment, tables.now()) && flow.is_reply() {
            flow.count(segment);
            return Known::rewritten(flow.rewrite_of(key));
        }
        cold_path();
        return Known { is_open: flow.is_reply(), ..Known::NOTHING };
    }
    cold_path();
    let is_absent = !tables.has_former();
    Known { rewrite: Tuple::KEPT, is_open: !is_absent || tables.unconfirmed(key).is_some(), is_absent }
}

#[inline(always)]
fn direct<T: Flows>(segment: &Segment, key: &FlowKey, tables: &T) -> Known {
    if !tables.may_be_backend(key.dst, key.dport, key.protocol) {
        return Known::NOTHING;
    }
    cold_path();
    if let Some(flow) = tables.flow(key) {
        if flow.is_steady(segment, tables.now()) && !flow.is_reply() {
            flow.count(segment);
            return Known::rewritten(flow.rewrite_of(key));
        }
        return Known { is_open: !flow.is_reply(), ..Known::NOTHING };
    }
    let begins = key.protocol != PROTO_TCP || segment.is_syn();
    let is_absent = !tables.has_former();
    let is_open = begins || !is_absent || tables.unconfirmed(key).is_some();
    Known { rewrite: Tuple::KEPT, is_open, is_absent }
}
