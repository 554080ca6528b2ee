//! When others' packet filters are read again.

use std::time::{Duration, Instant};

use crate::kernel::nft_rules::Ruleset;

/// Between two readings: container engines change rules with every container.
const REST: Duration = Duration::from_secs(5);
/// Changes of iptables beside nf_tables are told to nobody.
const PERIOD: Duration = Duration::from_secs(60);

/// The last reading.
#[derive(Debug, Default)]
pub(super) struct Filters {
    last: Option<Instant>,
    /// Of the ruleset after it.
    generation: Option<u32>,
}

impl Filters {
    /// Whether it is time for the next.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let Some(age) = self.last.map(|last| now.saturating_duration_since(last)) else { return true };
        age >= PERIOD || (age >= REST && generation() != self.generation)
    }

    /// One ended; what was changed by it is seen.
    pub(super) fn read(&mut self, now: Instant) {
        *self = Self { last: Some(now), generation: generation() };
    }
}

/// `None`: the kernel has no nf_tables.
fn generation() -> Option<u32> {
    Ruleset::open().and_then(|ruleset| ruleset.generation()).ok()
}
