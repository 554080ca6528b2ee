//! The layout of flow records.

use core::cell::Cell;

use bytemuck::{Pod, Zeroable};

/// Number of the layout of [`FlowRecord`], which grows with every change of it: the flows of the layout before go on
/// ([`FlowRecord::migrate`]). The size stays, and so does the place of [`FlowRecord::layout`].
pub const FLOW_LAYOUT: u32 = 1;

flow_record! {
    /// The source that the packet gets.
    src: u32,
    /// Its destination. Forward: the backend. Reply: the client.
    dst: u32,
    /// Its source port.
    sport: u16,
    /// Its destination port.
    dport: u16,
    /// Row of map `backends` in the lower 17 bits, and above them the row's generation.
    backend: u32,
    /// Index of the service.
    service: u16,
    /// [`State`](crate::abi::State).
    state: u8,
    /// [`FlowRecord::REPLY`], and how the port was chosen.
    flags: u8,
    /// When the last packet came ([`SEEN_SHIFT`](crate::abi::SEEN_SHIFT)).
    seen: u32,
    /// TCP: the last acknowledgement number of this direction, with which the other can be reset; 0: not known.
    acknowledged: u32,
    /// Forward, TCP, not confirmed: the backend's first sequence number, once it has answered.
    sequence: u32,
    /// Packets of this direction.
    packets: u64,
    /// Their bytes, headers of the network layer included.
    bytes: u64,
    /// [`FLOW_LAYOUT`] of who entered it.
    layout: u32,
    ;
    /// For a later layout.
    spare: u32,
}

impl FlowRecord {
    /// Makes a record of a former table one of this layout: the first one has no former.
    #[inline(always)]
    pub fn migrate(&mut self) {}
}
