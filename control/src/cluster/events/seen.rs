//! Messages that were here: each is told once.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use super::Id;

/// How long a message is remembered: longer than any of them goes round.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many are.
const LIMIT: usize = 16_384;

/// Messages that were here.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: BTreeSet<Id>,
    /// The same, the oldest first, with the time of each.
    order: VecDeque<(Duration, Id)>,
}

impl Seen {
    pub(super) fn has(&self, id: &Id) -> bool {
        self.ids.contains(id)
    }

    /// Whether a message was not here; it was from now on.
    pub(super) fn is_new(&mut self, id: Id, now: Duration) -> bool {
        let is_old = |(at, _): &(Duration, Id)| *at + REMEMBERED <= now;
        while self.order.len() >= LIMIT || self.order.front().is_some_and(is_old) {
            let Some((_, oldest)) = self.order.pop_front() else { break };
            self.ids.remove(&oldest);
        }
        let is_new = self.ids.insert(id);
        if is_new {
            self.order.push_back((now, id));
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_new_once_a_minute_and_many_take_bounded_room() {
        let mut seen = Seen::default();
        let second = Duration::from_secs;
        assert!(seen.is_new(Id(1, 1), second(0)));
        assert!(!seen.is_new(Id(1, 1), second(59)));
        assert!(seen.is_new(Id(1, 1), second(60)));
        for number in 0..100_000 {
            assert!(seen.is_new(Id(2, number), second(61)));
        }
        assert_eq!((seen.ids.len(), seen.order.len()), (LIMIT, LIMIT));
        assert!(!seen.has(&Id(1, 1)));
    }
}
