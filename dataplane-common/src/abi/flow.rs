//! Layout of the flow tables: what was decided at a flow's first packet.
//!
//! Addresses, ports and sequence numbers are as on the wire (network order).

use core::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use crate::wire::{PROTO_TCP, PROTO_UDP};

/// Flows that wait for the backend's answer: two entries each.
pub const UNCONFIRMED_ENTRIES: u32 = 131_072;
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

/// Defines [`FlowRecord`], and [`LiveFlow`] with the same fields; those behind the semicolon are zero, and never read.
macro_rules! flow_record {
    ($($(#[$about:meta])* $field:ident: $kind:ty,)*; $($(#[$spare_about:meta])* $spare:ident: $spare_kind:ty,)*) => {
        /// Value of the flow tables.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
        #[repr(C)]
        pub struct FlowRecord {
            $($(#[$about])* pub $field: $kind,)*
            $($(#[$spare_about])* pub $spare: $spare_kind,)*
        }

        /// A [`FlowRecord`] in its table, where programs on several CPUs change it.
        #[derive(Clone, Debug)]
        #[repr(C)]
        #[expect(missing_docs, reason = "field by field a FlowRecord")]
        pub struct LiveFlow {
            $(pub $field: Cell<$kind>,)*
            $(pub $spare: Cell<$spare_kind>,)*
        }

        impl LiveFlow {
            /// An entry that holds a record.
            pub fn new(record: &FlowRecord) -> Self {
                Self { $($field: Cell::new(record.$field),)* $($spare: Cell::new(0),)* }
            }

            /// Becomes what another one is, field by field.
            #[inline(always)]
            pub fn take(&self, other: &Self) {
                $(self.$field.set(other.$field.get());)*
                $(self.$spare.set(0);)*
            }

            /// What it holds now.
            #[inline(always)]
            pub fn record(&self) -> FlowRecord {
                FlowRecord { $($field: self.$field.get(),)* $($spare: 0,)* }
            }
        }
    };
}

// The test of an upgrade brings a layout of its own.
#[cfg_attr(feature = "trial-flow-layout", path = "../../../tests/later/flow_record.rs")]
#[cfg_attr(not(feature = "trial-flow-layout"), path = "flow_record.rs")]
mod record;

pub use self::record::{FLOW_LAYOUT, FlowRecord, LiveFlow};

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
