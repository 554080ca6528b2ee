//! What a node is told of its cluster, and how fast the protocol runs.

use std::{net::SocketAddrV4, time::Duration};

use crate::cluster::{identity::Pool, keyring::Keyring};

/// What a node is told of its cluster.
pub struct Settings {
    /// The cluster's name. Clusters of different names never merge.
    pub cluster: String,
    /// Without keys datagrams are readable and anybody may send them.
    pub keyring: Option<Keyring>,
    /// Addresses of members to be found at first.
    pub seeds: Vec<SocketAddrV4>,
    pub tuning: Tuning,
    /// Where many nodes are in one process: the identities that they know.
    pub pool: Option<Pool>,
}

/// Times of the protocol. The default finds a death within a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// From one probe of the next member of the ring to the next.
    pub watch_period: Duration,
    /// From one probe of a random member to the next.
    pub probe_period: Duration,
    /// How long a probe waits for its answer before others are asked to probe. Less than the period.
    pub probe_rtt: Duration,
    /// How many others are asked.
    pub indirect_probes: usize,
    /// How long a suspected member has to refute that.
    pub suspicion: Duration,
    /// From one spreading of news to the next.
    pub gossip_period: Duration,
    /// To how many members news are sent each time.
    pub gossip_members: usize,
    /// From one comparison of everything with a random member to the next.
    pub exchange_period: Duration,
    /// From one greeting of a random dead member to the next.
    pub dead_period: Duration,
    /// Known members at most, those that are gone included.
    pub max_members: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            watch_period: Duration::from_millis(300),
            probe_period: Duration::from_millis(900),
            probe_rtt: Duration::from_millis(60),
            indirect_probes: 3,
            suspicion: Duration::from_millis(400),
            gossip_period: Duration::from_millis(50),
            gossip_members: 4,
            exchange_period: Duration::from_secs(15),
            dead_period: Duration::from_secs(2),
            max_members: 20_000,
        }
    }
}
