//! From the backends that reach each slot first to a ring in which each has its share.
//!
//! A backend with too many slots gives up those that it reached last, and each goes to the one that reaches it next,
//! which may have to give up another for it. Where that ends does not depend on the order (Gale and Shapley, 1962), and
//! it is what walking together comes to; only the few slots that change hands are looked at twice.

use std::collections::BinaryHeap;

use super::race::{self, Race, Walk};

/// Slots reached later than so many times the mean (in halves) are few, and all that is usually given up.
const LATE: usize = 5;

/// A slot that is given up.
struct Given {
    time: u16,
    place: u16,
    slot: u16,
}

/// A time, and the slot that is reached or the place of the backend that reaches it: one number, compared at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(u32);

impl Moment {
    fn new(time: u16, what: u16) -> Self {
        Self(u32::from(time) << u16::BITS | u32::from(what))
    }

    fn time(self) -> u16 {
        (self.0 >> u16::BITS) as u16
    }

    fn what(self) -> u16 {
        self.0 as u16
    }
}

/// The ring of these walks with these shares.
pub(super) fn settle(walks: &[Walk], shares: &[usize], slots: usize) -> Vec<u16> {
    let race = race::run(walks, slots);
    let late = (total(&race.time) * LATE / 2 / slots).min(usize::from(u16::MAX)) as u16;
    let counts: Vec<usize> = (0..walks.len()).map(|place| count(&race.owner, place as u16)).collect();
    let settled =
        Exchange::new(&race, &counts, shares, late).or_else(|| Exchange::new(&race, &counts, shares, 0));
    match settled {
        Some(exchange) => exchange.run(walks, race.owner),
        None => race.owner,
    }
}

/// The sum of times, in sums that fit vector registers.
fn total(times: &[u16]) -> usize {
    let sums = times.chunks(4096).map(|chunk| chunk.iter().map(|&time| u32::from(time)).sum::<u32>());
    sums.map(|sum| sum as usize).sum()
}

/// How often a place is in a list, likewise.
fn count(owner: &[u16], place: u16) -> usize {
    let sums = owner.chunks(4096).map(|chunk| chunk.iter().map(|&one| u16::from(one == place)).sum::<u16>());
    sums.map(usize::from).sum()
}

/// Slots that were reached at this time or later; without branches, which no processor could predict.
fn since(times: &[u16], late: u16) -> Vec<u16> {
    let mut slots = vec![0; times.len() + 1];
    let mut found = 0;
    for (&time, slot) in times.iter().zip(0..) {
        slots[found] = slot;
        found += usize::from(time >= late);
    }
    slots.truncate(found);
    slots
}

/// Which backend has which late slots, and which are given up.
struct Exchange {
    /// By place: those that it may have to give up, the latest first.
    late: Vec<BinaryHeap<Moment>>,
    /// By place: slots that it lacks.
    lacking: Vec<usize>,
    given: Vec<Given>,
}

impl Exchange {
    /// Every backend gives up its slots beyond its share; `None` where some of these are not late.
    fn new(race: &Race, counts: &[usize], shares: &[usize], late: u16) -> Option<Self> {
        let mut slots = vec![Vec::new(); counts.len()];
        for slot in since(&race.time, late) {
            let place = usize::from(slot);
            slots[usize::from(race.owner[place])].push(Moment::new(race.time[place], slot));
        }
        let lacking = shares.iter().zip(counts).map(|(share, count)| share.saturating_sub(*count)).collect();
        let late = slots.into_iter().map(BinaryHeap::from).collect();
        let mut exchange = Self { late, lacking, given: Vec::new() };
        for (place, (count, share)) in counts.iter().zip(shares).enumerate() {
            for _ in *share..*count {
                exchange.give_up(place)?;
            }
        }
        Some(exchange)
    }

    fn give_up(&mut self, place: usize) -> Option<()> {
        let held = self.late[place].pop()?;
        self.given.push(Given { time: held.time(), place: place as u16, slot: held.what() });
        Some(())
    }

    /// Gives every slot that was given up to the next at it. All shares together are all slots, so that everyone finds
    /// an owner.
    fn run(mut self, walks: &[Walk], mut ring: Vec<u16>) -> Vec<u16> {
        while let Some(Given { time, place, slot }) = self.given.pop() {
            let former = Moment::new(time, place);
            let all = walks.iter().zip(0..).map(|(walk, place)| Moment::new(walk.time(slot.into()), place));
            let Some(next) = all.filter(|&next| next > former).min() else { continue };
            ring[usize::from(slot)] = next.what();
            let place = usize::from(next.what());
            self.late[place].push(Moment::new(next.time(), slot));
            match self.lacking[place].checked_sub(1) {
                Some(rest) => self.lacking[place] = rest,
                None => drop(self.give_up(place)),
            }
        }
        ring
    }
}
