//! One line per packet through aya-log, compiled in by `cargo xtask build-ebpf --log`.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use dataplane_common::outcome::{Hook, Outcome};

/// Logs what became of a packet.
#[inline(always)]
pub fn outcome(ctx: &impl EbpfContext, hook: Hook, outcome: Outcome, length: u32) {
    debug!(ctx, "hook {} outcome {} length {}", hook as u32, outcome as u32, length);
}
