//! What is to happen when.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::Duration,
};

/// What is to happen, in the order of its times; what has one time in the order in which it was put in.
#[derive(Debug)]
pub struct Agenda<T> {
    heap: BinaryHeap<Reverse<Timed<T>>>,
    sequence: u64,
}

#[derive(Debug)]
struct Timed<T> {
    at: Duration,
    sequence: u64,
    what: T,
}

impl<T> PartialEq for Timed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Timed<T> {}

impl<T> PartialOrd for Timed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Timed<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0 }
    }
}

impl<T> Agenda<T> {
    /// Something is to happen then.
    pub fn push(&mut self, at: Duration, what: T) {
        self.sequence += 1;
        self.heap.push(Reverse(Timed { at, sequence: self.sequence, what }));
    }

    /// When something happens next.
    pub fn deadline(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(next)| next.at)
    }

    /// What happens next, if that is not after a time.
    pub fn pop_until(&mut self, end: Duration) -> Option<(Duration, T)> {
        if self.deadline()? > end {
            return None;
        }
        self.heap.pop().map(|Reverse(next)| (next.at, next.what))
    }

    /// Changes when things happen.
    pub fn put_off(&mut self, edit: impl Fn(&mut Duration, &mut T)) {
        let changed = std::mem::take(&mut self.heap).into_iter().map(|Reverse(mut timed)| {
            edit(&mut timed.at, &mut timed.what);
            Reverse(timed)
        });
        self.heap = changed.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_time_happens_in_the_order_in_which_it_was_put_in() {
        let second = Duration::from_secs;
        let mut agenda = Agenda::default();
        for (at, what) in [(2, "c"), (1, "a"), (2, "d"), (1, "b"), (3, "e")] {
            agenda.push(second(at), what);
        }
        agenda.put_off(|at, what| *at += second(u64::from(*what == "a") * 9));
        let order: Vec<&str> =
            std::iter::from_fn(|| agenda.pop_until(second(2))).map(|(_, what)| what).collect();
        assert_eq!((order, agenda.deadline()), (vec!["b", "c", "d"], Some(second(3))));
    }
}
