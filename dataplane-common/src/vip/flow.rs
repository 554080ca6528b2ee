//! Entries of the flow tables: their age, and what they make of a packet.

use core::{cell::Cell, hint::black_box};

use super::{
    Place,
    segment::{Segment, Tuple},
};
use crate::{
    abi::{BackendRecord, FlowKey, FlowRecord, LiveFlow, SEEN_SHIFT, State, idle},
    decide::off_the_common_way,
    wire::{PROTO_TCP, PROTO_UDP},
};

/// Idle time after which an entry counts no more, in units of the coarse clock.
#[inline(always)]
fn life(protocol: u8, state: u8) -> u32 {
    // Linux 6.1 forgets the bounds of what was joined by "or", and LLVM drops a mask that changes nothing it knows of.
    LIVES[(black_box(state & 7 | (protocol & TCP_BIT) << 2) & 15) as usize]
}

/// The bit that tells TCP's number from UDP's.
const TCP_BIT: u8 = 2;

/// By state, for UDP and then for TCP. A table, because the verifier follows each of a comparison's branches.
static LIVES: [u32; 16] = {
    const fn units(seconds: u64) -> u32 {
        ((seconds * 1_000_000_000) >> SEEN_SHIFT) as u32
    }
    assert!(PROTO_TCP & TCP_BIT != 0 && PROTO_UDP & TCP_BIT == 0);
    let mut lives = [units(20); 16];
    let mut state = 0;
    while state < 8 {
        lives[state] = units(120);
        state += 1;
    }
    lives[State::New as usize] = units(30);
    lives[8 + State::New as usize] = units(30);
    lives[8 + State::Answered as usize] = units(30);
    lives[8 + State::Established as usize] = units(8 * 3600);
    lives
};

/// The client's source port on the way to the backend.
#[inline(always)]
const fn source_port(key: &FlowKey, forward: &FlowRecord) -> u16 {
    if forward.other_port == 0 { key.sport } else { forward.other_port }
}

/// The source address on the way to the backend.
#[inline(always)]
pub(super) fn source(key: &FlowKey, forward: &FlowRecord, place: &impl Place) -> u32 {
    if forward.flags & FlowRecord::TRANSLATED == 0 {
        return key.src;
    }
    off_the_common_way();
    if forward.flags & FlowRecord::FROM_VIP != 0 {
        key.dst
    } else {
        place.address(forward.flags, forward.address)
    }
}

/// The key of the backend's packets in the flow of a forward entry whose packets come from `source`.
#[inline(always)]
pub(super) const fn reply_key(key: &FlowKey, forward: &FlowRecord, source: u32) -> FlowKey {
    FlowKey::new(forward.address, source, forward.port, source_port(key, forward), key.protocol)
}

/// The entry of the backend's packets in the flow of a forward entry.
#[inline(always)]
pub(super) fn reply_record(key: &FlowKey, forward: &FlowRecord) -> FlowRecord {
    // Unknown to LLVM, which would call a function to clear both counts byte by byte.
    let none = black_box(0);
    FlowRecord {
        address: key.dst,
        port: key.dport,
        other_port: if forward.other_port == 0 { 0 } else { key.sport },
        flags: forward.flags | FlowRecord::REPLY,
        number: key.src,
        packets: none,
        bytes: none,
        ..*forward
    }
}

/// What the client's packet becomes.
#[inline(always)]
pub(super) const fn forwarded(key: &FlowKey, forward: &FlowRecord, source: u32) -> Tuple {
    Tuple { src: source, dst: forward.address, sport: source_port(key, forward), dport: forward.port }
}

impl LiveFlow {
    /// An entry that holds a record.
    pub fn new(record: &FlowRecord) -> Self {
        Self {
            address: Cell::new(record.address),
            port: Cell::new(record.port),
            other_port: Cell::new(record.other_port),
            backend: Cell::new(record.backend),
            service: Cell::new(record.service),
            state: Cell::new(record.state),
            flags: Cell::new(record.flags),
            seen: Cell::new(record.seen),
            number: Cell::new(record.number),
            packets: Cell::new(record.packets),
            bytes: Cell::new(record.bytes),
            layout: Cell::new(record.layout),
            spare: Cell::new(record.spare),
        }
    }

    /// What it holds now.
    #[inline(always)]
    pub fn record(&self) -> FlowRecord {
        FlowRecord {
            address: self.address.get(),
            port: self.port.get(),
            other_port: self.other_port.get(),
            backend: self.backend.get(),
            service: self.service.get(),
            state: self.state.get(),
            flags: self.flags.get(),
            seen: self.seen.get(),
            number: self.number.get(),
            packets: self.packets.get(),
            bytes: self.bytes.get(),
            layout: self.layout.get(),
            spare: self.spare.get(),
        }
    }

    /// Not [idle] for longer than its state allows.
    #[inline(always)]
    pub fn lives(&self, protocol: u8, now: u32) -> bool {
        idle(self.seen.get(), now) <= life(protocol, self.state.get())
    }

    /// Lives, and nothing but time can end it: not a connection's first life nor a further one that is not confirmed.
    #[inline(always)]
    pub fn is_established(&self, protocol: u8, now: u32) -> bool {
        self.state.get() >= State::Established as u8 && self.lives(protocol, now)
    }

    /// Whether it is the backend's direction.
    #[inline(always)]
    pub fn is_reply(&self) -> bool {
        self.flags.get() & FlowRecord::REPLY != 0
    }

    /// Row of its backend.
    #[inline(always)]
    pub fn row(&self) -> u32 {
        FlowRecord::row_of(self.backend.get())
    }

    /// Whether the backend in its row is still its own, and takes its packets.
    #[inline(always)]
    pub fn is_with(&self, backend: &BackendRecord, protocol: u8) -> bool {
        let own = FlowRecord::backend_of(self.row(), backend.generation);
        own == self.backend.get() && backend.flags & BackendRecord::over(protocol) == 0
    }

    /// Counts a packet and follows the connection. One that was reopened and is not confirmed grows no older by it.
    #[inline(always)]
    pub fn touch(&self, segment: &Segment, now: u32) {
        self.packets.set(self.packets.get().wrapping_add(1));
        self.bytes.set(self.bytes.get().wrapping_add(u64::from(segment.len)));
        let state = self.state.get();
        if state < State::Established as u8 {
            off_the_common_way();
            return;
        }
        if self.seen.get() != now {
            self.seen.set(now);
        }
        let after = segment.after(state);
        if after != state {
            self.state.set(after);
        }
        if !self.is_reply() {
            self.number.set(segment.acknowledgement());
        }
    }

    /// Notes the backend's answer in the client's entry, for the client's acknowledgement to meet.
    #[inline(always)]
    pub fn note_answer(&self, segment: &Segment) {
        self.number.set(segment.sequence());
        self.state.set(State::Answered as u8);
    }

    /// Starts another life of the connection: it lives on only once it is [settled](Self::settle).
    #[inline(always)]
    pub fn reopen(&self, packets: u64, bytes: u64, now: u32) {
        self.state.set(State::New as u8);
        self.seen.set(now);
        self.packets.set(packets);
        self.bytes.set(bytes);
    }

    /// Confirms a reopened connection: its backend has answered, and the client has acknowledged that.
    #[inline(always)]
    pub fn settle(&self, reply: Option<&Self>, now: u32) {
        self.state.set(State::Established as u8);
        if let Some(reply) = reply {
            reply.state.set(State::Established as u8);
            reply.seen.set(now);
        }
    }

    /// Whether an entry of the same key makes the same of a packet.
    #[inline(always)]
    pub fn is_same_as(&self, record: &FlowRecord) -> bool {
        // One comparison, for the verifier's sake.
        let differs = self.address.get() ^ record.address
            | self.number.get() ^ record.number
            | u32::from(self.port.get() ^ record.port)
            | u32::from(self.other_port.get() ^ record.other_port);
        differs == 0
    }

    /// What the client's packet becomes.
    #[inline(always)]
    pub fn forward(&self, key: &FlowKey, place: &impl Place) -> Tuple {
        let forward = self.record();
        forwarded(key, &forward, source(key, &forward, place))
    }

    /// What the backend's packet becomes.
    #[inline(always)]
    pub fn reply(&self, key: &FlowKey) -> Tuple {
        let other = self.other_port.get();
        Tuple {
            src: self.address.get(),
            dst: self.number.get(),
            sport: self.port.get(),
            dport: if other == 0 { key.dport } else { other },
        }
    }
}
