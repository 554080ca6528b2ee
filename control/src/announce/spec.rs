//! An announcement as it is configured: `[[announce]]`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::takeover::Takeover;
use crate::{
    bgp::{Community, ExtendedCommunity, LargeCommunity, NextHop},
    health::Check,
};

/// `[[announce]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub name: Arc<str>,
    pub what: What,
    pub via: Via,
    /// Peers that it goes to; all when empty.
    pub peers: BTreeSet<IpAddr>,
    /// The list of prefixes begins at this position, and wraps.
    pub start: u32,
    /// The MED of the first prefix.
    pub med: u32,
    /// What each further one has more.
    pub med_step: u32,
    pub on_down: Fallback,
    pub on_disabled: Fallback,
    /// While this file exists, it is disabled.
    pub disable_file: Option<PathBuf>,
    pub next_hop: NextHop,
    pub local_preference: u32,
    /// How it looks while it is up.
    pub up: Look,
    /// Its AS_PATH while its check is down, where that differs.
    pub down_as_path: Option<Arc<[u32]>>,
    /// The same while it is disabled.
    pub disabled_as_path: Option<Arc<[u32]>>,
    /// Its communities while it is disabled, where those differ.
    pub disabled_communities: Option<BTreeSet<Community>>,
    pub large_communities: BTreeSet<LargeCommunity>,
    pub extended_communities: BTreeSet<ExtendedCommunity>,
    /// Whether its hosts' addresses are on `lo` while they are announced, and for how long after the withdrawal.
    pub loopback: Option<Duration>,
    /// Only while this is up.
    pub check: Option<Checking>,
    pub hooks: Hooks,
}

/// How what an announcement stands for is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checking {
    pub check: Arc<Check>,
    /// Where it is asked.
    pub target: SocketAddr,
}

/// Commands on a change of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    pub up: Option<Arc<str>>,
    pub down: Option<Arc<str>>,
    /// Of maintenance, too.
    pub disabled: Option<Arc<str>>,
}

/// What changes with an announcement's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What follows our ASN.
    pub as_path: Arc<[u32]>,
    pub communities: BTreeSet<Community>,
}

/// What is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// These, in this order.
    Prefixes(Vec<IpNet>),
    /// The VIPs of services of these names, in this order; of all, in the order of their names, when there is none.
    Services(Vec<String>, When),
    /// The slices of this node's fans.
    Slices,
    /// Addresses of this node's endpoints.
    Endpoints,
    /// This node's own prefixes in a group, in this order, and those of its members that are away.
    Own(Vec<IpNet>, Group),
}

/// A group of nodes that announce each other's prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: Arc<str>,
    pub takeover: Takeover,
}

/// When a service's VIP is announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// While it has a usable backend on this node.
    #[default]
    Local,
    /// While it has a usable backend.
    Any,
    Always,
}

/// What becomes of an announcement that is down or disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    Withdraw,
    /// The first prefix has this MED; further ones step as ever.
    Med(u32),
}

/// Ways by which it is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via {
    pub bgp: bool,
    /// The kernel's table of its routes.
    pub table: Option<OnTable>,
}

/// A table of the kernel for another speaker on this node.
pub type OnTable = u32;
