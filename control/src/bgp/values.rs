//! What a session is told, and what it tells of itself.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use serde::{Serialize, Serializer};

/// This node as a speaker: `[bgp]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    pub asn: u32,
    /// The BGP identifier; peers decide collisions by it.
    pub router_id: Ipv4Addr,
    /// The hold time that is offered, seconds: 0 for none, else at least 3.
    pub hold_time: u16,
    /// How long peers keep our routes while we are away, seconds (RFC 4724); 0 is off, at most 4095.
    pub graceful_restart: u16,
    /// Whether peers can reach us: what waits to connect is `active` then.
    pub listens: bool,
}

/// A peer: `[[bgp.peer]]`, without what only the sockets need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    pub asn: u32,
}

impl Peer {
    /// Whether it is of our own AS (iBGP).
    pub fn is_internal(&self, local: &Local) -> bool {
        self.asn == local.asn
    }
}

/// How far away a peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// As the system sends: iBGP.
    System,
    /// eBGP: packets reach this many hops; 1 unless `multihop` says otherwise.
    Hops(u8),
    /// Packets are sent with 255, and taken only with that (GTSM, RFC 5082).
    Security,
}

/// The states of RFC 4271, section 8.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connect => "connect",
            Self::Active => "active",
            Self::OpenSent => "open-sent",
            Self::OpenConfirm => "open-confirm",
            Self::Established => "established",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a session has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Prefixes announced.
    pub sent: u64,
    /// Prefixes withdrawn.
    pub withdrawn: u64,
    /// Prefixes that the peer has announced, all of which were dropped.
    pub received: u64,
    /// UPDATE messages sent, End-of-RIB markers left out.
    pub updates: u64,
    /// Sessions that were established and lost.
    pub flaps: u64,
}

/// Times of the protocol.
pub(super) mod times {
    use super::Duration;

    /// First wait after an attempt that failed; it doubles up to [`LONGEST_WAIT`], each 20 % more or less.
    pub(in crate::bgp) const FIRST_WAIT: Duration = Duration::from_millis(300);
    pub(in crate::bgp) const LONGEST_WAIT: Duration = Duration::from_secs(5);
    /// How long TCP may take to open: a peer with another key never answers.
    pub(in crate::bgp) const CONNECT: Duration = Duration::from_secs(5);
    /// How long a peer may take from an open connection to its OPEN.
    pub(in crate::bgp) const OPEN: Duration = Duration::from_secs(30);
    /// How long bytes may wait for a peer that does not read (RFC 9687).
    pub(in crate::bgp) const SEND_HOLD: Duration = Duration::from_secs(480);
}
