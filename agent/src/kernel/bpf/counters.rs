//! Map `counters`: packets per hook and outcome.

use aya::maps::{Map, MapData, PerCpuArray};
use dataplane_common::{
    abi::counter_index,
    outcome::{Hook, Outcome},
};

use super::error::{Error, Result};

const NAME: &str = "counters";

/// Reads the counters.
pub(crate) struct CounterMap {
    map: PerCpuArray<MapData, u64>,
}

impl CounterMap {
    pub(super) fn new(data: MapData) -> Result<Self> {
        let map = Map::from_map_data(data).and_then(PerCpuArray::try_from).map_err(Error::map(NAME))?;
        Ok(Self { map })
    }

    /// All counters, summed over the processors.
    pub(crate) fn read(&self) -> Result<Counters> {
        let mut counters = Counters::default();
        for &hook in Hook::ALL {
            self.read_hook(hook, &mut counters)?;
        }
        Ok(counters)
    }

    /// The counters of one hook, the rest as they were.
    pub(crate) fn read_hook(&self, hook: Hook, counters: &mut Counters) -> Result<()> {
        for &outcome in Outcome::ALL {
            let values = self.map.get(&counter_index(hook, outcome), 0).map_err(Error::map(NAME))?;
            counters.packets[hook as usize][outcome as usize] = values.iter().sum();
        }
        Ok(())
    }
}

/// Packets per hook and outcome at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    packets: [[u64; Outcome::COUNT as usize]; Hook::COUNT as usize],
}

impl Default for Counters {
    fn default() -> Self {
        Self { packets: [[0; Outcome::COUNT as usize]; Hook::COUNT as usize] }
    }
}

impl Counters {
    /// Packets that ended at a hook with an outcome.
    pub fn get(&self, hook: Hook, outcome: Outcome) -> u64 {
        self.packets[hook as usize][outcome as usize]
    }

    /// Packets that ended with an outcome, at whatever hook.
    pub fn total(&self, outcome: Outcome) -> u64 {
        Hook::ALL.iter().map(|&hook| self.get(hook, outcome)).sum()
    }

    /// Every counter that is not zero.
    pub fn iter(&self) -> impl Iterator<Item = (Hook, Outcome, u64)> + '_ {
        let pairs =
            Hook::ALL.iter().flat_map(|&hook| Outcome::ALL.iter().map(move |&outcome| (hook, outcome)));
        pairs.map(|(hook, outcome)| (hook, outcome, self.get(hook, outcome))).filter(|&(_, _, n)| n != 0)
    }

    /// What was counted between `earlier` and now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (row, old) in difference.packets.iter_mut().zip(&earlier.packets) {
            for (value, old) in row.iter_mut().zip(old) {
                *value = value.saturating_sub(*old);
            }
        }
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_holds_only_what_was_counted_in_between() {
        let (hook, outcome) = (Hook::UplinkIngress, Outcome::Decapsulated);
        let mut earlier = Counters::default();
        earlier.packets[hook as usize][outcome as usize] = 3;
        let mut later = earlier.clone();
        later.packets[hook as usize][outcome as usize] = 5;
        let difference = later.since(&earlier);
        assert_eq!(difference.iter().collect::<Vec<_>>(), [(hook, outcome, 2)]);
        assert_eq!(difference.total(outcome), 2);
    }
}
