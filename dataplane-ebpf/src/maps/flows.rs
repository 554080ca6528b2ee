//! The flow tables, and what is made in them.

use aya_ebpf::{
    btf_maps,
    macros::{btf_map, map},
    maps::{HashMap, PerCpuArray},
};
use dataplane_common::{
    abi::{EntryChange, FlowKey, FlowRecord, FlowTable, LiveFlow},
    codegen::cold_path,
    ct::Draft,
};

/// [`FlowTable`] → the table: the agent makes them, replaces them by larger ones, and sweeps. Written by the programs.
#[btf_map(name = "flow_tables")]
pub(super) static FLOW_TABLES: FlowTables = FlowTables::new();

/// [`FlowTable`] → the table that the present one has replaced, until its flows are brought over; else nothing.
#[btf_map(name = "former_flow_tables")]
pub(super) static FORMER_FLOW_TABLES: FlowTables = FlowTables::new();

type FlowTables = btf_maps::ArrayOfMaps<Flows, { FlowTable::COUNT as usize }>;

/// Of any size, as a map of this shape.
type Flows = btf_maps::LruHashMap<FlowKey, FlowWords, 1>;

/// A [`FlowRecord`]. For a structure Linux 6.1 notes in the type that it has no timer, and takes no map in such a one's place
/// that was made without a type.
type FlowWords = [u64; size_of::<FlowRecord>() / size_of::<u64>()];

/// [`Draft`] → where a program draws an entry up: the stack has little room.
#[map(name = "flow_records")]
static RECORDS: PerCpuArray<FlowRecord> = PerCpuArray::with_max_entries(2, 0);

/// Keys of entries that a processor is about to replace by another flow's. Written by the programs.
#[map(name = "taken_over")]
static TAKEN_OVER: HashMap<FlowKey, u32> = HashMap::with_max_entries(TAKEN_OVER_AT_ONCE, 0);

/// More than there are processors that take over at one moment: one that finds no room tries another port.
const TAKEN_OVER_AT_ONCE: u32 = 1_024;

/// What was made in and removed from them, per CPU. Written by the programs.
#[map(name = "flow_books")]
static BOOKS: PerCpuArray<u64> = PerCpuArray::with_max_entries(EntryChange::COUNT, 0);

/// No entry of the key may be there yet.
pub(super) const BPF_NOEXIST: u64 = 1;

/// An entry that is drawn up.
#[inline(always)]
pub(super) fn draft(of: Draft) -> Option<&'static LiveFlow> {
    let draft = RECORDS.get_ptr_mut(of as u32)?;
    // SAFETY: this processor's element, and a program is not preempted by itself on its processor.
    Some(unsafe { &*draft.cast::<LiveFlow>() })
}

/// Enters a flow into the table of a number, and counts an entry that was not there.
#[inline(always)]
pub(super) fn enter(number: u32, key: &FlowKey, entry: &LiveFlow, replaces: bool) -> bool {
    let Some(table) = FLOW_TABLES.get(number) else { return false };
    let entry = words(entry);
    if table.insert(key, entry, BPF_NOEXIST).is_ok() {
        note(EntryChange::Made, number);
        return true;
    }
    cold_path();
    replaces && table.insert(key, entry, 0).is_ok()
}

/// A record where it may be changed and copied from into a table.
#[inline(always)]
pub(super) fn entry(record: &FlowRecord) -> Option<&'static mut FlowRecord> {
    let room = RECORDS.get_ptr_mut(Draft::Other as u32)?;
    // SAFETY: this processor's element, and a program is not preempted by itself on its processor.
    let room = unsafe { &mut *room };
    *room = *record;
    Some(room)
}

/// A record, or an entry, as the map has it.
#[inline(always)]
pub(super) fn words<T>(record: &T) -> &FlowWords {
    const { assert!(size_of::<T>() == size_of::<FlowRecord>()) };
    // SAFETY: of the same size and alignment, and any record is valid words.
    unsafe { &*core::ptr::from_ref(record).cast() }
}

/// Removes a flow from it, and counts one that was there.
#[inline(always)]
pub(super) fn remove(number: u32, key: &FlowKey) {
    if let Some(table) = FLOW_TABLES.get(number)
        && table.remove(key).is_ok()
    {
        note(EntryChange::Removed, number);
    }
}

/// Does something while no other processor takes over what has a key. That it enters the key here is what the kernel lets only
/// one of them do.
#[inline(always)]
pub(super) fn take_over(key: &FlowKey, does: impl FnOnce() -> bool) -> bool {
    if TAKEN_OVER.insert(key, 0, BPF_NOEXIST).is_err() {
        return false;
    }
    let done = does();
    // It is there: nobody else removes it.
    let _ = TAKEN_OVER.remove(key);
    done
}

/// Counts in the flow tables' books.
#[inline(always)]
fn note(entry: EntryChange, table: u32) {
    if let Some(count) = BOOKS.get_ptr_mut(entry.of(table)) {
        // SAFETY: as in `count`.
        unsafe { *count += 1 }
    }
}

#[inline(always)]
pub(super) fn live(number: u32, key: &FlowKey) -> Option<&'static LiveFlow> {
    let record = FLOW_TABLES.get_value_ptr_mut(number, key)?;
    // SAFETY: a valid element until the program has ended, of a type with the same layout. What other CPUs change
    // meanwhile is read and written in whole aligned fields; a lost count or a repeated state does no harm.
    Some(unsafe { &*record.cast::<LiveFlow>() })
}
