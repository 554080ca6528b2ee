//! Packets that may not skip the stack, because packet filters of the host's are to see them: what these drop would get past.

use super::{Tables, Verdict};
use crate::{
    abi::Config,
    codegen::cold_path,
    outcome::{Hook, Outcome},
    verdict::{Action, Out, Way},
};

/// The way that a forwarded packet goes: by the stack instead of straight, where filters may drop packets of the fan of the
/// destination; but for what the stack sends, which they have seen. Asked once the packet is translated: before, the verifier would
/// walk all of that for each way.
#[inline(always)]
pub fn honoured<T: Tables>(hook: Hook, out: &Out, tables: &T) -> Way {
    if hook as u32 == Hook::HostEgress as u32 {
        return out.way;
    }
    let Some(config) = tables.config() else { return out.way };
    if config.detours & Config::filtered(out.fan) == 0 {
        return out.way;
    }
    cold_path();
    match out.way {
        // From beyond the overlays it comes to a backend of another host's in the name of this one, which routes nothing of its own.
        Way::Tunnel if hook as u32 == Hook::UplinkIngress as u32 => Way::Tunnel,
        Way::Tunnel | Way::Endpoint => Way::Filtered,
        Way::Decapsulated => Way::DecapsulatedFiltered,
        other => other,
    }
}

/// A verdict with that way.
pub(super) fn honour<T: Tables>(hook: Hook, verdict: Verdict, tables: &T) -> Verdict {
    if verdict.action as u32 != Action::Forward as u32 {
        return verdict;
    }
    let way = honoured(hook, &verdict.out, tables);
    Verdict { outcome: way.outcome(), out: Out { way, ..verdict.out }, ..verdict }
}

/// What a packet is that comes to a bridge's own program with the mark of those that the stack is to have.
#[inline(always)]
pub(super) fn left_to_the_stack(config: &Config) -> Outcome {
    if config.detours & Config::ANY_FILTERED == 0 { Outcome::PassTracked } else { Outcome::PassFiltered }
}
