//! How long records of other nodes were on their way here.

use std::{collections::VecDeque, time::Duration};

use control::cluster::{
    log::{Change, Name},
    state::Wall,
};

/// For how long a way counts.
const WINDOW: u64 = 60;

/// The longest way of each second of the last minute.
#[derive(Debug)]
pub(super) struct Lag {
    /// When this start began, by the wall clock: what was written before came late because this node was not there.
    since_ms: u64,
    longest: VecDeque<(u64, Duration)>,
}

impl Lag {
    pub(super) fn new(since: Wall) -> Self {
        Self { since_ms: since.median_ms, longest: VecDeque::new() }
    }

    /// Follows changes of the logs. A way is from a record's stamp, by its writer's clock, to now, by the members' median.
    pub(super) fn follow(&mut self, changes: &[Change], own: &Name, now: Duration, wall: Wall) {
        let ways = changes.iter().filter(|change| change.origin != *own).filter_map(|change| {
            let item = change.now.as_ref()?;
            let is_new = change.was.as_ref().is_none_or(|was| was.stamp != item.stamp);
            // What a node took over was on its way before.
            let counts = is_new && item.writer.is_none() && item.stamp.ms() >= self.since_ms;
            counts.then(|| Duration::from_millis(wall.median_ms.saturating_sub(item.stamp.ms())))
        });
        let Some(longest) = ways.max() else { return };
        match self.longest.back_mut() {
            Some((second, known)) if *second == now.as_secs() => *known = longest.max(*known),
            _ => self.longest.push_back((now.as_secs(), longest)),
        }
        self.forget(now);
    }

    /// The longest way of the last minute; none, when nothing came.
    pub(super) fn longest(&mut self, now: Duration) -> Duration {
        self.forget(now);
        self.longest.iter().map(|(_, way)| *way).max().unwrap_or_default()
    }

    fn forget(&mut self, now: Duration) {
        while self.longest.front().is_some_and(|(second, _)| second + WINDOW < now.as_secs()) {
            self.longest.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use control::cluster::{clock::Stamp, log::Item};

    use super::*;

    const NOW: u64 = 1_795_242_852_000;

    fn wall(ms: u64) -> Wall {
        Wall { own_ms: 0, median_ms: ms }
    }

    fn change(origin: &str, was: Option<u64>, now: u64) -> Change {
        let item = |ms| Item { seq: 1, stamp: Stamp::at_ms(ms), writer: None, value: None };
        let key = b"key".as_slice().into();
        Change { origin: origin.into(), slot: 0, key, was: was.map(item), now: Some(item(now)) }
    }

    #[test]
    fn the_longest_way_of_a_minute_counts_and_only_of_what_others_wrote_since_the_start() {
        let mut lag = Lag::new(wall(NOW));
        let own = Name::from("h1");
        let second = Duration::from_secs;
        let mut follow = |change: Change, at: u64| {
            lag.follow(&[change], &own, second(at), wall(NOW + at * 1_000));
            lag.longest(second(at))
        };
        assert_eq!(follow(change("h1", None, NOW), 5), Duration::ZERO);
        assert_eq!(follow(change("h2", None, NOW - 1), 5), Duration::ZERO);
        assert_eq!(follow(change("h2", Some(NOW), NOW), 5), Duration::ZERO);
        assert_eq!(follow(change("h2", None, NOW + 3_000), 5), second(2));
        assert_eq!(follow(change("h2", Some(NOW), NOW + 4_500), 5), second(2));
        // A clock that is ahead.
        assert_eq!(follow(change("h2", None, NOW + 70_000), 65), second(2));
        assert_eq!(lag.longest(second(66)), Duration::ZERO);
    }
}
