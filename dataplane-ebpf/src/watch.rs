//! What somebody who watches is told: of new flows, of drops and of refusals. While nobody does, each costs one load.

use core::{ffi::c_void, mem::transmute};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_md},
    helpers::{bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_xdp_load_bytes},
    macros::map,
    maps::{Array, PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use dataplane_common::{
    abi::{
        FlowKey, FlowRecord, LiveFlow, TRACE_EVENTS_PER_SECOND, TRACE_HEAD, TRACE_RING_BYTES, TraceEvent,
        TracePace, Watch,
    },
    codegen::cold_path,
    decide::Tag,
    outcome::{Hook, Outcome},
    tunnel,
    wire::{ETH_LEN, IPV4_LEN, TAG_LEN},
};

use crate::{
    maps,
    packet::{EarlyFrame, Frame},
};

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
        cold_path();
        tell_of_flow(key, forward);
    }
}

/// A packet comes to an end. Call it before the packet is changed.
#[inline(always)]
pub fn end(frame: &Frame, hook: Hook, outcome: Outcome) {
    if may_be_on() {
        cold_path();
        tell_of_end(frame.as_ptr(), hook as u32, outcome as u32);
    }
}

/// The same of a packet that is no `skb` yet.
#[inline(always)]
pub fn early_end(frame: &EarlyFrame, hook: Hook, outcome: Outcome) {
    if may_be_on() {
        cold_path();
        tell_of_early_end(frame.as_ptr(), hook as u32, outcome as u32);
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
    put(&mut entry, TraceEvent::of_flow(time, key, &forward.record()));
    entry.submit(BPF_RB_NO_WAKEUP);
}

#[inline(never)]
fn tell_of_end(skb: *const c_void, hook: u32, outcome: u32) {
    // SAFETY: the context of this program, and `to` is writable for so many bytes.
    tell(hook, outcome, 0, |at, to, len| unsafe { bpf_skb_load_bytes(skb, at, to, len) });
}

#[inline(never)]
fn tell_of_early_end(md: *mut xdp_md, hook: u32, outcome: u32) {
    // SAFETY: as above.
    let load = |at, to, len| unsafe { bpf_xdp_load_bytes(md, at, to, len) };
    let mut words = [0_u16; 2];
    load(ETH_LEN as u32 - 2, words.as_mut_ptr().cast(), size_of::<[u16; 2]>() as u32);
    let is_tagged = Tag::of_words(words) as u32 == Tag::Priority as u32;
    tell(hook, outcome, if is_tagged { TAG_LEN as u32 } else { 0 }, load);
}

/// Tells of a packet that has so many bytes of tags; `load` copies bytes at an offset, unless the packet ends before.
#[inline(always)]
fn tell(hook: u32, outcome: u32, tags: u32, load: impl Fn(u32, *mut c_void, u32) -> i64) {
    let Some((mut entry, time)) = room() else { return };
    let traced = put(&mut entry, TraceEvent::of_end(time, hook as u8, outcome as u8));
    let start = ETH_LEN as u32 + tags;
    load_head(&load, start, &mut traced.head);
    if traced.head[PROTOCOL] == tunnel::PROTOCOL {
        load_head(&load, start + tunnel::OVERHEAD as u32, &mut traced.head);
    }
    entry.submit(BPF_RB_NO_WAKEUP);
}

/// Offset of the protocol in an IPv4 header.
const PROTOCOL: usize = 9;

/// Copies the start of a network header with the ports behind it, or where there are none the header alone.
#[inline(always)]
fn load_head(load: impl Fn(u32, *mut c_void, u32) -> i64, offset: u32, head: &mut [u8; TRACE_HEAD]) {
    let to: *mut c_void = head.as_mut_ptr().cast();
    if load(offset, to, TRACE_HEAD as u32) != 0 {
        load(offset, to, IPV4_LEN as u32);
    }
}

/// Writes a trace event into its room, word by word ([rule 5](dataplane_common::codegen)).
#[inline(always)]
fn put(entry: &mut RingBufEntry<TraceEvent>, event: TraceEvent) -> &mut TraceEvent {
    const WORDS: usize = size_of::<TraceEvent>() / size_of::<u64>();
    // SAFETY: a structure without padding, whose size and alignment are these words'.
    let words: [u64; WORDS] = unsafe { transmute(event) };
    let room = entry.as_mut_ptr();
    for (index, word) in words.into_iter().enumerate() {
        // SAFETY: the room has that many words.
        unsafe { room.cast::<u64>().add(index).write_volatile(word) };
    }
    // SAFETY: every byte is written.
    unsafe { &mut *room }
}

/// Room for a trace event of this moment, unless nobody watches any more or this processor has told of enough.
#[inline(always)]
fn room() -> Option<(RingBufEntry<TraceEvent>, u64)> {
    let now = maps::now();
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
        pace.missed += 1;
        return None;
    };
    pace.told += 1;
    // SAFETY: reads the clock.
    Some((entry, unsafe { bpf_ktime_get_ns() }))
}
