//! Hybrid stamps: the wall clock where it moves on, a count where it does not.
//!
//! After Kulkarni et al., "Logical Physical Clocks" (2014), with one difference: a stamp is later than the writer's own
//! stamps and than what it replaces, not than everything that the writer has heard of. A node whose clock is 59 s ahead
//! then moves the stamps of the keys that it writes, and nobody's clock.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How far a stamp may be ahead of the members' clocks, in milliseconds.
pub const MAX_AHEAD_MS: u64 = 60_000;

/// 2024-01-01 00:00 UTC, in milliseconds since 1970.
const BEGINNING_MS: u64 = 1_704_067_200_000;

/// Bits of the count within a millisecond.
const COUNT_BITS: u32 = 12;

/// When a record was written: 41 bits of milliseconds since 2024 and 12 bits that count within one.
///
/// 53 bits are what a JSON number carries through readers that know only doubles. A count that overflows goes on into
/// the milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp(u64);

impl Stamp {
    /// Before everything that was ever written.
    pub const ZERO: Self = Self(0);

    /// The first stamp of a millisecond since 1970; of what is before 2024, [`Self::ZERO`].
    pub fn at_ms(ms: u64) -> Self {
        Self(ms.saturating_sub(BEGINNING_MS).min(u64::MAX >> COUNT_BITS) << COUNT_BITS)
    }

    /// A stamp by its number.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// As a number, for compare-and-set and for people: later stamps are greater.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Milliseconds since 1970.
    pub fn ms(self) -> u64 {
        (self.0 >> COUNT_BITS) + BEGINNING_MS
    }

    /// The one right after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Whether it is further ahead of the members' clocks than stamps may be; `reference_ms` is the median of their
    /// clocks in milliseconds since 1970.
    pub fn is_ahead_of(self, reference_ms: u64) -> bool {
        self.ms() > reference_ms.saturating_add(MAX_AHEAD_MS)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A node's clock is too far ahead for its stamps to be taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the clock of {node} is {ahead_s} s ahead of the members'; set it, such records are refused beyond 60 s"
)]
pub struct Skewed {
    /// The node that wrote the stamp.
    pub node: String,
    /// Seconds ahead of the members' clocks.
    pub ahead_s: u64,
}

impl Skewed {
    /// A stamp that is too far ahead, and whose.
    pub fn check(node: &str, stamp: Stamp, reference_ms: u64) -> Result<(), Self> {
        if !stamp.is_ahead_of(reference_ms) {
            return Ok(());
        }
        Err(Self { node: node.to_owned(), ahead_s: stamp.ms().saturating_sub(reference_ms) / 1_000 })
    }
}

/// Makes stamps of one node.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// A clock whose next stamp is later than `last`.
    pub fn after(last: Stamp) -> Self {
        Self { last }
    }

    /// A stamp that is later than all that were made before and than `replaced`.
    ///
    /// `wall_ms` is the wall clock in milliseconds since 1970; it may jump.
    pub fn tick(&mut self, wall_ms: u64, replaced: Stamp) -> Stamp {
        self.last = Stamp::at_ms(wall_ms).max(self.last.next()).max(replaced.next());
        self.last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_796_000_000_000;

    #[test]
    fn stamps_follow_the_wall_clock_and_are_counted_while_it_stands_or_jumps_back() {
        let mut clock = Clock::default();
        let first = clock.tick(NOW, Stamp::ZERO);
        assert_eq!(first.ms(), NOW);
        assert_eq!(clock.tick(NOW, Stamp::ZERO), first.next());
        assert_eq!(clock.tick(NOW - 86_400_000, Stamp::ZERO), first.next().next());
        assert_eq!(clock.tick(NOW + 1, Stamp::ZERO), Stamp::at_ms(NOW + 1));
    }

    #[test]
    fn a_stamp_is_later_than_what_it_replaces() {
        let replaced = Stamp::at_ms(NOW + 59_000);
        assert_eq!(Clock::default().tick(NOW, replaced), replaced.next());
    }

    #[test]
    fn a_stamp_may_be_a_minute_ahead_of_the_members_clocks_and_no_more() {
        assert_eq!(Skewed::check("h3", Stamp::at_ms(NOW + 60_000), NOW), Ok(()));
        let refused = Skewed { node: "h3".to_owned(), ahead_s: 60 };
        assert_eq!(Skewed::check("h3", Stamp::at_ms(NOW + 60_001), NOW), Err(refused));
        assert!(!Stamp::at_ms(NOW - 86_400_000).is_ahead_of(NOW));
    }

    #[test]
    fn a_stamp_passes_through_a_double_until_2090() {
        let number = Stamp::at_ms(3_786_912_000_000).number();
        assert!(number < 1 << 53);
    }

    proptest! {
        #[test]
        fn stamps_of_a_clock_grow_whatever_the_wall_clock_does(walls: Vec<u64>, replaced: Vec<u32>) {
            let mut clock = Clock::default();
            let mut last = Stamp::ZERO;
            for (wall, replaced) in walls.into_iter().zip(replaced) {
                let stamp = clock.tick(wall % (1 << 52), Stamp::from_number(replaced.into()));
                prop_assert!(stamp > last);
                last = stamp;
            }
        }
    }
}
