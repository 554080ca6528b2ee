//! The wire between nodes.

use std::{collections::BTreeSet, time::Duration};

use rand::{Rng, RngExt as _};

/// How datagrams travel.
#[derive(Clone, Debug)]
pub struct Network {
    /// Shortest and longest way of a datagram.
    pub latency: (Duration, Duration),
    /// Part of the datagrams that are lost.
    pub loss: f64,
    /// Part that arrive twice.
    pub duplicated: f64,
    /// Part that arrive later than those sent after them, by up to ten times the longest way.
    pub reordered: f64,
    /// The side of a partition that each node is on.
    sides: Vec<usize>,
    /// Ways that are cut, from one node to another.
    cut: BTreeSet<(usize, usize)>,
}

impl Network {
    /// A data centre's, for this many nodes.
    pub fn new(nodes: usize) -> Self {
        Self {
            latency: (Duration::from_micros(200), Duration::from_millis(2)),
            loss: 0.0,
            duplicated: 0.001,
            reordered: 0.001,
            sides: vec![0; nodes],
            cut: BTreeSet::new(),
        }
    }

    /// Puts nodes on sides; nothing passes between two sides.
    pub fn split(&mut self, side: impl Fn(usize) -> usize) {
        self.sides = (0..self.sides.len()).map(side).collect();
    }

    /// Nothing passes from one node to the other any more; the way back stays.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Mends all partitions and cuts.
    pub fn mend(&mut self) {
        self.sides.fill(0);
        self.cut.clear();
    }

    pub fn passes(&self, from: usize, to: usize) -> bool {
        self.sides.get(from) == self.sides.get(to) && !self.cut.contains(&(from, to))
    }

    fn way(&self, rng: &mut impl Rng) -> Duration {
        let (shortest, longest) = self.latency;
        shortest + (longest - shortest).mul_f64(rng.random_range(0.0..1.0))
    }

    /// How long each copy of a datagram takes; none when it is lost.
    pub(crate) fn ways(&self, rng: &mut impl Rng) -> Vec<Duration> {
        let copies = 1 + usize::from(self.duplicated > 0.0 && rng.random_bool(self.duplicated));
        let mut ways = Vec::with_capacity(copies);
        for _ in 0..copies {
            if self.loss > 0.0 && rng.random_bool(self.loss) {
                continue;
            }
            let late = self.reordered > 0.0 && rng.random_bool(self.reordered);
            let extra =
                if late { self.latency.1.mul_f64(rng.random_range(0.0..10.0)) } else { Duration::ZERO };
            ways.push(self.way(rng) + extra);
        }
        ways
    }

    /// How long bytes take over a connection, its opening included: lost segments are sent again after 200 ms.
    pub(crate) fn stream_way(&self, rng: &mut impl Rng, bytes: usize) -> Duration {
        let segments = bytes / 1_400 + 4;
        let mut time = self.way(rng) * 4 + Duration::from_nanos(bytes as u64 * 10);
        let lost = (0..segments.min(64)).filter(|_| self.loss > 0.0 && rng.random_bool(self.loss)).count();
        time += Duration::from_millis(200) * u32::try_from(lost.min(10)).unwrap_or(10);
        time
    }
}
