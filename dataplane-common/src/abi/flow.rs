//! Layout of the flow tables: what was decided at a flow's first packet.
//!
//! Addresses, ports and sequence numbers are as on the wire (network order).

use core::{cell::Cell, mem::offset_of};

use bytemuck::{Pod, Zeroable};

use crate::wire::{PROTO_TCP, PROTO_UDP};

/// Flows that wait for the backend's answer: two entries each.
pub const UNCONFIRMED_ENTRIES: u32 = 131_072;
/// Number of the layout of [`FlowRecord`], which grows with every change of it: the flows of the layout before go on
/// ([`FlowRecord::migrate`]). The size stays, and so does the place of [`FlowRecord::layout`].
pub const FLOW_LAYOUT: u32 = if cfg!(feature = "trial-flow-layout") { 2 } else { 1 };

/// Index in maps `flow_tables` and `former_flow_tables`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FlowTable {
    /// Connections whose client has acknowledged the backend's answer: forged packets make none.
    Flows,
    /// Flows of datagrams whose backend has answered. Whose question that was nobody knows, so that they evict none but each
    /// other.
    Datagrams,
    /// Flows that wait for that: all that a flood without answers can fill.
    Unconfirmed,
}

impl FlowTable {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Flows, Self::Datagrams, Self::Unconfirmed];
    /// How many there are.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// The number of the table of confirmed flows of a protocol. Computed, not chosen: every packet of a service asks.
    #[inline(always)]
    pub const fn confirmed(protocol: u8) -> u32 {
        (protocol & UDP_BIT) as u32
    }

    /// The tables that may hold a flow of a protocol, in the order in which programs look.
    pub const fn of_protocol(protocol: u8) -> [Self; 2] {
        [Self::of(Self::confirmed(protocol)), Self::Unconfirmed]
    }

    /// The table of a number.
    pub const fn of(number: u32) -> Self {
        Self::ALL[number as usize % Self::ALL.len()]
    }

    /// For file names and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Datagrams => "datagrams",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// The bit that tells UDP's number from TCP's.
const UDP_BIT: u8 = 1;

/// Entries per possible CPU below which an LRU hash map evicts what is fresh while it is nearly empty (its free lists
/// hold 128 elements a CPU).
pub const ENTRIES_PER_CPU: u32 = 2_048;
/// `seen` counts coarse nanoseconds shifted right by this: about a millisecond.
pub const SEEN_SHIFT: u32 = 20;

/// How far what a flow's entries say of the last packet may lie behind: so seldom its two entries are brought to agree. About
/// half a second.
pub const SEEN_STEP: u32 = 512;

/// Time between two moments of that clock. 0 where the later comes first: another processor, or a packet while a table is
/// walked, may have noted a moment that came after the clock was read.
#[inline(always)]
pub const fn idle(seen: u32, now: u32) -> u32 {
    let idle = now.wrapping_sub(seen);
    if idle > u32::MAX / 2 { 0 } else { idle }
}

/// Key of the flow tables: a packet's addresses and ports before translation. A flow has two entries, one for
/// each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct FlowKey {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// TCP or UDP.
    pub protocol: u8,
    /// Zero, like the next: no array of three ([rule 5](crate::codegen)).
    pub pad: u8,
    /// Zero.
    pub pad2: u16,
}

impl FlowKey {
    /// A key of these.
    #[inline(always)]
    pub const fn new(src: u32, dst: u32, sport: u16, dport: u16, protocol: u8) -> Self {
        Self { src, dst, sport, dport, protocol, pad: 0, pad2: 0 }
    }
}

/// Value of the flow tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FlowRecord {
    /// In the layout that tests change to, both counts come first.
    #[cfg(feature = "trial-flow-layout")]
    pub packets: u64,
    /// As below.
    #[cfg(feature = "trial-flow-layout")]
    pub bytes: u64,
    /// The source that the packet gets.
    pub src: u32,
    /// Its destination. Forward: the backend. Reply: the client.
    pub dst: u32,
    /// Its source port.
    pub sport: u16,
    /// Its destination port.
    pub dport: u16,
    /// Row of map `backends` in the lower 17 bits, and above them the row's generation.
    pub backend: u32,
    /// Index of the service.
    pub service: u16,
    /// [`State`].
    pub state: u8,
    /// [`FlowRecord::REPLY`], and how the port was chosen.
    pub flags: u8,
    /// When the last packet came ([`SEEN_SHIFT`]).
    pub seen: u32,
    /// TCP: the last acknowledgement number of this direction, with which the other can be reset; 0: not known.
    pub acknowledged: u32,
    /// Forward, TCP, not confirmed: the backend's first sequence number, once it has answered.
    pub sequence: u32,
    /// Packets of this direction.
    #[cfg(not(feature = "trial-flow-layout"))]
    pub packets: u64,
    /// Their bytes, headers of the network layer included.
    #[cfg(not(feature = "trial-flow-layout"))]
    pub bytes: u64,
    /// [`FLOW_LAYOUT`] of who entered it.
    pub layout: u32,
    /// In the layout that tests change to: how often the record was migrated.
    #[cfg(feature = "trial-flow-layout")]
    pub migrations: u32,
    /// Zero, for a later layout.
    #[cfg(not(feature = "trial-flow-layout"))]
    pub spare: u32,
}

impl FlowRecord {
    /// The entry of packets from the backend.
    pub const REPLY: u8 = 1;
    /// The client gets another port from the start: others use its source address, too.
    pub const SHARED_SOURCE: u8 = 2;
    /// The client gets another port if one is to be had: sockets of this host, whose other connections no program sees, use
    /// its address too.
    pub const HOST_SOURCE: u8 = 4;

    /// [`service`](Self::service) of a connection straight to a backend, which has an entry only because its port had to
    /// become another.
    pub const DIRECT: u16 = u16::MAX;

    /// Whether [`migrate`](Self::migrate) knows its layout: this one or the one before.
    #[inline(always)]
    pub const fn is_known(&self) -> bool {
        self.layout == FLOW_LAYOUT || self.layout + 1 == FLOW_LAYOUT && self.layout > 0
    }

    /// Makes a record of a former table one of this layout.
    #[inline(always)]
    pub fn migrate(&mut self) {
        #[cfg(feature = "trial-flow-layout")]
        if self.layout != FLOW_LAYOUT {
            let words: &mut [u64; 7] = bytemuck::cast_mut(self);
            let [addresses, ports, state, numbers, packets, bytes, layout] = *words;
            *words = [packets, bytes, addresses, ports, state, numbers, layout];
            self.layout = FLOW_LAYOUT;
            self.migrations = 1;
        }
    }

    const ROW_BITS: u32 = 17;

    /// [`backend`](Self::backend) of a row in one of its generations.
    #[inline(always)]
    pub const fn backend_of(row: u32, generation: u32) -> u32 {
        row & ((1 << Self::ROW_BITS) - 1) | generation << Self::ROW_BITS
    }

    /// Row of map `backends` of a value of [`backend`](Self::backend).
    #[inline(always)]
    pub const fn row_of(backend: u32) -> u32 {
        backend & ((1 << Self::ROW_BITS) - 1)
    }
}

/// A [`FlowRecord`] in its table, where programs on several CPUs change it.
#[derive(Clone, Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "field by field a FlowRecord")]
pub struct LiveFlow {
    #[cfg(feature = "trial-flow-layout")]
    pub packets: Cell<u64>,
    #[cfg(feature = "trial-flow-layout")]
    pub bytes: Cell<u64>,
    pub src: Cell<u32>,
    pub dst: Cell<u32>,
    pub sport: Cell<u16>,
    pub dport: Cell<u16>,
    pub backend: Cell<u32>,
    pub service: Cell<u16>,
    pub state: Cell<u8>,
    pub flags: Cell<u8>,
    pub seen: Cell<u32>,
    pub acknowledged: Cell<u32>,
    pub sequence: Cell<u32>,
    #[cfg(not(feature = "trial-flow-layout"))]
    pub packets: Cell<u64>,
    #[cfg(not(feature = "trial-flow-layout"))]
    pub bytes: Cell<u64>,
    pub layout: Cell<u32>,
    #[cfg(feature = "trial-flow-layout")]
    pub migrations: Cell<u32>,
    #[cfg(not(feature = "trial-flow-layout"))]
    pub spare: Cell<u32>,
}

/// Key of map `fragments`: what the fragments of a packet have in common (RFC 791, section 3.2), before translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Identification.
    pub id: [u8; 2],
    /// Protocol.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Value of map `fragments`: the addresses that the first fragment got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentRecord {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// When ([`SEEN_SHIFT`]).
    pub seen: u32,
}

/// Packets of which fragments may still come.
pub const FRAGMENTED_PACKETS: u32 = 16_384;

/// Value of map `refusals`, keyed by the client's address: how many ICMP errors it was sent of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RefusalRecord {
    /// The second that is counted: the coarse clock ([`SEEN_SHIFT`]) shifted right by ten.
    pub second: u32,
    /// Errors in it.
    pub sent: u32,
}

/// Clients whose refusals are counted.
pub const REFUSED_CLIENTS: u32 = 16_384;
/// ICMP errors a second that a client is refused with at most.
pub const REFUSALS_PER_SECOND: u32 = 100;

/// How far a flow has come; the value of [`FlowRecord::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The client alone has spoken.
    New = 0,
    /// The backend has answered; TCP: the client has not acknowledged it.
    Answered = 1,
    /// TCP: the handshake is complete. UDP: the backend has answered.
    Established = 2,
    /// TCP: this side will send no more, the other one may.
    Closing = 3,
    /// TCP: a side sent a reset, which a later segment shows to have been forged.
    Reset = 4,
    /// TCP: neither side will send any more.
    Closed = 5,
}

const _: () = {
    assert!(FlowTable::confirmed(PROTO_TCP) == FlowTable::Flows as u32);
    assert!(FlowTable::confirmed(PROTO_UDP) == FlowTable::Datagrams as u32);
    assert!(size_of::<FlowKey>() == 16);
    assert!(size_of::<FragmentKey>() == 12 && size_of::<FragmentRecord>() == 12);
    assert!(size_of::<FlowRecord>() == 56 && size_of::<LiveFlow>() == 56);
    assert!(offset_of!(FlowRecord, layout) == 48);
    assert!(offset_of!(LiveFlow, seen) == offset_of!(FlowRecord, seen));
};
