//! The programs' counters, read from the pinned map as the kernel has it.

use std::{collections::BTreeMap, fmt};

use aya::maps::{Map, MapData, PerCpuArray};
use dataplane_common::{
    abi,
    outcome::{Hook, Outcome},
};

use crate::host::Host;

/// Packets by hook and outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<(&'static str, &'static str), u64>);

impl Counters {
    #[track_caller]
    pub(crate) fn read(host: &Host) -> Self {
        let path = host.path(&format!("/sys/fs/bpf/fanlight/v{}/maps/counters", abi::LAYOUT));
        let map = MapData::from_pin(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let map: PerCpuArray<_, u64> = Map::from_map_data(map)
            .and_then(PerCpuArray::try_from)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut counters = BTreeMap::new();
        for &hook in Hook::ALL {
            for &outcome in Outcome::ALL {
                let values =
                    map.get(&abi::counter_index(hook, outcome), 0).expect("an index below the map's size");
                counters.insert((hook.name(), outcome.name()), values.iter().sum());
            }
        }
        Self(counters)
    }

    /// Packets of one hook and outcome.
    #[track_caller]
    pub fn of(&self, hook: &str, outcome: &str) -> u64 {
        let found = self.0.iter().find(|((h, o), _)| *h == hook && *o == outcome);
        found.map(|(_, packets)| *packets).unwrap_or_else(|| panic!("no counter {hook} {outcome}"))
    }

    /// Packets of one outcome at any hook.
    pub fn total(&self, outcome: &str) -> u64 {
        self.0.iter().filter(|((_, name), _)| *name == outcome).map(|(_, packets)| packets).sum()
    }

    /// What came on top of `before`.
    pub fn since(&self, before: &Self) -> Self {
        let mut grown = self.clone();
        for (key, packets) in &mut grown.0 {
            *packets -= before.0.get(key).copied().unwrap_or_default();
        }
        grown
    }

    /// Hooks and outcomes with at least one packet.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        self.0
            .iter()
            .filter(|(_, packets)| **packets > 0)
            .map(|((hook, outcome), packets)| (*hook, *outcome, *packets))
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|(hook, outcome, packets)| writeln!(f, "{packets:>8}  {hook}  {outcome}"))
    }
}

/// Asserts that these counters grew by exactly so much, and that no other drop was counted.
#[track_caller]
pub fn assert_counted(before: &Counters, after: &Counters, expected: &[(&str, &str, u64)]) {
    let grown = after.since(before);
    for &(hook, outcome, packets) in expected {
        assert_eq!(grown.of(hook, outcome), packets, "{hook} {outcome}; counted was\n{grown}");
    }
    for (hook, outcome, _) in grown.iter() {
        let named = expected.iter().any(|&(h, o, _)| h == hook && o == outcome);
        assert!(named || !outcome.starts_with("drop-"), "unexpected {hook} {outcome}; counted was\n{grown}");
    }
}
