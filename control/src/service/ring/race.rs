//! Which backend reaches a slot first.

use std::array::from_fn;

use dataplane_common::abi::RING_SLOTS;

/// Slots that are looked at together: in vector registers, several of them at once.
const LANES: usize = 32;
/// Time that a step of the lightest backend takes; the others' steps take less.
const SLOWEST: u64 = u16::MAX as u64;
/// Time that a step takes at least, so that times stay distinct.
const FASTEST: u64 = 64;

/// A backend's way over the slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    /// When it reaches the first slot, in steps.
    first: u16,
    /// How many steps later it reaches the next slot.
    stride: u16,
    /// Time that a step takes.
    pace: u16,
    slots: u16,
}

impl Walk {
    /// The way over so many slots, a prime below 32,768, of the backend with this key.
    pub(super) fn new(key: u64, weight: u32, lightest: u32, slots: usize) -> Self {
        let pace = (SLOWEST * u64::from(lightest) / u64::from(weight.max(1))).max(FASTEST);
        let first = u64::from(key as u32) % slots as u64;
        let stride = (key >> 32) % (slots as u64 - 1) + 1;
        Self { first: first as u16, stride: stride as u16, pace: pace as u16, slots: slots as u16 }
    }

    /// When it reaches a slot; times of a walk are below 32,768.
    pub(super) fn time(&self, slot: usize) -> u16 {
        time(self.steps(slot as u32), self.pace)
    }

    fn steps(&self, slot: u32) -> u16 {
        let steps = u32::from(self.first) + slot * u32::from(self.stride);
        // By a constant it takes no division.
        let over = if u32::from(self.slots) == RING_SLOTS {
            steps % RING_SLOTS
        } else {
            steps % u32::from(self.slots)
        };
        over as u16
    }
}

fn time(steps: u16, pace: u16) -> u16 {
    ((u32::from(steps) * u32::from(pace)) >> 16) as u16
}

/// The first at each slot.
#[derive(Debug)]
pub(super) struct Race {
    /// Its place among the walks; of several at once the first.
    pub(super) owner: Vec<u16>,
    /// When it came.
    pub(super) time: Vec<u16>,
}

/// Finds the first at each of so many slots.
pub(super) fn run(walks: &[Walk], slots: usize) -> Race {
    let mut lanes: Vec<Lanes> = walks.iter().map(Lanes::new).collect();
    let padded = slots.next_multiple_of(LANES);
    let mut race = Race { owner: vec![0; padded], time: vec![0; padded] };
    let (owners, times) = (race.owner.chunks_exact_mut(LANES), race.time.chunks_exact_mut(LANES));
    for (owner, time) in owners.zip(times) {
        let (mut first, mut best) = ([0; LANES], [i16::MAX; LANES]);
        for (lanes, place) in lanes.iter_mut().zip(0..) {
            let times = lanes.next(slots as i16);
            first = from_fn(|lane| if times[lane] < best[lane] { place } else { first[lane] });
            best = from_fn(|lane| best[lane].min(times[lane]));
        }
        owner.copy_from_slice(&first);
        time.copy_from_slice(&best.map(|time| time as u16));
    }
    race.owner.truncate(slots);
    race.time.truncate(slots);
    race
}

/// A walk's times at neighbouring slots. Signed, because vector instructions compare signed numbers.
struct Lanes {
    steps: [i16; LANES],
    stride: i16,
    pace: u16,
}

impl Lanes {
    fn new(walk: &Walk) -> Self {
        let stride = LANES as u64 * u64::from(walk.stride) % u64::from(walk.slots);
        Self { steps: from_fn(|lane| walk.steps(lane as u32) as i16), stride: stride as i16, pace: walk.pace }
    }

    fn next(&mut self, slots: i16) -> [i16; LANES] {
        let times = from_fn(|lane| time(self.steps[lane] as u16, self.pace) as i16);
        self.steps = from_fn(|lane| {
            let over = self.steps[lane].wrapping_add(self.stride).wrapping_sub(slots);
            over.wrapping_add((over >> 15) & slots)
        });
        times
    }
}
