//! The flow tables' entries as flows: both directions of one are brought together.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    net::{Ipv4Addr, SocketAddrV4},
};

use control::service::Protocol;
use dataplane_common::abi::{FlowKey, FlowRecord, LiveFlow, SEEN_SHIFT, State, idle, mix};
use serde::{Serialize, Serializer};

use crate::kernel::bpf::FlowTable;

/// A flow of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client that opened it.
    pub client: SocketAddrV4,
    /// Where to.
    pub vip: SocketAddrV4,
    /// The backend that serves it.
    pub backend: SocketAddrV4,
    /// Index of the service.
    pub service: u32,
    /// How far it has come.
    pub state: FlowState,
    /// Milliseconds since its last packet.
    pub age: u64,
    /// Packets of both directions; those of the handshake count as one.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlowState {
    /// The client alone has spoken.
    New,
    /// The backend has answered; TCP: the client has not acknowledged it.
    Answered,
    /// TCP: the handshake is complete. UDP: the backend has answered.
    Established,
    /// TCP: a side will send no more, the other one may.
    Closing,
    /// TCP: a side has sent a reset.
    Reset,
    /// TCP: neither side will send any more.
    Closed,
}

impl FlowState {
    /// The name that people and scripts see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Answered => "answered",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Reset => "reset",
            Self::Closed => "closed",
        }
    }

    pub(crate) fn of(number: u8) -> Self {
        let states = [
            (State::New, Self::New),
            (State::Answered, Self::Answered),
            (State::Established, Self::Established),
            (State::Closing, Self::Closing),
            (State::Closed, Self::Closed),
        ];
        states.into_iter().find(|(state, _)| *state as u8 == number).map_or(Self::Reset, |(_, state)| state)
    }
}

impl Serialize for FlowState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What is known of a flow from one of its entries, or from both.
#[derive(Clone, Copy, Debug)]
struct Part {
    backend: SocketAddrV4,
    service: u16,
    state: FlowState,
    seen: u32,
    packets: u64,
    bytes: u64,
}

impl Part {
    fn with(self, other: Self) -> Self {
        let later = self.seen.wrapping_sub(other.seen) <= u32::MAX / 2;
        Self {
            state: self.state.max(other.state),
            seen: if later { self.seen } else { other.seen },
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
            ..self
        }
    }
}

/// Brings the entries of flows together, those of `unconfirmed` first. What is complete is given out at once, so that a walk
/// over a large table holds little of it.
#[derive(Debug)]
pub struct Joiner {
    now: u32,
    /// Of whom: every client's, or one's.
    client: Option<u32>,
    unconfirmed: Parts,
    halves: Parts,
}

type Parts = HashMap<FlowKey, Part, BuildHasherDefault<KeyHasher>>;

/// As the programs mix keys. A walk meets each key once or twice: to be safe from chosen ones it would hardly be worth
/// the time.
#[derive(Debug, Default)]
struct KeyHasher(u32);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u32(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u32(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = mix(self.0.rotate_left(5) ^ value);
    }

    fn finish(&self) -> u64 {
        // The table takes its place from the lower bits and a tag from the upper ones.
        u64::from(self.0) << 32 | u64::from(self.0)
    }
}

impl Joiner {
    /// Starts at a moment of the coarse clock; with a client's address, that one's flows alone are of interest.
    pub fn new(now: u32, client: Option<Ipv4Addr>) -> Self {
        let client = client.map(|address| u32::from_ne_bytes(address.octets()));
        Self { now, client, unconfirmed: Parts::default(), halves: Parts::default() }
    }

    /// Takes an entry; gives the flow that it completes.
    pub fn add(&mut self, table: FlowTable, key: &FlowKey, record: &FlowRecord) -> Option<Flow> {
        let live = LiveFlow::new(record);
        let is_over = !live.lives(key.protocol, self.now);
        if record.service == FlowRecord::DIRECT || is_over && table == FlowTable::Unconfirmed {
            return None;
        }
        let (forward, backend) = if live.is_reply() {
            (live.rewrite().answered(key.protocol), socket(key.src, key.sport))
        } else {
            (*key, socket(record.dst, record.dport))
        };
        if self.client.is_some_and(|client| client != forward.src) {
            return None;
        }
        let FlowRecord { service, state, seen, packets, bytes, .. } = *record;
        let part = Part { backend, service, state: FlowState::of(state), seen, packets, bytes };
        if table == FlowTable::Unconfirmed {
            self.unconfirmed.entry(forward).and_modify(|known| *known = known.with(part)).or_insert(part);
            return None;
        }
        self.forget_unconfirmed(&forward, record.seen);
        if is_over {
            return None;
        }
        match self.halves.remove(&forward) {
            Some(other) => self.flow(&forward, &part.with(other)),
            None => {
                self.halves.insert(forward, part);
                None
            }
        }
    }

    /// What a confirmed flow has in `unconfirmed` is left over from before. What came later is of another flow.
    fn forget_unconfirmed(&mut self, forward: &FlowKey, confirmed: u32) {
        let is_left = |part: &Part| idle(part.seen, confirmed) > 0 || part.seen == confirmed;
        if !self.unconfirmed.is_empty() && self.unconfirmed.get(forward).is_some_and(is_left) {
            self.unconfirmed.remove(forward);
        }
    }

    /// The flows of which there is one entry alone, and those that wait for their backend's answer.
    pub fn rest(self) -> impl Iterator<Item = Flow> {
        let now = self.now;
        self.halves.into_iter().chain(self.unconfirmed).filter_map(move |(key, part)| flow(now, &key, &part))
    }

    fn flow(&self, key: &FlowKey, part: &Part) -> Option<Flow> {
        flow(self.now, key, part)
    }
}

fn flow(now: u32, key: &FlowKey, part: &Part) -> Option<Flow> {
    let age = u64::from(idle(part.seen, now)) << SEEN_SHIFT;
    Some(Flow {
        protocol: Protocol::from_number(key.protocol)?,
        client: socket(key.src, key.sport),
        vip: socket(key.dst, key.dport),
        backend: part.backend,
        service: part.service.into(),
        state: part.state,
        age: age / 1_000_000,
        packets: part.packets,
        bytes: part.bytes,
    })
}

fn socket(address: u32, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(address.to_ne_bytes()), u16::from_be(port))
}

#[cfg(test)]
mod tests;
