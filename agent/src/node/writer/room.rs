//! What the kernel had no room for of late: flows that found no port, and confirmed ones that were evicted.

use std::time::{Duration, Instant};

use anyhow::Result;
use control::model::PortRange;
use dataplane_common::outcome::Outcome;

use crate::kernel::bpf::{Datapath, FlowCount};

/// How long it is told.
const TOLD: Duration = Duration::from_secs(300);

/// The counts, as they were seen last.
#[derive(Debug, Default)]
pub(super) struct Room {
    refused: Grown,
    evicted: Grown,
    datagrams_evicted: Grown,
}

impl Room {
    /// Reads what was refused, takes what a walk found, and says what an operator can do.
    pub(super) fn reasons(
        &mut self,
        datapath: &Datapath,
        ports: PortRange,
        count: Option<FlowCount>,
        now: Instant,
    ) -> Result<Vec<String>> {
        let mut reasons = Vec::new();
        if self.refused.note(datapath.counters()?.total(Outcome::RefusedCollision), now) {
            reasons.push(no_port(ports));
        }
        if count.is_some_and(|count| self.evicted.note(count.evicted, now)) {
            reasons.push(no_room(datapath.services().flow_capacity()?));
        }
        if count.is_some_and(|count| self.datagrams_evicted.note(count.datagrams_evicted, now)) {
            reasons.push(no_room_for_datagrams(datapath.services().datagram_capacity()?));
        }
        Ok(reasons)
    }
}

fn no_port(PortRange(first, last): PortRange) -> String {
    format!(
        "nat-ports: new flows of the last 5 minutes were refused, because no port of {first}-{last} was free towards \
         the backends of their services (refused-collision); set a wider range in datapath.nat-ports, or give these \
         services more backends"
    )
}

fn no_room(flows: u32) -> String {
    format!(
        "flow-room: established connections were evicted in the last 5 minutes, because their table has room for \
         {flows}; set more in datapath.flows"
    )
}

fn no_room_for_datagrams(flows: u32) -> String {
    format!(
        "flow-room: flows of datagrams were evicted in the last 5 minutes, because their table has room for {flows}, a \
         quarter of datapath.flows; they begin anew with their next datagram; set more there"
    )
}

/// A count that only grows.
#[derive(Debug, Default)]
struct Grown {
    last: Option<u64>,
    when: Option<Instant>,
}

impl Grown {
    /// Whether it has grown of late. What was there before the first look is not news.
    fn note(&mut self, count: u64, now: Instant) -> bool {
        if self.last.replace(count).is_some_and(|last| count > last) {
            self.when = Some(now);
        }
        self.when.is_some_and(|when| now.saturating_duration_since(when) < TOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_for_five_minutes_and_what_was_there_before_never() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut count = Grown::default();
        assert!(!count.note(7, at(0)), "of a former agent");
        assert!(!count.note(7, at(5)));
        assert!(count.note(8, at(10)));
        assert!(count.note(8, at(309)));
        assert!(!count.note(8, at(310)));
        assert!(!count.note(0, at(311)), "another datapath counts anew");
        assert!(count.note(1, at(312)));
    }
}
