//! When others' packet filters are read again.

use std::time::{Duration, Instant};

use crate::kernel::{iptables, nft_rules::Ruleset};

/// Between two readings: container engines change rules with every container.
const REST: Duration = Duration::from_secs(1);
/// Readings take at most one part in so many of the time.
const SHARE: u32 = 20;
/// A change that was lost would stay unknown.
const PERIOD: Duration = Duration::from_secs(60);
/// Changes of iptables beside nf_tables are told to nobody.
const LEGACY_PERIOD: Duration = Duration::from_secs(10);

/// The last reading.
#[derive(Debug, Default)]
pub(super) struct Filters {
    last: Option<Instant>,
    /// How long it took.
    took: Duration,
    /// Of the ruleset after it.
    generation: Option<u32>,
    /// Rules changed since.
    is_stale: bool,
}

impl Filters {
    /// Rules changed.
    pub(super) fn note(&mut self) {
        self.is_stale = true;
    }

    /// When the next is due, where rules have changed.
    pub(super) fn next_look(&self) -> Option<Instant> {
        Some(self.last? + self.rest()).filter(|_| self.is_stale)
    }

    /// Whether it is time for the next.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let Some(age) = self.last.map(|last| now.saturating_duration_since(last)) else { return true };
        let period = if iptables::has_legacy_tables() { LEGACY_PERIOD.max(self.rest()) } else { PERIOD };
        age >= period || (age >= self.rest() && generation() != self.generation)
    }

    /// One that `began` ended; what was changed by it is seen.
    pub(super) fn read(&mut self, began: Instant, now: Instant) {
        let took = now.saturating_duration_since(began);
        *self = Self { last: Some(now), took, generation: generation(), is_stale: false };
    }

    fn rest(&self) -> Duration {
        REST.max(self.took.saturating_mul(SHARE))
    }
}

/// `None`: the kernel has no nf_tables.
fn generation() -> Option<u32> {
    Ruleset::open().and_then(|ruleset| ruleset.generation()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_rules_are_read_at_once_after_a_rest_and_soon_within_it() {
        let start = Instant::now();
        let mut filters = Filters::default();
        assert!(filters.is_due(start));
        filters.read(start, start);
        assert_eq!(filters.next_look(), None);
        filters.note();
        assert_eq!(filters.next_look(), Some(start + REST));
        assert!(filters.is_due(start + PERIOD));
    }

    #[test]
    fn rules_that_take_long_to_read_are_read_more_rarely() {
        let start = Instant::now();
        let mut filters = Filters::default();
        let end = start + REST;
        filters.read(start, end);
        filters.note();
        assert_eq!(filters.next_look(), Some(end + SHARE * REST));
    }
}
