//! User keys: reads of what is here, and writes, of which one key's owner decides those that compare.

use std::time::Duration;

use control::cluster::{
    identity::NodeName,
    members::{Decider, decider},
    records::{self, UserValue},
    replication::Turn,
};
use tokio::sync::oneshot;

use super::{
    Task,
    shared::{Members, Talk, Then},
};
use crate::cluster::{
    keys::{KeyOutcome, KeyRead, KeyRefusal, KeyValue, KeyWrite, KeyWritten},
    transport::{Kind, Said, StreamId},
};

fn unavailable<T>(why: impl Into<String>) -> Result<T, KeyRefusal> {
    Err(KeyRefusal::Unavailable(why.into()))
}

fn refused(why: impl ToString) -> KeyRefusal {
    KeyRefusal::Refused(why.to_string())
}

fn read(user: UserValue<'_>) -> KeyValue {
    KeyValue {
        key: user.key.to_string(),
        value: user.value.as_slice().to_vec(),
        version: user.version,
        node: user.node.to_string(),
        time_ms: user.time_ms,
    }
}

/// How long a write may wait for the members to settle.
const PATIENCE: Duration = Duration::from_secs(5);

/// A write on which this node is to decide.
pub(super) struct Held {
    write: KeyWrite,
    asker: Asker,
    asked: Duration,
}

/// Who asks: the answer goes there. It may have given up meanwhile.
enum Asker {
    Client(oneshot::Sender<KeyOutcome>),
    /// By a stream.
    Member(oneshot::Sender<Option<Vec<u8>>>),
}

impl Asker {
    /// What to do once what was written is stored.
    fn then(self, outcome: KeyOutcome) -> Then {
        match self {
            Self::Client(reply) => Then::Reply(reply, outcome),
            Self::Member(answer) => Then::Answer(answer, postcard::to_allocvec(&outcome).ok()),
        }
    }

    fn answer(self, outcome: KeyOutcome) {
        match self {
            Self::Client(reply) => drop(reply.send(outcome)),
            Self::Member(answer) => drop(answer.send(postcard::to_allocvec(&outcome).ok())),
        }
    }

    fn refuse(self, why: impl Into<String>) {
        self.answer(unavailable(why));
    }
}

impl Task<'_> {
    /// Has a member decide on a write.
    fn ask_owner(&mut self, owner: &NodeName, write: &KeyWrite, reply: oneshot::Sender<KeyOutcome>) {
        let address = self.core.member(owner).map(|member| member.identity.address());
        let bytes = postcard::to_allocvec(write);
        let (Some(address), Some(shared), Some(transport), Ok(bytes)) =
            (address, &mut self.shared, &mut self.transport, bytes)
        else {
            return;
        };
        self.streams += 1;
        shared.talks.insert(StreamId::Own(self.streams), Talk::Write(reply));
        transport.converse(self.streams, address, Kind::Write, bytes);
    }

    /// What is known here.
    pub(super) fn read_keys(&self, wanted: &KeyRead) -> Result<Vec<KeyValue>, KeyRefusal> {
        let Some(shared) = &self.shared else { return unavailable(self.why_not()) };
        let view = shared.replication.state().view();
        Ok(match wanted {
            KeyRead::One(key) => view.user(key).map(read).into_iter().collect(),
            KeyRead::Prefix(prefix) => view.users(prefix).map(read).collect(),
        })
    }

    pub(super) fn why_not(&self) -> String {
        let failing = self.shared.as_ref().and_then(|shared| shared.failing.clone());
        failing
            .or_else(|| self.unstored.clone())
            .unwrap_or_else(|| "the store is not open yet; try again".to_owned())
    }

    /// Writes a key, or has the member that decides do so.
    pub(super) fn write_key(&mut self, write: KeyWrite, reply: oneshot::Sender<KeyOutcome>) {
        self.decide(Held { write, asker: Asker::Client(reply), asked: self.now() });
    }

    /// Decides on a write now, or later, or has another member decide.
    pub(super) fn decide(&mut self, held: Held) {
        let now = self.now();
        let Some(shared) = self.shared.as_mut().filter(|shared| shared.failing.is_none()) else {
            return held.asker.refuse(self.why_not());
        };
        let view = shared.replication.state().view();
        let decider = match held.write.expected {
            Some(_) => decider(&self.core, view, &held.write.key, now),
            None => Decider::Own,
        };
        match (decider, held) {
            (Decider::Own, Held { write, asker, .. }) => self.write_here(write, asker),
            (Decider::OwnFrom(then), held) if then <= held.asked + PATIENCE => shared.held.push(then, held),
            (Decider::OwnFrom(_), held) => held.asker.refuse("members come and go; try again"),
            (Decider::Other(owner), Held { write, asker: Asker::Client(reply), .. }) => {
                self.ask_owner(&owner, &write, reply);
            }
            (Decider::Other(owner), held) => {
                held.asker.refuse(format!("{owner} decides on this key for one of two members; try again"));
            }
            (Decider::Nobody, held) => held.asker.refuse(
                "minority: this node reaches no more than half of the members; try again once it does",
            ),
        }
    }

    /// Writes a key by this node's word, and answers once it is stored.
    fn write_here(&mut self, write: KeyWrite, asker: Asker) {
        match self.written(write) {
            Ok((turn, written)) => {
                let then = asker.then(Ok(written));
                self.done(turn, vec![then]);
            }
            Err(refusal) => asker.answer(Err(refusal)),
        }
    }

    fn written(&mut self, write: KeyWrite) -> Result<(Turn, KeyWritten), KeyRefusal> {
        let KeyWrite { key, value, expected } = write;
        let (time, why_not) = (self.time(), self.why_not());
        let Some(shared) = &mut self.shared else { return unavailable(why_not) };
        let view = shared.replication.state().view();
        let record = match value {
            Some(value) => Some(records::put(view, &key, &value, expected).map_err(refused)?),
            None => records::delete(view, &key, expected).map_err(refused)?,
        };
        let turn = match record {
            Some(record) => {
                let mut members = Members(&mut self.core);
                shared.replication.write(vec![record], time, &mut members).map_err(refused)?
            }
            None => Turn::default(),
        };
        let version = shared.replication.state().view().user(&key).map_or(0, |user| user.version);
        Ok((turn, KeyWritten { key, version }))
    }

    /// A member asks this node to decide on a write, or has decided.
    pub(super) fn hear_write(&mut self, Said { stream, bytes, answer, .. }: Said) {
        if let StreamId::Own(_) = stream {
            let talk = self.shared.as_mut().and_then(|shared| shared.talks.remove(&stream));
            if let (Some(Talk::Write(reply)), Ok(outcome)) =
                (talk, postcard::from_bytes::<KeyOutcome>(&bytes))
            {
                drop(reply.send(outcome));
            }
            return drop(answer.send(None));
        }
        match postcard::from_bytes::<KeyWrite>(&bytes) {
            Ok(write) => self.decide(Held { write, asker: Asker::Member(answer), asked: self.now() }),
            Err(_) => drop(answer.send(None)),
        }
    }

    /// A conversation is over.
    pub(super) fn end_talk(&mut self, stream: StreamId) {
        let talk = self.shared.as_mut().and_then(|shared| shared.talks.remove(&stream));
        match talk {
            Some(Talk::Write(reply)) => {
                let why = "the member that decides on this key can't be reached; try again";
                drop(reply.send(unavailable(why)));
            }
            Some(Talk::Logs(logs)) => {
                if let Some(shared) = &mut self.shared {
                    shared.replication.closed(logs);
                }
            }
            None => {}
        }
    }
}
