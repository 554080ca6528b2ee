//! How a node leaves.

use std::time::Duration;

use super::Membership;
use crate::cluster::{Moment, wire::Message};

/// A good-bye, said a few times.
pub(super) struct Leaving {
    pub(super) next: Duration,
    rounds: u32,
}

/// Good-byes, and how many members each time.
const GOOD_BYES: u32 = 3;
const GOOD_BYE_MEMBERS: usize = 8;

impl Membership {
    /// Leaves the cluster: all are told, a few times. Nothing that comes is answered any more.
    pub fn leave(&mut self, at: Moment) {
        if self.leaving.is_none() {
            self.leaving = Some(Leaving { next: at.now, rounds: 0 });
            self.say_good_bye(at);
        }
    }

    /// Whether this node has said good-bye.
    pub fn has_left(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.rounds >= GOOD_BYES)
    }

    pub(super) fn say_good_bye(&mut self, at: Moment) {
        let Some(leaving) = self.leaving.as_mut().filter(|leaving| leaving.next <= at.now) else { return };
        leaving.next = at.now + self.tuning.gossip_period;
        leaving.rounds += 1;
        if leaving.rounds > GOOD_BYES {
            leaving.next = Duration::MAX;
            return;
        }
        for member in self.random_reachable(GOOD_BYE_MEMBERS) {
            self.send(at, member.address(), Message::Leave);
        }
    }
}
