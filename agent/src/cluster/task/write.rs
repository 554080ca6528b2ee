//! User keys: reads of what is here, and writes, of which one key's owner decides those that compare.

use control::cluster::{
    identity::NodeName,
    log::Name,
    membership::MemberState,
    records::{self, UserValue, owner_of},
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

impl Task<'_> {
    /// Has a member decide on a write.
    fn ask_owner(&mut self, owner: &NodeName, bytes: Vec<u8>, reply: oneshot::Sender<KeyOutcome>) {
        let address = self.core.member(owner).map(|member| member.identity.address());
        let (Some(address), Some(shared), Some(transport)) = (address, &mut self.shared, &mut self.transport)
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

    /// Writes a key, or has its owner do so.
    pub(super) fn write_key(&mut self, write: KeyWrite, reply: oneshot::Sender<KeyOutcome>) {
        let owner = match self.decider(&write) {
            Ok(owner) => owner,
            // The client may have given up.
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        match (owner, postcard::to_allocvec(&write)) {
            (Some(owner), Ok(bytes)) => self.ask_owner(&owner, bytes, reply),
            _ => match self.write_here(write) {
                Ok((outcome, written)) => self.done(outcome, vec![Then::Reply(reply, Ok(written))]),
                Err(refusal) => drop(reply.send(Err(refusal))),
            },
        }
    }

    /// The other member that decides on a write; none: this node.
    fn decider(&self, write: &KeyWrite) -> Result<Option<NodeName>, KeyRefusal> {
        if self.shared.as_ref().is_none_or(|shared| shared.failing.is_some()) {
            return unavailable(self.why_not());
        }
        if write.expected.is_none() {
            return Ok(None);
        }
        let members = self.core.members();
        let counted = members.iter().filter(|member| member.state != MemberState::Left).count();
        let reachable: Vec<Name> = members
            .iter()
            .filter(|member| member.state.is_reachable())
            .map(|member| member.identity.name().as_str().into())
            .collect();
        if counted > 1 && reachable.len() * 2 <= counted {
            return unavailable(
                "minority: this node reaches no more than half of the members; try again once it does",
            );
        }
        let own = self.core.identity().name();
        let owner = owner_of(&write.key, &reachable).and_then(|owner| NodeName::new(owner).ok());
        Ok(owner.filter(|owner| owner != own))
    }

    /// Writes a key by this node's word.
    fn write_here(
        &mut self,
        KeyWrite { key, value, expected }: KeyWrite,
    ) -> Result<(Turn, KeyWritten), KeyRefusal> {
        let (time, why_not) = (self.time(), self.why_not());
        let Some(shared) = &mut self.shared else { return unavailable(why_not) };
        let view = shared.replication.state().view();
        let record = match value {
            Some(value) => Some(records::put(view, &key, &value, expected).map_err(refused)?),
            None => records::delete(view, &key, expected).map_err(refused)?,
        };
        let outcome = match record {
            Some(record) => {
                let mut members = Members(&mut self.core);
                shared.replication.write(vec![record], time, &mut members).map_err(refused)?
            }
            None => Default::default(),
        };
        let version = shared.replication.state().view().user(&key).map_or(0, |user| user.version);
        Ok((outcome, KeyWritten { key, version }))
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
        let Ok(write) = postcard::from_bytes::<KeyWrite>(&bytes) else { return drop(answer.send(None)) };
        let written = match self.decider(&write) {
            Ok(None) => self.write_here(write),
            Ok(Some(owner)) => {
                unavailable(format!("{owner} decides on this key for one of two members; try again"))
            }
            Err(refusal) => Err(refusal),
        };
        let (outcome, written) = match written {
            Ok((outcome, written)) => (outcome, Ok(written)),
            Err(refusal) => (Default::default(), Err(refusal)),
        };
        let bytes = postcard::to_allocvec::<KeyOutcome>(&written).ok();
        if self.shared.is_none() {
            return drop(answer.send(bytes));
        }
        self.done(outcome, vec![Then::Answer(answer, bytes)]);
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
