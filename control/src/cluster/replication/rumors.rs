//! Changes that go round.

use std::{collections::BTreeMap, time::Duration};

use crate::cluster::log::{Name, Segment, Version};

/// How long pushes are gathered while there are many.
const GATHER: Duration = Duration::from_millis(20);
/// When versions are told after a push, twice.
const AFTER: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(250)];
/// Origins whose changes go round at most; those of others are found by digests.
const ORIGINS: usize = 4_096;

/// Changes that go round: pushed once, and told of twice.
#[derive(Debug, Default)]
pub(super) struct Rumors {
    /// To be pushed, by origin: a later one continues the earlier one, or is asked for.
    fresh: BTreeMap<Name, Segment>,
    /// When the last ones were pushed.
    pushed: Option<Duration>,
    /// Told of: version, when next, how often already.
    told: BTreeMap<Name, (Version, Duration, usize)>,
}

impl Rumors {
    /// Something new.
    pub(super) fn add(&mut self, segment: Segment) {
        let origin = segment.signed.head.origin.clone();
        if self.fresh.len() < ORIGINS || self.fresh.contains_key(&origin) {
            self.fresh.insert(origin, segment);
        }
    }

    /// What is to be pushed now.
    pub(super) fn take_fresh(&mut self, now: Duration) -> Vec<Segment> {
        if self.fresh.is_empty() || self.pushed.is_some_and(|last| now < last + GATHER) {
            return Vec::new();
        }
        self.pushed = Some(now);
        let fresh = std::mem::take(&mut self.fresh);
        for (origin, segment) in &fresh {
            if self.told.len() < ORIGINS || self.told.contains_key(origin) {
                self.told.insert(origin.clone(), (segment.signed.head.version, now + AFTER[0], 0));
            }
        }
        fresh.into_values().collect()
    }

    /// Versions that are to be told of now.
    pub(super) fn take_told(&mut self, now: Duration) -> Vec<(Name, Version)> {
        let mut due = Vec::new();
        self.told.retain(|origin, (version, next, times)| {
            if *next > now {
                return true;
            }
            due.push((origin.clone(), *version));
            *times += 1;
            let after = AFTER.get(*times).map(|after| *after - AFTER[*times - 1]);
            *next = now + after.unwrap_or_default();
            after.is_some()
        });
        due
    }

    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let push = self.pushed.map_or(Duration::ZERO, |last| last + GATHER);
        let push = (!self.fresh.is_empty()).then_some(push);
        self.told.values().map(|(_, next, _)| *next).chain(push).min()
    }
}
