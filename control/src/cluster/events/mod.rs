//! Messages to all members, best effort.
//!
//! A message is pushed at once to some random members, and by each to whom it is new to some others. Afterwards each tells
//! three times which messages it has; who lacks one asks for it. After a second nobody says anything of it any more. A member
//! that can't be reached meanwhile never hears of it, and nobody vouches for the order of two.

mod kept;
mod seen;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::{kept::Kept, seen::Seen};
use super::{
    log::{Bytes, Name},
    replication::Peers,
};
use crate::model::quoted;

/// Bytes of a name at most.
pub const MAX_NAME: usize = 64;
/// Bytes of a payload at most.
pub const MAX_PAYLOAD: usize = 1_024;

/// Members that a message is pushed to, and told of, each time.
const FAN_OUT: usize = 4;
/// How often a message is passed on at most: nothing goes round for ever.
const MAX_HOPS: u8 = 32;
/// Messages that a datagram tells or asks for.
const AT_A_TIME: usize = 64;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(60);
/// Messages that are asked for at a time.
const ASKED: usize = 256;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Who sent it, as it says itself: messages are not signed.
    pub node: Name,
    /// What it is about.
    pub name: Name,
    /// What it says.
    pub payload: Bytes,
    /// When, in milliseconds since 1970 by its sender's clock.
    pub time_ms: u64,
}

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EventError {
    /// Its name's length.
    #[error("an event's name has 1 to {MAX_NAME} bytes; this one has {0}")]
    NameLength(usize),
    /// Its name's letters.
    #[error("the event's name {} has a control character; leave it out", quoted(.0))]
    Control(String),
    /// Its payload's length.
    #[error("an event's payload has at most {MAX_PAYLOAD} bytes; this one has {0}")]
    PayloadLength(usize),
    /// There are too many.
    #[error("{} events of the last second are still on their way; try again", kept::LIMIT)]
    Busy,
}

impl Event {
    fn check(&self) -> Result<(), EventError> {
        if !(1..=MAX_NAME).contains(&self.name.len()) {
            return Err(EventError::NameLength(self.name.len()));
        }
        if self.name.chars().any(char::is_control) {
            return Err(EventError::Control(self.name.to_string()));
        }
        let length = self.payload.as_slice().len();
        if length > MAX_PAYLOAD { Err(EventError::PayloadLength(length)) } else { Ok(()) }
    }
}

/// Which message: of a start of a node, by its random number, and which one since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Id(u64, u32);

/// What a datagram says.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// A message, and how often it was passed on.
    Event(Id, u8, Event),
    /// Messages that the sender has: who lacks one asks.
    Have(Vec<Id>),
    /// Messages that the sender lacks.
    Ask(Vec<Id>),
}

/// What a step did.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "messages are lost unless they are sent and told"]
pub struct Step {
    /// Datagrams, each for a member.
    pub datagrams: Vec<(Name, Vec<u8>)>,
    /// A message that is new here.
    pub event: Option<Event>,
}

impl Step {
    fn say(&mut self, to: impl IntoIterator<Item = Name>, said: &Said) {
        let bytes = postcard::to_allocvec(said).unwrap_or_default();
        self.datagrams.extend(to.into_iter().map(|to| (to, bytes.clone())));
    }
}

/// Messages that go round, as one node knows of them.
#[derive(Debug)]
pub struct Events {
    node: Name,
    start: u64,
    count: u32,
    seen: Seen,
    kept: Kept,
    /// Messages that were asked for, until when an answer is waited for.
    asked: BTreeMap<Id, Duration>,
}

impl Events {
    /// Those of a node's start, which has a random number.
    pub fn new(node: Name, start: u64) -> Self {
        let (seen, kept, asked) = Default::default();
        Self { node, start, count: 0, seen, kept, asked }
    }

    /// When [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Duration {
        self.kept.deadline().unwrap_or(Duration::MAX)
    }

    /// Sends a message to all members; this node is one of them. `wall_ms` is its wall clock.
    ///
    /// # Errors
    /// It is too long, or there are too many.
    pub fn send(
        &mut self,
        name: &str,
        payload: &[u8],
        (now, wall_ms): (Duration, u64),
        peers: &mut impl Peers,
    ) -> Result<Step, EventError> {
        let (node, name, payload) = (self.node.clone(), name.into(), payload.into());
        let event = Event { node, name, payload, time_ms: wall_ms };
        event.check()?;
        if self.kept.is_full() {
            return Err(EventError::Busy);
        }
        self.count = self.count.wrapping_add(1);
        Ok(self.take(Id(self.start, self.count), 0, event, now, peers))
    }

    /// Takes a datagram of a member.
    pub fn datagram(&mut self, from: &Name, bytes: &[u8], now: Duration, peers: &mut impl Peers) -> Step {
        let mut step = Step::default();
        match postcard::from_bytes(bytes) {
            Ok(Said::Event(id, hops, event)) if event.check().is_ok() && hops <= MAX_HOPS => {
                return self.take(id, hops, event, now, peers);
            }
            Ok(Said::Have(ids)) => {
                let missing = self.missing(&ids, now);
                if !missing.is_empty() {
                    step.say([from.clone()], &Said::Ask(missing));
                }
            }
            Ok(Said::Ask(ids)) => {
                for id in ids.iter().take(AT_A_TIME) {
                    if let Some((hops, event)) = self.kept.get(id) {
                        step.say([from.clone()], &Said::Event(*id, hops + 1, event.clone()));
                    }
                }
            }
            // Of a later version, or none at all.
            Ok(Said::Event(..)) | Err(_) => {}
        }
        step
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration, peers: &mut impl Peers) -> Step {
        let mut step = Step::default();
        for ids in self.kept.take_due(now).chunks(AT_A_TIME) {
            step.say(peers.random(FAN_OUT), &Said::Have(ids.to_vec()));
        }
        step
    }

    /// A message, which may be here already.
    fn take(&mut self, id: Id, hops: u8, event: Event, now: Duration, peers: &mut impl Peers) -> Step {
        let mut step = Step::default();
        self.asked.remove(&id);
        if !self.seen.is_new(id, now) {
            return step;
        }
        if hops < MAX_HOPS && self.kept.keep(id, hops, event.clone(), now) {
            step.say(peers.random(FAN_OUT), &Said::Event(id, hops + 1, event.clone()));
        }
        step.event = Some(event);
        step
    }

    /// What is to be asked for, of what another one has.
    fn missing(&mut self, ids: &[Id], now: Duration) -> Vec<Id> {
        self.asked.retain(|_, until| *until > now);
        let mut missing = Vec::new();
        for id in ids.iter().take(AT_A_TIME) {
            let is_asked = self.asked.len() >= ASKED || self.asked.contains_key(id);
            if !is_asked && !self.seen.has(id) {
                self.asked.insert(*id, now + PATIENCE);
                missing.push(*id);
            }
        }
        missing
    }
}

#[cfg(test)]
mod tests;
