//! Changes that go round.

use std::{collections::BTreeMap, time::Duration};

use crate::cluster::log::{Name, Segment, Version};

/// How long pushes are gathered while there are many.
const GATHER: Duration = Duration::from_millis(20);
/// When a version is told after it was pushed, in milliseconds.
const AFTER_MS: [u64; 3] = [100, 250, 600];
/// Versions are told at multiples of this, so that many go into one datagram.
const GRID_MS: u64 = 50;
/// Origins whose changes go round at most; those of others are found by digests.
const ORIGINS: usize = 4_096;

/// Changes that go round: pushed once, and told of three times.
#[derive(Debug, Default)]
pub(super) struct Rumors {
    /// To be pushed, by origin: a later one continues the earlier one, or is asked for.
    fresh: BTreeMap<Name, Segment>,
    /// When the last ones were pushed.
    pushed: Option<Duration>,
    /// Told of: version, when it was pushed, how often it was told.
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
                self.told.insert(origin.clone(), (segment.signed.head.version, now, 0));
            }
        }
        fresh.into_values().collect()
    }

    /// Versions that are to be told of now.
    pub(super) fn take_told(&mut self, now: Duration) -> Vec<(Name, Version)> {
        let mut due = Vec::new();
        self.told.retain(|origin, (version, pushed, times)| {
            if next(*pushed, *times).is_some_and(|next| next > now) {
                return true;
            }
            due.push((origin.clone(), *version));
            *times += 1;
            *times < AFTER_MS.len()
        });
        due
    }

    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let push = self.pushed.map_or(Duration::ZERO, |last| last + GATHER);
        let push = (!self.fresh.is_empty()).then_some(push);
        self.told.values().filter_map(|(_, pushed, times)| next(*pushed, *times)).chain(push).min()
    }
}

/// When a version is told next that was pushed then and was told so often; `None`: no more.
fn next(pushed: Duration, times: usize) -> Option<Duration> {
    let due = pushed + Duration::from_millis(*AFTER_MS.get(times)?);
    let ms = due.as_millis() as u64;
    Some(Duration::from_millis(ms.next_multiple_of(GRID_MS)))
}
