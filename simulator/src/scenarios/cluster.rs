//! A world of members, and the questions that all scenarios ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use control::cluster::{
    identity::{NodeName, Pool},
    membership::{Notice, Tuning},
};
use rand::RngExt as _;

use super::Options;
use crate::{
    member::{Event, Member, MemberSettings, name},
    report::Report,
    world::{World, address},
};

pub(super) const STEP: Duration = Duration::from_millis(20);

/// A world of members.
pub(super) type Cluster = World<Member>;

pub(super) fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number)
}

pub(super) fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// Up to so many nodes each has a log, of which every node holds all.
const WITH_FACTS: usize = 1_000;

/// Hosts whose nodes know the first one.
pub(super) fn new(options: Options) -> Cluster {
    let settings = MemberSettings {
        keys: Some(format!("{}=", "A".repeat(43))),
        seeds: vec![address(0)],
        tuning: Tuning::default(),
        pool: Pool::default(),
        has_facts: options.nodes <= WITH_FACTS,
    };
    World::new(options.seed, options.nodes, settings)
}

/// Starts all nodes within a second, in any order.
pub(super) fn start_all(cluster: &mut Cluster) {
    let mut order: Vec<(u64, usize)> =
        (0..cluster.len()).map(|host| (cluster.rng().random_range(0..1_000), host)).collect();
    order.sort_unstable();
    let start = cluster.now();
    for (at, host) in order {
        let now = cluster.now();
        cluster.run((start + milliseconds(at)).saturating_sub(now));
        cluster.start(host);
    }
}

/// Whether all running nodes know the same, and that exactly they run.
pub(super) fn agree(cluster: &Cluster) -> bool {
    let count = cluster.running().count();
    let mut digests = cluster.running().map(|(_, node)| node.core.digest());
    let first = digests.next();
    digests.all(|digest| Some(digest) == first)
        && cluster.running().all(|(_, node)| node.core.reachable() == count)
}

/// Whether all running nodes have the same logs.
pub(super) fn is_one(cluster: &Cluster) -> bool {
    let mut digests = cluster.running().map(|(_, node)| node.digest());
    let first = digests.next();
    digests.all(|digest| Some(digest) == first)
}

/// Whether all running nodes serve the same.
pub(super) fn serve_alike(cluster: &Cluster) -> bool {
    let mut nodes = cluster.running().map(|(_, node)| node.serving());
    let Some(first) = nodes.next() else { return true };
    nodes.all(|serving| serving.services().eq(first.services()))
}

/// A cluster that is up, settled, and whose events so far are forgotten.
pub(super) fn settled(options: Options, report: &mut Report) -> Cluster {
    let mut cluster = new(options);
    cluster.observes = false;
    start_all(&mut cluster);
    let is_up = |cluster: &Cluster| agree(cluster) && is_one(cluster);
    let time = cluster.wait(seconds(120), milliseconds(100), is_up);
    if time.is_none() {
        report.check("start: all know all", "never", "120 s", false);
    }
    cluster.run(seconds(3));
    cluster.observes = true;
    cluster
}

/// Deaths of nodes that lived, followed through the events of all nodes.
#[derive(Default)]
pub(super) struct FalseDeaths {
    /// By the name that is taken for dead: since when, and by which hosts.
    open: BTreeMap<NodeName, (Duration, BTreeSet<usize>)>,
    /// How long each lasted, from the first node that believed it to the last that took it back.
    pub(super) lasted: Vec<Duration>,
}

impl FalseDeaths {
    /// Takes what was observed; `is_alive` says of a name whether its node lived all the time.
    pub(super) fn watch(&mut self, cluster: &mut Cluster, is_alive: impl Fn(&NodeName) -> bool) {
        for (at, host, event) in cluster.take_events() {
            match event {
                Event::Notice(Notice::Down { identity, .. }) if is_alive(identity.name()) => {
                    let (_, believers) =
                        self.open.entry(identity.name().clone()).or_insert((at, BTreeSet::new()));
                    believers.insert(host);
                }
                Event::Notice(Notice::Up(identity)) => {
                    let Some((since, believers)) = self.open.get_mut(identity.name()) else { continue };
                    believers.remove(&host);
                    if believers.is_empty() {
                        self.lasted.push(at - *since);
                        self.open.remove(identity.name());
                    }
                }
                _ => {}
            }
        }
    }

    /// How many there were, those that last included.
    pub(super) fn count(&self) -> usize {
        self.lasted.len() + self.open.len()
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    pub(super) fn longest(&self) -> Duration {
        self.lasted.iter().copied().max().unwrap_or_default()
    }
}

/// The name of a host's node.
pub(super) fn name_of(host: usize) -> NodeName {
    name(address(host))
}
