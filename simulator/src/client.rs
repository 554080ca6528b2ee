//! What clients ask of nodes: writes of user keys, of which one member decides those that compare.

use std::{collections::BTreeMap, time::Duration};

use control::cluster::{
    Moment,
    clock::Stamp,
    identity::NodeName,
    log::Key,
    members::{Decider, Members, decider},
    records,
    replication::Turn,
};

use crate::{
    member::{Event, Member, Then},
    streams::{Kind, Stream},
    talks::Talk,
};

/// A client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked(pub u64);

impl Asked {
    /// The node itself asks.
    pub const NOBODY: Self = Self(0);
}

/// What a client is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub asked: Asked,
    pub outcome: Outcome,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored: by which node, and the stamps that it has, by the records' keys.
    Written {
        by: String,
        stamps: BTreeMap<Key, Stamp>,
    },
    Refused(String),
}

/// A write of a user key; no value: a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyWrite {
    pub key: String,
    pub value: Option<Vec<u8>>,
    /// The version that the key must have; 0: it must not be there.
    pub expected: Option<u64>,
}

/// The same between nodes.
type AskedWrite = (String, Option<Vec<u8>>, Option<u64>);
/// What became of it.
type Decided = Result<(String, BTreeMap<Key, Stamp>), String>;

/// How long a write may wait for the members to settle.
const PATIENCE: Duration = Duration::from_secs(5);

/// A write on which a node is to decide.
pub(crate) struct Held {
    write: KeyWrite,
    asker: Asker,
    since: Duration,
}

/// Who asks.
enum Asker {
    Client(Asked),
    Member(Stream),
}

impl Asker {
    /// What to do once what was written is stored.
    fn then(self, outcome: Outcome) -> Then {
        match self {
            Self::Client(asked) => Then::Answer(Answer { asked, outcome }),
            Self::Member(stream) => {
                let decided: Decided = match outcome {
                    Outcome::Written { by, stamps } => Ok((by, stamps)),
                    Outcome::Refused(why) => Err(why),
                };
                Then::Say(stream, Some(postcard::to_allocvec(&decided).expect("it has a length")))
            }
        }
    }
}

impl Member {
    /// What a step that this node took of its own has written.
    pub(crate) fn outcome(&self, turn: &Turn) -> Outcome {
        let own = self.replication.state().name();
        let changes = turn.effects.changes.iter().filter(|change| change.origin == *own);
        let stamps =
            changes.filter_map(|change| Some((change.key.clone(), change.now.as_ref()?.stamp))).collect();
        Outcome::Written { by: own.to_string(), stamps }
    }

    /// Writes a key, or has the member that decides do so; the answer is an event.
    pub fn write_key(&mut self, at: Moment, asked: Asked, write: KeyWrite) {
        self.decide(at, Held { write, asker: Asker::Client(asked), since: at.now });
        self.carry_out(at);
    }

    /// Decides on a write now, or later, or has another member decide.
    pub(crate) fn decide(&mut self, at: Moment, held: Held) {
        let decider = match held.write.expected {
            Some(_) => decider(&self.core, self.view(), &held.write.key, at.now),
            None => Decider::Own,
        };
        match (decider, held) {
            (Decider::Own, Held { write, asker, .. }) => match self.write_here(at, &write) {
                Ok((turn, outcome)) => self.done(at, turn, [asker.then(outcome)]),
                Err(why) => self.refuse(at, asker, why),
            },
            (Decider::OwnFrom(then), held) if then <= held.since + PATIENCE => self.held.push(then, held),
            (Decider::Other(owner), Held { write, asker: Asker::Client(asked), .. }) => {
                self.ask(asked, &owner, write);
            }
            (decider, held) => self.refuse(at, held.asker, format!("{decider:?}")),
        }
    }

    fn refuse(&mut self, at: Moment, asker: Asker, why: String) {
        self.done(at, Turn::default(), [asker.then(Outcome::Refused(why))]);
    }

    fn ask(&mut self, asked: Asked, owner: &NodeName, KeyWrite { key, value, expected }: KeyWrite) {
        let Some(member) = self.core.member(owner) else { return };
        let write: AskedWrite = (key, value, expected);
        let bytes = postcard::to_allocvec(&write).expect("it has a length");
        self.open(member.identity.address(), Kind::Write, bytes, Talk::Write(asked));
    }

    fn write_here(&mut self, at: Moment, write: &KeyWrite) -> Result<(Turn, Outcome), String> {
        let KeyWrite { key, value, expected } = write;
        let view = self.view();
        let record = match value {
            Some(value) => records::put(view, key, value, *expected).map(Some),
            None => records::delete(view, key, *expected),
        };
        let record = record.map_err(|error| error.to_string())?;
        let time = self.time(at);
        let turn = self.replication.write(record.into_iter().collect(), time, &mut Members(&mut self.core));
        let turn = turn.map_err(|error| error.to_string())?;
        let outcome = self.outcome(&turn);
        Ok((turn, outcome))
    }

    /// A member asks this node to decide on a write, or has decided.
    pub(crate) fn hear_write(&mut self, at: Moment, stream: Stream, bytes: &[u8]) {
        if let Some(Talk::Write(asked)) = self.talks.remove(&stream) {
            let decided = postcard::from_bytes::<Decided>(bytes).expect("what a node says");
            let written = |(by, stamps)| Outcome::Written { by, stamps };
            let outcome = decided.map_or_else(Outcome::Refused, written);
            self.tell(Event::Answered(Answer { asked, outcome }));
            return self.done(at, Turn::default(), [Then::Say(stream, None)]);
        }
        let (key, value, expected) = postcard::from_bytes::<AskedWrite>(bytes).expect("what a node says");
        let write = KeyWrite { key, value, expected };
        self.decide(at, Held { write, asker: Asker::Member(stream), since: at.now });
    }
}
