//! The wall clocks of members, and what was heard of each last.

use std::{collections::BTreeMap, time::Duration};

use crate::cluster::{
    Moment,
    identity::{Identity, NamePlace},
};

/// How far a clock may be from the median of the members'.
pub(super) const MAX_SKEW_MS: i64 = 60_000;

/// How long a word of a member's clock counts, in seconds.
const FRESH_S: u32 = 120;

/// How much older than the newest word of its sender a datagram may be, in milliseconds.
const REPLAY_MS: u64 = 60_000;

/// What was heard of a member last: 24 bytes, because a node hears thousands.
struct Heard {
    uptime: u64,
    base: i64,
    /// The life that was heard: half of its digest.
    life: u32,
    /// When, in seconds.
    at: u32,
}

fn life(sender: &Identity) -> u32 {
    sender.digest() as u32
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// A clock's *base* is what it showed when this node started, in milliseconds since 1970: the wall time less the time since
/// then. It stays the same while a clock runs, and a jump of the own clock moves no other's.
#[derive(Default)]
pub(super) struct Clocks {
    heard: BTreeMap<NamePlace, Heard>,
    /// The median base of the members that were heard of late, the own one included.
    median: Option<i64>,
    /// Members whose clocks are far off.
    skewed: BTreeMap<NamePlace, i64>,
}

/// A member's clock went far off, or came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SkewChange {
    /// With the milliseconds that it is ahead.
    Far(NamePlace, i64),
    Near(NamePlace),
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn base(wall: u64, now: Duration) -> i64 {
    let wall = i64::try_from(wall).unwrap_or(i64::MAX);
    wall.saturating_sub_unsigned(milliseconds(now))
}

impl Clocks {
    fn median(&self, at: Moment) -> i64 {
        self.median.unwrap_or_else(|| base(at.wall, at.now))
    }

    /// The members' wall time in milliseconds since 1970.
    pub(super) fn wall(&self, at: Moment) -> u64 {
        let now = self.median(at).saturating_add_unsigned(milliseconds(at.now));
        u64::try_from(now).unwrap_or(0)
    }

    /// Whether a wall clock agrees with the members'.
    pub(super) fn agrees(&self, at: Moment, wall: u64) -> bool {
        base(wall, at.now).saturating_sub(self.median(at)).saturating_abs() <= MAX_SKEW_MS
    }

    /// Whether a wall clock agrees with what was heard of the same name before, in this life or another.
    pub(super) fn agrees_with_itself(&self, at: Moment, sender: &Identity, wall: u64) -> bool {
        let heard = self.heard.get(&sender.place());
        heard.is_some_and(|heard| {
            base(wall, at.now).saturating_sub(heard.base).saturating_abs() <= MAX_SKEW_MS
        })
    }

    /// Whether a datagram was sent long before the newest one of its sender.
    pub(super) fn is_replay(&self, sender: &Identity, uptime: u64) -> bool {
        let heard = self.heard.get(&sender.place()).filter(|heard| heard.life == life(sender));
        heard.is_some_and(|heard| uptime.saturating_add(REPLAY_MS) < heard.uptime)
    }

    pub(super) fn hear(&mut self, at: Moment, sender: &Identity, uptime: u64, wall: u64) {
        let newest = self.heard.get(&sender.place()).filter(|heard| heard.life == life(sender));
        let uptime = newest.map_or(uptime, |heard| heard.uptime.max(uptime));
        let heard = Heard { uptime, base: base(wall, at.now), life: life(sender), at: seconds(at.now) };
        self.heard.insert(sender.place(), heard);
    }

    pub(super) fn forget(&mut self, place: NamePlace) {
        self.heard.remove(&place);
        self.skewed.remove(&place);
    }

    pub(super) fn skewed(&self) -> impl Iterator<Item = (NamePlace, i64)> {
        self.skewed.iter().map(|(place, ahead)| (*place, *ahead))
    }

    /// Takes the median anew, and says what changed.
    pub(super) fn refresh(&mut self, at: Moment) -> Vec<SkewChange> {
        let fresh =
            self.heard.iter().filter(|(_, heard)| heard.at.saturating_add(FRESH_S) >= seconds(at.now));
        let fresh: Vec<(NamePlace, i64)> = fresh.map(|(place, heard)| (*place, heard.base)).collect();
        let mut bases: Vec<i64> = fresh.iter().map(|(_, base)| *base).collect();
        bases.push(base(at.wall, at.now));
        let middle = bases.len() / 2;
        let median = *bases.select_nth_unstable(middle).1;
        self.median = Some(median);
        let ahead = fresh.into_iter().map(|(place, base)| (place, base.saturating_sub(median)));
        let far: BTreeMap<NamePlace, i64> =
            ahead.filter(|(_, ahead)| ahead.saturating_abs() > MAX_SKEW_MS).collect();
        let gone = self.skewed.keys().filter(|place| !far.contains_key(place));
        let mut changes: Vec<SkewChange> = gone.map(|place| SkewChange::Near(*place)).collect();
        let new = far.iter().filter(|(place, _)| !self.skewed.contains_key(place));
        changes.extend(new.map(|(place, ahead)| SkewChange::Far(*place, *ahead)));
        self.skewed = far;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::identity::{NodeName, PublicKey};

    const START: u64 = 1_795_242_852_000;
    const DAY: u64 = 86_400_000;

    fn node(number: u8) -> Identity {
        let name = NodeName::new(&format!("n{number}")).unwrap();
        Identity::new(name, "10.0.0.1:7481".parse().unwrap(), 1, PublicKey([number; 32]))
    }

    fn moment(seconds: u64, wall: u64) -> Moment {
        Moment { now: Duration::from_secs(seconds), wall }
    }

    fn heard(own: u64, others: &[u64]) -> (Clocks, Vec<SkewChange>) {
        let mut clocks = Clocks::default();
        for (number, wall) in (0..).zip(others) {
            clocks.hear(moment(0, own), &node(number), 0, *wall);
        }
        let changes = clocks.refresh(moment(0, own));
        (clocks, changes)
    }

    #[test]
    fn the_clock_that_is_far_from_the_median_is_told_once() {
        let (mut clocks, changes) = heard(START, &[START + 100, START - 100, START + DAY]);
        let place = node(2).place();
        let [SkewChange::Far(far, ahead)] = changes[..] else { panic!("{changes:?}") };
        assert!(far == place && ahead.abs_diff(DAY as i64) < 1_000, "{ahead}");
        assert_eq!(clocks.refresh(moment(1, START + 1_000)), []);
        clocks.hear(moment(2, START + 2_000), &node(2), 2_000, START + 2_000);
        assert_eq!(clocks.refresh(moment(2, START + 2_000)), [SkewChange::Near(place)]);
    }

    #[test]
    fn a_node_whose_own_clock_is_off_takes_the_members_time() {
        let (clocks, changes) = heard(START - DAY, &[START, START + 10, START + 20]);
        assert_eq!(changes, []);
        let wall = clocks.wall(moment(5, START - DAY + 5_000));
        assert!(wall.abs_diff(START + 5_000) < 100, "{wall}");
    }

    #[test]
    fn a_jump_of_the_own_clock_makes_nobody_skewed() {
        let (mut clocks, _) = heard(START, &[START, START, START]);
        assert_eq!(clocks.refresh(moment(1, START + 1_000 + DAY)), []);
        assert!(clocks.agrees(moment(1, START + 1_000 + DAY), START + 1_000));
    }

    #[test]
    fn a_datagram_of_a_minute_ago_is_a_replay_until_the_next_life() {
        let mut clocks = Clocks::default();
        clocks.hear(moment(100, START), &node(1), 100_000, START);
        assert!(clocks.is_replay(&node(1), 39_999) && !clocks.is_replay(&node(1), 40_000));
        assert!(!clocks.is_replay(&node(1).renewed(2, node(1).address()), 0));
    }
}
