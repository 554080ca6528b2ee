//! Faults by chance.

use std::{collections::BTreeSet, time::Duration};

use rand::RngExt as _;

use super::cluster::{Cluster, seconds};

/// Faults by chance, one at a time: kills, partitions, loss.
#[derive(Default)]
pub(super) struct Strikes {
    dead: BTreeSet<usize>,
    split_until: Duration,
    /// Whether the wire stays whole.
    pub(super) never_splits: bool,
    pub(super) kills: usize,
    pub(super) splits: usize,
}

impl Strikes {
    /// Kills up to a tenth of the nodes, or splits them for up to 40 s, or has datagrams lost, or starts all that were killed.
    ///
    /// `killed` is told each node that was killed.
    pub(super) fn strike(&mut self, cluster: &mut Cluster, mut killed: impl FnMut(&mut Cluster, usize)) {
        let now = cluster.now();
        if self.split_until <= now {
            cluster.network.mend();
        }
        match cluster.rng().random_range(0..4) {
            0 => {
                let most = cluster.len().div_ceil(10);
                for _ in 0..cluster.rng().random_range(1..=most) {
                    let Some(host) = cluster.choose(|cluster, host| cluster.node(host).is_some()) else {
                        break;
                    };
                    cluster.kill(host);
                    killed(cluster, host);
                    self.dead.insert(host);
                    self.kills += 1;
                }
            }
            1 if self.split_until <= now && !self.never_splits => {
                let share = cluster.rng().random_range(0.05..0.5);
                let sides: Vec<bool> = (0..cluster.len()).map(|_| cluster.rng().random_bool(share)).collect();
                cluster.network.split(|host| usize::from(sides.get(host) == Some(&true)));
                self.split_until = now + seconds(cluster.rng().random_range(5..40));
                self.splits += 1;
            }
            2 => cluster.network.loss = cluster.rng().random_range(0.0..0.2),
            _ => self.start_all(cluster),
        }
    }

    fn start_all(&mut self, cluster: &mut Cluster) {
        std::mem::take(&mut self.dead).into_iter().for_each(|host| cluster.start(host));
    }

    /// Mends the wire and starts all nodes.
    pub(super) fn end(&mut self, cluster: &mut Cluster) {
        self.start_all(cluster);
        cluster.network.mend();
    }
}
