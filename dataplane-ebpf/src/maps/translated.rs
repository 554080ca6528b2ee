//! The flows that the host's connection tracking translates.

use aya_ebpf::{
    macros::map,
    maps::{Array, LruHashMap},
};
use dataplane_common::abi::{
    Config, FlowKey, SEEN_STEP, TRANSLATED_FLOWS, TRANSLATED_SLOTS, idle, translated_life, translated_slot,
};

use super::CONFIG;

/// Key of a flow's answers → when one of its packets came last. Written by the programs.
#[map(name = "translated")]
static TRANSLATED: LruHashMap<FlowKey, u32> = LruHashMap::with_max_entries(TRANSLATED_FLOWS, 0);

/// Slot of what answers → not 0 where there may be such a flow. Written by the programs.
#[map(name = "translated_slots")]
static SLOTS: Array<u32> = Array::with_max_entries(TRANSLATED_SLOTS, 0);

/// Whether there may be a flow that is answered from an address and port.
#[inline(always)]
pub(super) fn may_be(address: u32, port: u16, protocol: u8) -> bool {
    SLOTS.get(translated_slot(address, port, protocol)).is_some_and(|slot| *slot != 0)
}

/// Whether there is a flow whose answers have this key. A packet of either side keeps it.
#[inline(always)]
pub(super) fn holds(key: &FlowKey, now: u32) -> bool {
    let Some(seen) = TRANSLATED.get_ptr_mut(key) else { return false };
    // SAFETY: a valid element until the program has ended; one aligned 4-byte load.
    let age = idle(unsafe { seen.read_volatile() }, now);
    if age > translated_life(key) {
        return false;
    }
    if age > SEEN_STEP {
        // SAFETY: as above, and a store. Another processor stores the same moment.
        unsafe { seen.write_volatile(now) };
    }
    true
}

/// Remembers a flow by the key of its answers. The slot is set last: without it nobody looks.
#[inline(always)]
pub(super) fn note(key: &FlowKey, now: u32) {
    // Where there is no room, the answers go past the stack.
    let _ = TRANSLATED.insert(key, now, 0);
    if let Some(slot) = SLOTS.get_ptr_mut(translated_slot(key.src, key.sport, key.protocol)) {
        // SAFETY: a valid element; one aligned 4-byte store.
        unsafe { slot.write_volatile(1) };
    }
    if let Some(config) = CONFIG.get_ptr_mut(0) {
        // SAFETY: a valid element; a store of the one byte that is the programs'.
        unsafe {
            (&raw mut (*config).detours).cast::<u8>().write_volatile(Config::TRANSLATED.to_ne_bytes()[0])
        };
    }
}
