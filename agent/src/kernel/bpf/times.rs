//! How often our programs ran and how long, where the kernel counts that.

use std::{collections::BTreeMap, fs, time::Duration};

use aya::programs::loaded_programs;

use super::Attachment;

/// Whether the kernel counts (`kernel.bpf_stats_enabled`): that costs each run of every program some 20 ns.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Runs of a hook's programs, on all devices, with those that they go on to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// How often.
    pub count: u64,
    /// How long together.
    pub time: Duration,
}

/// The runs of what is attached, by hook; `None` while the kernel counts none.
pub fn runs(attachments: &[Attachment]) -> Option<BTreeMap<&'static str, Runs>> {
    if fs::read_to_string(SWITCH).ok()?.trim() != "1" {
        return None;
    }
    let hooks: BTreeMap<u32, &str> =
        attachments.iter().map(|attachment| (attachment.program_id, attachment.hook.name())).collect();
    let mut runs: BTreeMap<&str, Runs> = hooks.values().map(|&hook| (hook, Runs::default())).collect();
    // A program of others may go while it is looked at.
    for program in loaded_programs().flatten() {
        if let Some(of_hook) = hooks.get(&program.id()).and_then(|hook| runs.get_mut(hook)) {
            of_hook.count += program.run_count();
            of_hook.time += program.run_time();
        }
    }
    Some(runs)
}
