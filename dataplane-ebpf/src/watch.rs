//! What somebody who watches is told: of new flows, of drops and of refusals. While nobody does, each costs one load.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::{bpf_ktime_get_ns, bpf_skb_load_bytes},
    macros::map,
    maps::{Array, PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use dataplane_common::{
    abi::{
        FlowKey, FlowRecord, LiveFlow, TRACE_EVENTS_PER_SECOND, TRACE_HEAD, TRACE_RING_BYTES, TraceEvent,
        TracePace, Watch,
    },
    codegen::off_the_common_way,
    outcome::{Hook, Outcome},
    vip::Services as _,
    wire::{ETH_LEN, IPV4_LEN, PROTO_IPIP},
};

use crate::{maps::Maps, packet::Frame};

/// Whether anybody watches, and until when. Written by the agent through a mapping.
#[map(name = "watch")]
static WATCH: Array<Watch> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What happened. Read by the agent while somebody watches.
#[map(name = "trace_events")]
static TRACE_EVENTS: RingBuf = RingBuf::with_byte_size(TRACE_RING_BYTES, 0);

/// How much of it a processor has told of.
#[map(name = "trace_pace")]
static PACE: PerCpuArray<TracePace> = PerCpuArray::with_max_entries(1, 0);

/// The reader looks by itself, so that telling wakes nobody.
const BPF_RB_NO_WAKEUP: u64 = 1;

/// A service's flow was entered.
#[inline(always)]
pub fn new_flow(key: &FlowKey, forward: &LiveFlow) {
    if may_be_on() && forward.service.get() != FlowRecord::DIRECT {
        off_the_common_way();
        tell_of_flow(key, forward);
    }
}

/// A packet comes to an end. Call it before the packet is changed.
#[inline(always)]
pub fn end(frame: &Frame, hook: Hook, outcome: Outcome) {
    if may_be_on() {
        off_the_common_way();
        tell_of_end(frame.as_ptr(), hook as u32, outcome as u32);
    }
}

#[inline(always)]
fn may_be_on() -> bool {
    WATCH.get(0).is_some_and(|watch| watch.until != 0)
}

/// A function of its own, as the next: what nobody waits for shall take no room in the programs. What it tells is made
/// in the ring, because the programs leave little of the stack.
#[inline(never)]
fn tell_of_flow(key: &FlowKey, forward: &LiveFlow) {
    let Some((mut entry, time)) = room() else { return };
    entry.write(TraceEvent::of_flow(time, key, &forward.record()));
    entry.submit(BPF_RB_NO_WAKEUP);
}

#[inline(never)]
fn tell_of_end(skb: *const c_void, hook: u32, outcome: u32) {
    let Some((mut entry, time)) = room() else { return };
    let traced = entry.write(TraceEvent::of_end(time, hook as u8, outcome as u8));
    load_head(skb, ETH_LEN, &mut traced.head);
    if traced.head[PROTOCOL] == PROTO_IPIP {
        load_head(skb, ETH_LEN + IPV4_LEN, &mut traced.head);
    }
    entry.submit(BPF_RB_NO_WAKEUP);
}

/// Offset of the protocol in an IPv4 header.
const PROTOCOL: usize = 9;

/// Copies the start of a network header with the ports behind it, or where there are none the header alone.
#[inline(always)]
fn load_head(skb: *const c_void, offset: usize, head: &mut [u8; TRACE_HEAD]) {
    let to: *mut c_void = head.as_mut_ptr().cast();
    // SAFETY: the context of this program, and `to` is writable for all these bytes; the kernel clears them where the
    // packet ends before.
    unsafe {
        if bpf_skb_load_bytes(skb, offset as u32, to, TRACE_HEAD as u32) != 0 {
            bpf_skb_load_bytes(skb, offset as u32, to, IPV4_LEN as u32);
        }
    }
}

/// Room for a trace event of this moment, unless nobody watches any more or this processor has told of enough.
#[inline(always)]
fn room() -> Option<(RingBufEntry<TraceEvent>, u64)> {
    let now = Maps.now();
    if !WATCH.get(0).is_some_and(|watch| watch.is_on(now)) {
        return None;
    }
    let pace = PACE.get_ptr_mut(0)?;
    // SAFETY: this processor's element, and a program is not preempted by itself on its processor.
    let pace = unsafe { &mut *pace };
    let second = now >> 10;
    if pace.second != second {
        (pace.second, pace.told) = (second, 0);
    }
    let room = if pace.told < TRACE_EVENTS_PER_SECOND { TRACE_EVENTS.reserve(0) } else { None };
    let Some(entry) = room else {
        pace.untold += 1;
        return None;
    };
    pace.told += 1;
    // SAFETY: reads the clock.
    Some((entry, unsafe { bpf_ktime_get_ns() }))
}
