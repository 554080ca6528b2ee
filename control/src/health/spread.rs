//! When checks start, and by how much their spacing varies.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// By how much a spacing varies, up and down.
const JITTER: f64 = 0.1;

/// A part of an interval that numbers in a row spread over evenly, however many there are: that of the golden ratio.
const STRIDE: f64 = 0.618_033_988_749_894_9;

/// Starts and spacings of checks: the first check after a rest is due at once, and others that come with it spread over one
/// interval.
#[derive(Debug)]
pub(super) struct Spread {
    random: StdRng,
    /// How many have started since there was nothing to start for an interval.
    started: u64,
    /// Until when what starts is spread with those before.
    until: Duration,
}

impl Spread {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), started: 0, until: Duration::ZERO }
    }

    /// When a check that comes now is due first.
    pub(super) fn first(&mut self, interval: Duration, now: Duration) -> Duration {
        if now >= self.until {
            self.started = 0;
        }
        self.until = self.until.max(now + interval);
        let part = (self.started as f64 * STRIDE).fract();
        self.started += 1;
        now + interval.mul_f64(part)
    }

    /// A spacing of this length, more or less.
    pub(super) fn vary(&mut self, spacing: Duration) -> Duration {
        spacing.mul_f64(self.random.random_range(1.0 - JITTER..=1.0 + JITTER))
    }
}
