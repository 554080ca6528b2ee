//! What is shown: the field names are the stable keys of the JSON.

use serde::{Deserialize, Serialize};

/// An announcement as `announce list` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncementRow {
    pub name: String,
    /// `init`, `rising`, `up`, `falling`, `down`, `disabled` or `maintenance`.
    pub state: String,
    /// Since when, seconds since 1970.
    pub since: u64,
    pub prefixes: Vec<PrefixRow>,
    /// Null without a check.
    pub check: Option<CheckRow>,
}

/// One of its prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixRow {
    pub prefix: String,
    /// `announced`, `withdrawn` or `taken-over`.
    pub state: String,
    /// Null while it is withdrawn.
    pub med: Option<u32>,
    /// The node that it is of.
    pub owner: String,
}

/// What its check says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRow {
    pub state: String,
    /// When it last ran, seconds since 1970.
    pub last: Option<u64>,
    pub reason: Option<String>,
}

/// A peer as `bgp peers` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PeerRow {
    pub address: String,
    pub asn: u32,
    /// `idle`, `connect`, `active`, `open-sent`, `open-confirm` or `established`.
    pub state: String,
    /// Since when, seconds since 1970.
    pub since: u64,
    /// Prefixes announced to it since the agent began to speak to it.
    pub sent: u64,
    /// Prefixes withdrawn.
    pub withdrawn: u64,
    /// Prefixes that it has announced, all of which were dropped.
    pub received: u64,
    pub last_error: Option<String>,
    /// Prefixes that it has now.
    pub routes: u64,
    /// Sessions that were established and lost.
    pub flaps: u64,
}

/// A route that a peer has, as `bgp routes` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RouteRow {
    pub peer: String,
    pub prefix: String,
    pub next_hop: String,
    pub med: u32,
    pub communities: Vec<String>,
    pub large_communities: Vec<String>,
    pub extended_communities: Vec<String>,
    pub as_path: Vec<u32>,
    /// Null to a peer of another AS.
    pub local_preference: Option<u32>,
}

/// What `announce disable` and `announce enable` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    pub name: String,
    pub disabled: bool,
    /// Whether it was otherwise before.
    pub changed: bool,
}
