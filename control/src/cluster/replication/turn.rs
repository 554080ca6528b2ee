//! What comes into replication, and what it asks for.

use std::time::Duration;

use super::{gossip::Gossip, streams::StreamId};
use crate::cluster::{
    log::{Effects, Listener, Name, Refusal, WriteError},
    records::Touched,
    state::Wall,
};

/// The members that a node knows.
pub trait Peers {
    /// Some reachable members other than this node, at random.
    fn random(&mut self, count: usize) -> Vec<Name>;
    /// All members other than this node, dead ones too; not those that were forgotten.
    fn all(&self) -> Vec<Listener>;
}

/// When something happens, by all clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Monotonic; all intervals are of this one.
    pub now: Duration,
    /// The wall clocks.
    pub wall: Wall,
}

/// How often things are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Members that a change is pushed to by each node, and told to, each time.
    pub fan_out: usize,
    /// From one comparison of digests with a random member to the next: what a node missed it has as soon after it is back.
    pub compare: Duration,
    /// From one to the next while members are to hear of removals.
    pub hurry: Duration,
    /// From one look for what may be taken out of the log to the next.
    pub tend: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            fan_out: 4,
            compare: Duration::from_secs(5),
            hurry: Duration::from_secs(2),
            tend: Duration::from_secs(20),
        }
    }
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a datagram.
    Datagram {
        /// To this member.
        to: Name,
        /// At most 1,200 bytes.
        bytes: Vec<u8>,
    },
    /// Open a stream to a member, for what is sent on it.
    Open {
        /// The stream.
        stream: StreamId,
        /// To this member.
        to: Name,
    },
    /// Send a message on a stream.
    Send {
        /// The stream.
        stream: StreamId,
        /// At most [`MAX_MESSAGE`](crate::cluster::log::MAX_MESSAGE) bytes.
        message: Vec<u8>,
    },
    /// Close a stream, once everything on it is sent.
    Close(StreamId),
}

/// What a step did.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "what was done is to be stored before any action is taken"]
pub struct Turn {
    /// To be stored, as one transaction, before any action is taken and before a write is acknowledged.
    pub effects: Effects,
    /// What the view says of is other now.
    pub touched: Touched,
    /// What is to be done then.
    pub actions: Vec<Action>,
    /// What was refused, and of which sender.
    pub refusals: Vec<(Name, Refusal)>,
    /// This node was forgotten: it states its facts and files anew.
    pub was_forgotten: bool,
    /// What was to be taken out of this node's log and could not.
    pub held_back: Option<WriteError>,
}

impl Turn {
    /// Adds what a later step did.
    pub(super) fn extend(&mut self, later: Self) {
        self.effects.extend(later.effects);
        self.touched.extend(later.touched);
        self.actions.extend(later.actions);
        self.refusals.extend(later.refusals);
        self.was_forgotten |= later.was_forgotten;
        self.held_back = self.held_back.take().or(later.held_back);
    }

    pub(super) fn say(&mut self, to: &Name, gossip: &Gossip) {
        self.actions.push(Action::Datagram { to: to.clone(), bytes: gossip.encode() });
    }
}
