//! The cluster in numbers, as this node counts them.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;

/// The overlay networks of members, by their names.
pub type Slices = BTreeMap<String, Vec<IpNet>>;

/// Numbers of one moment; counts are since the agent's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Bytes to members, without headers.
    pub sent: u64,
    /// Bytes from members.
    pub received: u64,
    /// Datagrams that were refused, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// What there is once the store is open.
    pub stored: Option<Stored>,
}

/// What members share, as this node has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Records of all nodes.
    pub records: u64,
    /// Removals that some member has not heard of.
    pub removals: u64,
    /// Bytes of both in memory.
    pub memory: u64,
    /// Bytes of the store on disk.
    pub file: u64,
    /// The longest way of a record here within the last minute.
    pub lag: Duration,
}
