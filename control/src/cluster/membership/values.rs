//! What membership gives out and answers.

use std::{net::SocketAddrV4, time::Duration};

use super::{Claim, Entry, Notice};
use crate::cluster::{
    identity::{Identity, NodeName},
    wire::MAX_BODY,
};

/// What is to be done for the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Send { to: SocketAddrV4, datagram: Vec<u8> },
    /// Carry a request to the member at this address by an encrypted stream, and give the answer to
    /// [`super::Membership::answered`]: none, when there is none within ten seconds.
    Exchange { to: SocketAddrV4, request: Vec<u8> },
    /// Tell.
    Notice(Notice),
    /// What another protocol of a living member sent.
    Payload { from: NodeName, protocol: u8, bytes: Vec<u8> },
}

/// A member's state for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    Alive,
    Suspect,
    Dead,
    Left,
    /// Alive, and in maintenance.
    Maintenance,
}

impl MemberState {
    /// Whether the member answers, in maintenance or not.
    pub fn is_reachable(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect | Self::Maintenance)
    }
}

/// A member as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub identity: Identity,
    pub state: MemberState,
    /// When the state became another one, in this node's time.
    pub since: Duration,
}

/// Why a member was not forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    #[error("there is no member {0}; `fanlight node list` shows all")]
    Unknown(NodeName),
    #[error("{0} is alive: stop its agent first")]
    Alive(NodeName),
}

/// Why bytes were not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("{0} is not reachable")]
    Unreachable(NodeName),
    #[error("{0} bytes are more than the {max} of one datagram", max = MAX_BODY)]
    TooLong(usize),
}

pub(super) fn shown(entry: &Entry) -> Member {
    let state = match entry.claim {
        Claim::Alive | Claim::Suspect if entry.maintenance => MemberState::Maintenance,
        Claim::Alive => MemberState::Alive,
        Claim::Suspect => MemberState::Suspect,
        Claim::Dead => MemberState::Dead,
        Claim::Left => MemberState::Left,
    };
    Member { identity: entry.identity.clone(), state, since: entry.since() }
}
