//! How full the flow tables are.

use serde::Serialize;

use crate::kernel::bpf::{FlowCount, FlowRoom};

/// The flow tables; the field names are the stable keys of the JSON. All are entries, of which a flow has two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlowsState {
    /// Room of the table of established connections.
    pub capacity: u32,
    /// What it held when the agent walked over it last; absent without an agent.
    pub held: Option<u64>,
    /// Estimate of those that the kernel has evicted for want of room.
    pub evicted: Option<u64>,
    /// Room of the table of flows of datagrams that were answered.
    pub datagrams_capacity: u32,
    /// What that held.
    pub datagrams: Option<u64>,
    /// Estimate of those that the kernel has evicted from it.
    pub datagrams_evicted: Option<u64>,
    /// Room of the table of flows that are not established yet.
    pub unconfirmed_capacity: u32,
    /// What that held.
    pub unconfirmed: Option<u64>,
    /// Estimate of those that the kernel has evicted from it.
    pub unconfirmed_evicted: Option<u64>,
}

impl FlowsState {
    pub(super) fn new(room: FlowRoom, count: Option<FlowCount>) -> Self {
        Self {
            capacity: room.flows,
            held: count.map(|count| count.flows),
            evicted: count.map(|count| count.evicted),
            datagrams_capacity: room.datagrams,
            datagrams: count.map(|count| count.datagrams),
            datagrams_evicted: count.map(|count| count.datagrams_evicted),
            unconfirmed_capacity: room.unconfirmed,
            unconfirmed: count.map(|count| count.unconfirmed),
            unconfirmed_evicted: count.map(|count| count.unconfirmed_evicted),
        }
    }
}
