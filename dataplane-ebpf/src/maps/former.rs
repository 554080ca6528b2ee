//! Flow tables that others replaced, because these are larger or of the next layout. A flow leaves them with its next
//! packet; the agent brings over what is silent.

use dataplane_common::{
    abi::{FlowKey, FlowRecord, FlowTable, LiveFlow},
    codegen::cold_path,
};

use super::flows::{BPF_NOEXIST, FLOW_TABLES, FORMER_FLOW_TABLES, entry, words};

/// Brings what a former table holds under a key over to the present ones; says whether there are former tables.
#[inline(always)]
pub(super) fn migrate(key: &FlowKey) -> bool {
    let are_there = are_there();
    if are_there {
        cold_path();
        from_either(key);
    }
    are_there
}

/// Whether there are former tables.
#[inline(always)]
pub(super) fn are_there() -> bool {
    FORMER_FLOW_TABLES.get(FlowTable::Flows as u32).is_some()
}

/// A function of its own: what is hardly ever there shall take no room in the programs.
#[inline(never)]
fn from_either(key: &FlowKey) {
    if take(FlowTable::confirmed(key.protocol), key).is_some() {
        return;
    }
    // An answer is noted with the client's entry, which has to be there by then.
    if let Some(unconfirmed) = take(FlowTable::Unconfirmed as u32, key)
        && unconfirmed.flags & FlowRecord::REPLY != 0
    {
        take(FlowTable::Unconfirmed as u32, &LiveFlow::new(unconfirmed).rewrite().answered(key.protocol));
    }
}

/// Moves an entry, which was counted when it was made. Where there is one already, both stay: for a moment the former table
/// is still the present one, too.
#[inline(always)]
fn take(number: u32, key: &FlowKey) -> Option<&'static FlowRecord> {
    let former = FORMER_FLOW_TABLES.get(number)?;
    let present = FLOW_TABLES.get(number)?;
    // SAFETY: copied at once; a change by another processor meanwhile loses a count or repeats a state.
    let record = entry(unsafe { &*former.get_ptr(key)?.cast::<FlowRecord>() })?;
    if !record.is_known() {
        return None;
    }
    record.migrate();
    if present.insert(key, words(record), BPF_NOEXIST).is_ok() {
        // Gone already is as good.
        let _ = former.remove(key);
    }
    Some(record)
}
