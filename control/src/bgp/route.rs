//! Routes: what a peer is to have, and what it was sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::community::{Community, ExtendedCommunity, LargeCommunity};

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NextHop {
    /// Our end of the session; for prefixes of the other family the uplink's address of that.
    SelfAddress,
    Address(IpAddr),
}

/// What a peer is to be told of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub next_hop: NextHop,
    pub med: u32,
    /// Sent to peers of our own AS alone.
    pub local_preference: u32,
    /// What follows our own ASN on the way to peers of another AS.
    pub as_path: Arc<[u32]>,
    pub communities: BTreeSet<Community>,
    pub large_communities: BTreeSet<LargeCommunity>,
    pub extended_communities: BTreeSet<ExtendedCommunity>,
}

/// What a peer is to have, by prefix.
pub type Routes = BTreeMap<IpNet, Arc<Route>>;

/// A route as it is sent: its attributes, all of them decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attributes {
    pub next_hop: IpAddr,
    pub med: u32,
    /// None to peers of another AS.
    pub local_preference: Option<u32>,
    pub as_path: Vec<u32>,
    pub communities: BTreeSet<Community>,
    pub large_communities: BTreeSet<LargeCommunity>,
    pub extended_communities: BTreeSet<ExtendedCommunity>,
}

/// The families of addresses that are announced, unicast both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub const fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    pub const fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}
