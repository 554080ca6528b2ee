//! Messages that are passed on: kept for as long as others are told of them.

use std::{collections::BTreeMap, time::Duration};

use super::{Event, Id};

/// Messages that are passed on at a time; further ones are heard here and go no further.
pub(super) const LIMIT: usize = 256;
/// When others are told of a message after it came, in milliseconds; the last time nobody is: then it goes.
const AFTER_MS: [u64; 4] = [100, 250, 500, 1_000];
/// Others are told at multiples of this, so that many go into one datagram.
const GRID_MS: u64 = 50;

#[derive(Debug)]
struct Message {
    hops: u8,
    event: Event,
    came: Duration,
    /// How often others were told of it.
    told: usize,
}

impl Message {
    /// When it is due next.
    fn due(&self) -> Duration {
        let after = AFTER_MS.get(self.told).copied().unwrap_or_default();
        let ms = (self.came + Duration::from_millis(after)).as_millis() as u64;
        Duration::from_millis(ms.next_multiple_of(GRID_MS))
    }
}

/// Messages that are passed on.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<Id, Message>);

impl Kept {
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= LIMIT
    }

    /// Keeps a message; says whether there is room.
    pub(super) fn keep(&mut self, id: Id, hops: u8, event: Event, came: Duration) -> bool {
        let has_room = !self.is_full();
        if has_room {
            self.0.insert(id, Message { hops, event, came, told: 0 });
        }
        has_room
    }

    /// A message, and how often it had been passed on when it came.
    pub(super) fn get(&self, id: &Id) -> Option<(u8, &Event)> {
        self.0.get(id).map(|message| (message.hops, &message.event))
    }

    /// Messages that others are to be told of now; those of which nothing more is said go.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<Id> {
        let mut due = Vec::new();
        self.0.retain(|id, message| {
            if message.due() > now {
                return true;
            }
            message.told += 1;
            let is_kept = message.told < AFTER_MS.len();
            due.extend(is_kept.then_some(*id));
            is_kept
        });
        due
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.0.values().map(Message::due).min()
    }
}
