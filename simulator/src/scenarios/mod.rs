//! What is done to clusters, and what has to follow.

mod cluster;
mod departures;
mod faults;
mod ledger;
mod messages;
mod partitions;
mod records;
mod spread;
mod steady;
mod strikes;

use crate::report::Report;

/// A scenario's size.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub nodes: usize,
    /// Simulated minutes of what takes as long as it is given.
    pub minutes: u64,
}

/// A scenario by its name.
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    run: fn(Options, &mut Report),
}

impl Scenario {
    pub fn run(&self, options: Options) -> Report {
        let mut report = Report::default();
        (self.run)(options, &mut report);
        report
    }
}

/// All scenarios.
pub const ALL: [Scenario; 20] = [
    Scenario { name: "boot", about: "all nodes start within a second, knowing one", run: steady::boot },
    Scenario { name: "idle", about: "what an idle node sends", run: steady::idle },
    Scenario { name: "kills", about: "100 kills, one after the other", run: departures::kills },
    Scenario {
        name: "kills-in-loss",
        about: "100 kills while 5 % of the datagrams are lost",
        run: departures::kills_in_loss,
    },
    Scenario {
        name: "large",
        about: "start, a minute of rest, keys and ten kills in one world",
        run: departures::large,
    },
    Scenario { name: "leave", about: "nodes say good-bye", run: departures::leave },
    Scenario {
        name: "restarts",
        about: "all nodes restart, one by one and at once",
        run: departures::restarts,
    },
    Scenario {
        name: "mass-death",
        about: "a tenth of the nodes die at once and come back",
        run: departures::mass_death,
    },
    Scenario { name: "loss", about: "5 % of the datagrams are lost", run: faults::loss_5 },
    Scenario { name: "heavy-loss", about: "20 % are lost", run: faults::loss_20 },
    Scenario {
        name: "slow",
        about: "a node that runs late, and one that stops for seconds",
        run: faults::slow,
    },
    Scenario { name: "clocks", about: "wall clocks jump by a day", run: faults::clocks },
    Scenario { name: "asymmetric", about: "links that pass one way only", run: partitions::asymmetric },
    Scenario { name: "split", about: "two halves for a minute, then one again", run: partitions::split },
    Scenario { name: "torture", about: "random kills, partitions and loss", run: partitions::torture },
    Scenario { name: "spread", about: "keys that are written at one node each", run: spread::spread },
    Scenario { name: "messages", about: "100 messages to all members", run: messages::messages },
    Scenario { name: "rings", about: "kills of nodes that have backends of a service", run: spread::rings },
    Scenario {
        name: "records",
        about: "writes of keys and services while nodes are killed, disks lose what they held, and wires are cut",
        run: records::records,
    },
    Scenario {
        name: "owners",
        about: "writes of keys that compare, while nodes are killed and wires are cut",
        run: records::owners,
    },
];
