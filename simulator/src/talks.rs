//! A node's streams.

use std::net::SocketAddrV4;

use control::cluster::{
    Moment,
    identity::NodeName,
    members::Members,
    replication::{Messages, StreamId, Turn},
};

use crate::{
    client::Asked,
    member::{Member, Then},
    node::Action,
    streams::{Kind, Stream},
};

/// A stream.
pub(crate) enum Talk {
    Members(SocketAddrV4),
    Logs(StreamId),
    /// Another member decides on this client's write.
    Write(Asked),
}

/// What one side of a stream about logs says at a time, with its name.
type Saying = (String, Messages);

impl Member {
    pub(crate) fn open_logs(&mut self, stream: StreamId, to: &str, messages: Messages) {
        let member = NodeName::new(to).ok().and_then(|name| self.core.member(&name));
        match member {
            Some(member) => {
                let bytes = self.saying(messages);
                self.open(member.identity.address(), Kind::Logs, bytes, Talk::Logs(stream));
            }
            None => self.replication.closed(stream),
        }
    }

    pub(crate) fn open(&mut self, to: SocketAddrV4, kind: Kind, bytes: Vec<u8>, talk: Talk) {
        self.streams += 1;
        self.talks.insert(Stream::Own(self.streams), talk);
        self.actions.push(Action::Open { number: self.streams, to, kind, bytes });
    }

    fn saying(&self, messages: Messages) -> Vec<u8> {
        let saying: Saying = (self.replication.state().name().to_string(), messages);
        postcard::to_allocvec(&saying).expect("it has a length")
    }

    /// The other side of a stream about members has said something.
    pub(crate) fn hear_members(&mut self, at: Moment, stream: Stream, bytes: &[u8]) {
        let answer = match self.talks.remove(&stream) {
            Some(Talk::Members(with)) => {
                self.core.answered(at, with, Some(bytes));
                None
            }
            _ => self.core.answer(at, bytes),
        };
        self.actions.push(Action::Say { stream, bytes: answer });
    }

    /// The other side of a stream about logs has said something.
    pub(crate) fn hear_logs(&mut self, at: Moment, stream: Stream, bytes: &[u8]) {
        let answer = self.answer_logs(at, stream, bytes);
        let (turn, messages) = answer.unwrap_or_default();
        let bytes = messages.map(|messages| self.saying(messages));
        self.done(at, turn, [Then::Say(stream, bytes)]);
    }

    fn answer_logs(&mut self, at: Moment, stream: Stream, bytes: &[u8]) -> Option<(Turn, Option<Messages>)> {
        let (from, said) = postcard::from_bytes::<Saying>(bytes).ok()?;
        let member = NodeName::new(&from).ok().and_then(|name| self.core.member(&name))?;
        if !member.state.is_reachable() {
            return None;
        }
        let time = self.time(at);
        let logs = match (self.talks.get(&stream), stream) {
            (Some(Talk::Logs(logs)), _) => *logs,
            (None, Stream::Other(_)) => self.replication.accept(&from.as_str().into(), time)?,
            _ => return None,
        };
        self.talks.insert(stream, Talk::Logs(logs));
        Some(self.replication.hear(logs, &said, time, &mut Members(&mut self.core)))
    }
}
