//! Layout of what somebody who watches is told of, and of the flow tables' books.

use bytemuck::{Pod, Zeroable};

use super::{FlowKey, FlowRecord, FlowTable};

/// The one element of map `watch`, memory-mapped by the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Watch {
    /// Trace events are wanted until this moment of the coarse clock ([`SEEN_SHIFT`](super::SEEN_SHIFT)), which whoever wants
    /// them puts off again and again: nobody's death leaves it on. 0: nobody wants any.
    pub until: u32,
    /// Zero.
    pub pad: u32,
    /// Entries that the agent has removed, by [`FlowTable`]: see [`EntryChange`].
    pub removed: [u64; FlowTable::ALL.len()],
    /// Zero.
    pub spare: [u8; 32],
}

impl Watch {
    /// Whether trace events are wanted.
    #[inline(always)]
    pub const fn is_on(&self, now: u32) -> bool {
        // A clock that has passed the moment is up to half of all numbers ahead of it.
        self.until != 0 && self.until.wrapping_sub(now) <= u32::MAX / 2
    }
}

/// Bytes of ring `trace_events`.
pub const TRACE_RING_BYTES: u32 = 256 * 1024;
/// Trace events that a processor tells of in a second.
pub const TRACE_EVENTS_PER_SECOND: u32 = 10_000;

/// Element of map `trace_pace`, one a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TracePace {
    /// The second that is counted: the coarse clock shifted right by ten.
    pub second: u32,
    /// Trace events told of in it.
    pub told: u32,
    /// Trace events that were not told of, ever.
    pub missed: u64,
}

/// Bytes of a packet's network header and what follows it that a [`TraceEvent`] shows: up to the ports.
pub const TRACE_HEAD: usize = 24;

/// What ring `trace_events` carries: a flow began, or a packet came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TraceEvent {
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// New flow: its [`FlowKey`], and zeros. End: the first bytes of the innermost network header, or
    /// zeros where the packet is shorter.
    pub head: [u8; TRACE_HEAD],
    /// New flow: its backend, as on the wire.
    pub address: u32,
    /// New flow: the backend's port, as on the wire.
    pub port: u16,
    /// New flow: index of the service.
    pub service: u16,
    /// [`TraceEvent::FLOW`] or [`TraceEvent::END`].
    pub kind: u8,
    /// End: number of the hook.
    pub hook: u8,
    /// End: number of the outcome.
    pub outcome: u8,
    /// Zero.
    pub spare: [u8; 5],
}

impl TraceEvent {
    /// A service's flow was entered.
    pub const FLOW: u8 = 1;
    /// A packet was dropped or refused.
    pub const END: u8 = 2;

    /// A flow that was entered.
    #[inline(always)]
    pub fn of_flow(time: u64, key: &FlowKey, forward: &FlowRecord) -> Self {
        let mut head = [0; TRACE_HEAD];
        head[..size_of::<FlowKey>()].copy_from_slice(bytemuck::bytes_of(key));
        let FlowRecord { dst: address, dport: port, service, .. } = *forward;
        Self { time, head, address, port, service, kind: Self::FLOW, hook: 0, outcome: 0, spare: [0; 5] }
    }

    /// A packet's end, its head still to be filled in.
    #[inline(always)]
    pub const fn of_end(time: u64, hook: u8, outcome: u8) -> Self {
        let head = [0; TRACE_HEAD];
        Self { time, head, address: 0, port: 0, service: 0, kind: Self::END, hook, outcome, spare: [0; 5] }
    }
}

/// What map `flow_books` counts of each flow table, per processor. Entries that were made and neither removed nor are held any
/// more were evicted by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EntryChange {
    /// Entries made.
    Made = 0,
    /// Entries that the programs removed.
    Removed = 1,
}

impl EntryChange {
    /// Elements of the map.
    pub const COUNT: u32 = 2 * FlowTable::COUNT;

    /// The element of a [`FlowTable`] by its number.
    #[inline(always)]
    pub const fn of(self, table: u32) -> u32 {
        2 * table + self as u32
    }
}

const _: () = {
    assert!(size_of::<Watch>() == 64);
    assert!(size_of::<TracePace>() == 16);
    assert!(size_of::<TraceEvent>() == 48 && size_of::<FlowKey>() <= TRACE_HEAD);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn is_on(until: u32, now: u32) -> bool {
        Watch { until, ..Watch::zeroed() }.is_on(now)
    }

    #[test]
    fn nobody_watches_before_the_first_and_after_the_last_moment() {
        assert!(!is_on(0, 0) && !is_on(0, u32::MAX));
        assert!(is_on(7, 7) && is_on(7, 5) && !is_on(7, 8));
    }

    #[test]
    fn the_clock_may_turn_over_meanwhile() {
        assert!(is_on(3, u32::MAX - 3) && !is_on(u32::MAX - 3, 3));
    }
}
