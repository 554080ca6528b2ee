//! Another layout of flow records than the product's, for the test of an upgrade: both counts come first, and a field is new.
//! It takes the place of `dataplane-common/src/abi/flow_record.rs` in a build with feature `trial-flow-layout`.

use core::cell::Cell;

use bytemuck::{Pod, Zeroable};

/// The one after the product's.
pub const FLOW_LAYOUT: u32 = 2;

flow_record! {
    /// Packets of this direction.
    packets: u64,
    /// Their bytes, headers of the network layer included.
    bytes: u64,
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
    /// [`FLOW_LAYOUT`] of who entered it.
    layout: u32,
    /// How often the record was migrated.
    migrations: u32,
    ;
}

impl FlowRecord {
    /// Makes a record of the product's layout one of this.
    #[inline(always)]
    pub fn migrate(&mut self) {
        if self.layout != FLOW_LAYOUT {
            let words: &mut [u64; 7] = bytemuck::cast_mut(self);
            let [addresses, ports, state, numbers, packets, bytes, layout] = *words;
            *words = [packets, bytes, addresses, ports, state, numbers, layout];
            self.layout = FLOW_LAYOUT;
            self.migrations = 1;
        }
    }
}
