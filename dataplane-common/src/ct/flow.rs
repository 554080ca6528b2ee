//! Entries of the flow tables: their age, and what they make of a packet.

use super::segment::{Segment, Tuple};
use crate::{
    abi::{BackendRecord, FlowKey, FlowRecord, LiveFlow, SEEN_SHIFT, SEEN_STEP, State, idle},
    codegen::unknown,
    wire::{PROTO_TCP, PROTO_UDP},
};

/// Idle time after which an entry counts no more, in units of the coarse clock.
#[inline(always)]
fn life(protocol: u8, state: u8) -> u32 {
    // Rule 6 of `codegen`: the mask.
    LIVES[(unknown(state & 7 | (protocol & TCP_BIT) << 2) & 15) as usize]
}

/// The bit that tells TCP's number from UDP's.
const TCP_BIT: u8 = 2;

/// By state, for UDP and then for TCP. A table: [rule 3](crate::codegen).
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
    // The other side may still send, for as long as it likes.
    lives[8 + State::Closing as usize] = units(8 * 3600);
    lives
};

impl LiveFlow {
    /// Becomes the entry of the other direction of a flow, as far as that of packets of a key tells: what answers them becomes
    /// what answers the key.
    #[inline(always)]
    pub(super) fn become_other(&self, key: &FlowKey, of: &Self) {
        // Rule 6 of `codegen`: the counts and numbers.
        let none = unknown(0_u32);
        self.take(of);
        self.src.set(key.dst);
        self.dst.set(key.src);
        self.sport.set(key.dport);
        self.dport.set(key.sport);
        self.flags.set(of.flags.get() ^ FlowRecord::REPLY);
        self.acknowledged.set(none);
        self.sequence.set(none);
        self.packets.set(u64::from(none));
        self.bytes.set(u64::from(none));
    }

    /// Not [idle] for longer than its state allows.
    #[inline(always)]
    pub fn lives(&self, protocol: u8, now: u32) -> bool {
        idle(self.seen.get(), now) <= life(protocol, self.state.get())
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

    /// Whether a packet of the client's leads to the backend in its row as before. A SYN asks once more where that backend has left
    /// rotation and no handshake was completed in this entry: a connection begun just before a host's death is late then, not lost,
    /// and one from a port that was used before is not led by what its forerunner has left in `unconfirmed`.
    #[inline(always)]
    pub fn stays_with(&self, backend: &BackendRecord, segment: &Segment, protocol: u8) -> bool {
        let is_opening = segment.is_syn() && self.state.get() < State::Established as u8;
        self.is_with(backend, protocol) && !(is_opening && backend.flags & BackendRecord::OUT != 0)
    }

    /// Whether a packet of the flow changes nothing but counts: it is established or both sides have closed it, the packet begins
    /// and ends nothing, and the other direction knows that the flow lives.
    #[inline(always)]
    pub fn is_steady(&self, segment: &Segment, now: u32) -> bool {
        // Rule 3 of `codegen`.
        const STEADY: u32 =
            1 << State::Established as u32 | 1 << State::Closing as u32 | 1 << State::Closed as u32;
        let is_steady = STEADY >> (self.state.get() & 31) & 1 != 0;
        is_steady && segment.is_plain() && idle(self.seen.get(), now) <= SEEN_STEP
    }

    /// Counts a packet, and notes what it acknowledges.
    #[inline(always)]
    pub fn count(&self, segment: &Segment) {
        self.packets.set(self.packets.get().wrapping_add(1));
        self.bytes.set(self.bytes.get().wrapping_add(u64::from(segment.len)));
        self.acknowledged.set(segment.acknowledgement());
    }

    /// Follows a confirmed flow by a packet of its direction, whose other direction is `other`: both live as long as either
    /// speaks, and end when both have ended, or by a reset.
    #[inline(always)]
    pub(super) fn follow(&self, segment: &Segment, other: &Self, now: u32) {
        let state = self.state.get();
        if segment.ends(other.acknowledged.get()) {
            if segment.is_reset() {
                self.end(other, State::Reset);
            } else if other.state.get() == State::Closing as u8 {
                self.end(other, State::Closed);
            } else if state == State::Established as u8 {
                self.state.set(State::Closing as u8);
            }
        } else if state == State::Reset as u8 && segment.is_plain() {
            // Who answers has not been reset.
            self.end(other, State::Established);
        }
        if self.state.get() <= State::Closing as u8 {
            self.seen.set(now);
            other.seen.set(now);
        }
    }

    /// Both directions are in a state.
    #[inline(always)]
    fn end(&self, other: &Self, state: State) {
        self.state.set(state as u8);
        other.state.set(state as u8);
    }

    /// What its packets become.
    #[inline(always)]
    pub fn rewrite(&self) -> Tuple {
        Tuple { src: self.src.get(), dst: self.dst.get(), sport: self.sport.get(), dport: self.dport.get() }
    }

    /// What becomes of its packets, which have a key: those of a connection straight to a backend may stay as they are.
    #[inline(always)]
    pub fn rewrite_of(&self, key: &FlowKey) -> Tuple {
        let is_direct = self.service.get() == FlowRecord::DIRECT;
        if is_direct && self.sport.get() == key.sport && self.dport.get() == key.dport {
            Tuple::KEPT
        } else {
            self.rewrite()
        }
    }

    /// Whether it is over, or never was more than a question, so that another flow may have its port: both sides have closed
    /// it, it was reset, or a question is not answered, or answered once, and half a second old.
    #[inline(always)]
    pub(super) fn gives_way(&self, protocol: u8, now: u32) -> bool {
        let state = self.state.get();
        let is_question =
            state < State::Established as u8 || protocol == PROTO_UDP && self.packets.get() <= 1;
        state > State::Closing as u8 || is_question && idle(self.seen.get(), now) > SEEN_STEP
    }

    /// Notes the backend's answer in the client's entry, for the client's acknowledgement to meet.
    #[inline(always)]
    pub fn note_answer(&self, segment: &Segment) {
        self.sequence.set(segment.sequence());
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
    pub fn settle(&self, reply: Option<&Self>, segment: &Segment, now: u32) {
        self.state.set(State::Established as u8);
        self.seen.set(now);
        if let Some(reply) = reply {
            reply.state.set(State::Established as u8);
            reply.seen.set(now);
            reply.acknowledged.set(segment.sequence());
        }
    }

    /// Whether it is the entry of the answers to packets of a key.
    #[inline(always)]
    pub(super) fn answers(&self, key: &FlowKey) -> bool {
        self.differs(key.dst, key.src, key.dport, key.sport) == 0 && self.is_reply()
    }

    /// Whether a connection that was over may start again in its former entries, because the new one leads to the same
    /// backend. A client that comes back to its ports time and again takes no room for it, and the tables no time.
    #[inline(always)]
    pub(super) fn is_same_way(&self, former: &Self) -> bool {
        let differs = self.backend.get() ^ former.backend.get()
            | u32::from(self.service.get() ^ former.service.get())
            | self.src.get() ^ former.src.get();
        differs == 0
    }

    /// Whether it is the other direction of the flow, or of an earlier life of it, in which packets of a key have an entry.
    #[inline(always)]
    pub fn is_half(&self, key: &FlowKey, of: &Self) -> bool {
        let is_same_way =
            u32::from((self.flags.get() ^ of.flags.get() ^ FlowRecord::REPLY) & FlowRecord::REPLY);
        self.differs(key.dst, key.src, key.dport, key.sport) | is_same_way == 0
    }

    /// Not 0 where its packets become something else. One comparison: rule 3 of `codegen`.
    #[inline(always)]
    fn differs(&self, src: u32, dst: u32, sport: u16, dport: u16) -> u32 {
        let addresses = self.src.get() ^ src | self.dst.get() ^ dst;
        addresses | u32::from(self.sport.get() ^ sport | self.dport.get() ^ dport)
    }
}
