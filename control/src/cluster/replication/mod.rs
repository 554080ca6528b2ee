//! How changes reach all members, and how what was missed is found.
//!
//! A change is pushed at once to some random members, and by each to whom it is new to some others; later they are told three
//! times its version, and ask when they lack it. While there are many changes, they are gathered into datagrams.
//! Whoever gets a change that continues what it lacks asks for that. Every few seconds each node sends the
//! digest of all that it has to one member; where they differ, both exchange what they lack on a stream, in order and
//! encrypted, which the shell carries.
//!
//! Equal digests and exchanges that came to their end tell which members have heard of removals. Members that have not
//! are asked first while this node has tombstones.

mod asks;
mod gossip;
mod leaving;
mod rumors;
mod streams;
mod turn;

use std::{collections::BTreeMap, time::Duration};

use self::{
    asks::{Asking, Asks},
    gossip::Gossip,
    rumors::Rumors,
    streams::Streams,
};
pub use self::{
    leaving::{Leaving, Messages, Waiting},
    streams::StreamId,
    turn::{Action, Pace, Peers, Time, Turn},
};
use super::{
    log::{DATAGRAM, Digest, Exchange, Message, Name, Segment, Want, WriteError},
    records::Record,
    state::{Outcome, Pushed, State},
};

/// The cluster's state, and its way to and from the members.
#[derive(Debug)]
pub struct Replication {
    state: State,
    pace: Pace,
    rumors: Rumors,
    streams: Streams,
    asks: Asks,
    /// Digests that were sent, by member, with the count of steps then; until when an answer counts.
    compared: BTreeMap<Name, (Duration, Digest, u64)>,
    next_compare: Duration,
    /// How many comparisons follow one another soon.
    soon: u32,
    next_tend: Duration,
}

/// From a member that came up to the next comparison, and from that to the one after it.
const SOON: Duration = Duration::from_millis(500);
/// How many comparisons follow one another after a member came up: half of them find its side of a partition.
const TIMES: u32 = 4;

impl Replication {
    /// A node's state that was started; `now` is the monotonic time.
    pub fn new(state: State, pace: Pace, now: Duration) -> Self {
        Self {
            state,
            pace,
            rumors: Rumors::default(),
            streams: Streams::default(),
            asks: Asks::default(),
            compared: BTreeMap::new(),
            next_compare: now,
            soon: 0,
            next_tend: now + pace.tend,
        }
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The digest of everything.
    pub fn digest(&mut self) -> Digest {
        self.state.digest()
    }

    /// When [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Duration {
        let own = [self.next_compare, self.next_tend];
        let others = [self.rumors.deadline(), self.streams.deadline(), self.asks.deadline()];
        others.into_iter().flatten().chain(own).min().unwrap_or_default()
    }

    /// Follows what `State::start` did.
    pub fn started(&mut self, outcome: Outcome, time: Time, peers: &mut impl Peers) -> Turn {
        let mut turn = Turn::default();
        self.follow(outcome, None, &mut turn);
        self.push(time, peers, &mut turn);
        turn
    }

    /// Writes records, all or none. They are acknowledged once the turn's effects are stored.
    ///
    /// # Errors
    /// Nothing was written, and why.
    pub fn write(
        &mut self,
        records: Vec<Record>,
        time: Time,
        peers: &mut impl Peers,
    ) -> Result<Turn, WriteError> {
        let outcome = self.state.write(records, time.wall)?;
        Ok(self.started(outcome, time, peers))
    }

    /// Forgets a member, which membership has forgotten.
    ///
    /// # Errors
    /// There is no room for what it wrote for the cluster.
    pub fn forget(&mut self, member: &Name, time: Time, peers: &mut impl Peers) -> Result<Turn, WriteError> {
        let outcome = self.state.forget(member, time.wall)?;
        Ok(self.started(outcome, time, peers))
    }

    /// Takes over what this node wrote under a former name ([`State::former_name`]).
    ///
    /// # Errors
    /// There is no room for that.
    pub fn rename_from(
        &mut self,
        former: &Name,
        time: Time,
        peers: &mut impl Peers,
    ) -> Result<Turn, WriteError> {
        let outcome = self.state.rename_from(former, time.wall)?;
        Ok(self.started(outcome, time, peers))
    }

    /// A member has come up: this node has joined, or a partition is healed, or that member has. It is not that member which is
    /// compared with, but some: of a thousand that hear of it, few are to ask it.
    pub fn met(&mut self, now: Duration) {
        self.soon = TIMES;
        self.next_compare = self.next_compare.min(now + SOON);
    }

    /// Does what is due.
    pub fn tick(&mut self, time: Time, peers: &mut impl Peers) -> Turn {
        let mut turn = Turn::default();
        let silent = self.streams.take_silent(time.now);
        turn.actions.extend(silent.into_iter().map(Action::Close));
        if self.next_tend <= time.now {
            self.next_tend = time.now + self.pace.tend;
            self.compared.retain(|_, (until, ..)| *until > time.now);
            let outcome = self.state.tend(&peers.all(), time.wall);
            self.follow(outcome, None, &mut turn);
        }
        if self.next_compare <= time.now {
            self.compare(time, peers, &mut turn);
        }
        self.ask_again(time, &mut turn);
        self.push(time, peers, &mut turn);
        turn
    }

    /// Sends a digest to a member: one that has not heard of removals, or any.
    fn compare(&mut self, time: Time, peers: &mut impl Peers, turn: &mut Turn) {
        let mut members = Vec::new();
        if self.state.waits() {
            let all = peers.all();
            let reachable = all.iter().filter(|member| member.is_reachable).map(|member| &member.name);
            members.extend(self.state.behind(reachable).into_iter().cloned());
            // Those that were asked already, and have not answered, come last.
            members.sort_by_key(|member| self.compared.get(member).map(|(until, ..)| *until));
            members.truncate(self.pace.fan_out);
        }
        let hurries = !members.is_empty();
        if members.is_empty() {
            members = peers.random(1);
        }
        let pace = if hurries { self.pace.hurry } else { self.pace.compare };
        self.next_compare = time.now + if self.soon > 0 { pace.min(SOON) } else { pace };
        self.soon = self.soon.saturating_sub(1);
        for member in members {
            let until = time.now + self.pace.compare;
            let digest = self.state.digest();
            self.compared.insert(member.clone(), (until, digest, self.state.logs().steps()));
            turn.say(&member, &Gossip::Digest(digest));
        }
    }

    /// Pushes what is new, and tells of what was.
    fn push(&mut self, time: Time, peers: &mut impl Peers, turn: &mut Turn) {
        let fresh = self.rumors.take_fresh(time.now);
        if !fresh.is_empty() {
            let members = peers.random(self.pace.fan_out);
            for datagram in Gossip::pushes(fresh) {
                members.iter().for_each(|member| turn.say(member, &datagram));
            }
        }
        let told = self.rumors.take_told(time.now);
        if !told.is_empty() {
            let members = peers.random(self.pace.fan_out);
            for versions in told.chunks(DATAGRAM / gossip::VERSION) {
                let datagram = Gossip::Have(versions.to_vec());
                members.iter().for_each(|member| turn.say(member, &datagram));
            }
        }
    }

    /// Takes a datagram of a member.
    pub fn datagram(&mut self, from: &Name, bytes: &[u8], time: Time, peers: &mut impl Peers) -> Turn {
        let mut turn = Turn::default();
        match Gossip::decode(bytes) {
            Some(Gossip::Push(segments)) => {
                segments.into_iter().for_each(|segment| self.receive(from, segment, time, &mut turn));
            }
            Some(Gossip::Have(versions)) => {
                for (origin, version) in versions {
                    let wants = self.state.logs().wants(&origin, &[version]);
                    wants.into_iter().for_each(|want| self.ask(from, want, time, &mut turn));
                }
            }
            Some(Gossip::Ask(want)) => {
                let part = self.state.logs().part(&want, DATAGRAM);
                let part = part.map(|part| part.within(DATAGRAM));
                part.into_iter().for_each(|part| turn.say(from, &Gossip::Push(vec![part])));
            }
            Some(Gossip::Digest(digest)) if digest == self.state.digest() => {
                self.state.is_same(from, self.state.logs().steps());
                turn.say(from, &Gossip::Same(digest));
            }
            Some(Gossip::Digest(_)) => turn.say(from, &Gossip::Differs),
            Some(Gossip::Same(digest)) => {
                // What has come meanwhile the other one may lack: its answer is about what it was asked.
                let sent = self.compared.remove(from);
                if let Some((_, _, steps)) = sent.filter(|(_, sent, _)| *sent == digest) {
                    self.state.is_same(from, steps);
                }
            }
            Some(Gossip::Differs) if self.compared.remove(from).is_some() => {
                self.exchange(from, time, &mut turn);
            }
            Some(Gossip::Differs) | None => {}
        }
        self.push(time, peers, &mut turn);
        turn
    }

    fn receive(&mut self, from: &Name, segment: Segment, time: Time, turn: &mut Turn) {
        match self.state.receive(segment.clone(), time.wall) {
            Ok((pushed, outcome)) => {
                self.follow(outcome, Some(from), turn);
                match pushed {
                    Pushed::New => {
                        self.asks.remove(&segment.signed.head.origin);
                        // A last part alone means nothing to others.
                        let is_whole = segment.since == segment.start;
                        self.rumors.add(if is_whole { segment } else { segment.within(0) });
                    }
                    Pushed::Known => {}
                    Pushed::Ask(want) => {
                        if segment.entries.is_empty() {
                            // It was too large for a datagram.
                            self.exchange(from, time, turn);
                        } else {
                            if !segment.is_last() {
                                self.asks.go_on(&want.origin);
                            }
                            self.ask(from, want, time, turn);
                        }
                    }
                }
            }
            Err(refusal) => turn.refusals.push((from.clone(), refusal)),
        }
    }

    /// Asks a member for a log.
    fn ask(&mut self, member: &Name, want: Want, time: Time, turn: &mut Turn) {
        match self.asks.ask(member, &want, time.now) {
            Asking::Now => turn.say(member, &Gossip::Ask(want)),
            Asking::Later => {}
            Asking::Exchange => self.exchange(member, time, turn),
        }
    }

    /// Asks others for what has not come.
    fn ask_again(&mut self, time: Time, turn: &mut Turn) {
        for (origin, version, member) in self.asks.take_due(time.now) {
            let wants = self.state.logs().wants(&origin, &[version]);
            if wants.is_empty() {
                self.asks.remove(&origin);
            }
            wants.into_iter().for_each(|want| self.ask(&member, want, time, turn));
        }
    }

    /// Begins an exchange with a member.
    fn exchange(&mut self, member: &Name, time: Time, turn: &mut Turn) {
        if !self.streams.may_begin(member) {
            return;
        }
        let (exchange, first) = self.state.begin_exchange();
        let Some(stream) = self.streams.add(member, exchange, true, time.now) else { return };
        turn.actions.push(Action::Open { stream, to: member.clone() });
        turn.actions.push(Action::Send { stream, message: first.encode() });
    }

    /// A member has opened a stream; `None`: there are enough, it is to be closed.
    pub fn accept(&mut self, from: &Name, time: Time) -> Option<StreamId> {
        let exchange: Exchange = self.state.answering();
        self.streams.add(from, exchange, false, time.now)
    }

    /// Takes what the other side of a stream has said at a time; gives what is to be said to it. `None`: the stream is over.
    ///
    /// Each side says all it has to say at a time. Who has begun ends it, once there is nothing left to say.
    pub fn hear(
        &mut self,
        id: StreamId,
        said: &Messages,
        time: Time,
        peers: &mut impl Peers,
    ) -> (Turn, Option<Messages>) {
        let Some(is_begun) = self.streams.is_begun(id) else { return (Turn::default(), None) };
        let mut turn = Turn::default();
        for message in said {
            turn.extend(self.message(id, message, time, peers));
        }
        let answer = turn.take_said(id);
        let is_end = answer.is_empty() && is_begun;
        (turn, if is_end { None } else { Some(answer) })
    }

    /// Takes a message of a stream.
    pub fn message(&mut self, id: StreamId, bytes: &[u8], time: Time, peers: &mut impl Peers) -> Turn {
        let mut turn = Turn::default();
        let Some(stream) = self.streams.get(id, time.now) else {
            turn.actions.push(Action::Close(id));
            return turn;
        };
        let member = stream.member.clone();
        let Ok(message) = Message::decode(bytes) else {
            self.close(id, &mut turn);
            return turn;
        };
        let outcome = self.state.answer(&mut stream.exchange, &member, message, time.wall);
        let is_over = stream.exchange.is_over();
        for message in &outcome.messages {
            turn.actions.push(Action::Send { stream: id, message: message.encode() });
        }
        self.follow(outcome, Some(&member), &mut turn);
        if is_over {
            self.close(id, &mut turn);
        }
        self.push(time, peers, &mut turn);
        turn
    }

    fn close(&mut self, id: StreamId, turn: &mut Turn) {
        self.streams.remove(id);
        turn.actions.push(Action::Close(id));
    }

    /// A stream is no more, or could not be opened.
    pub fn closed(&mut self, id: StreamId) {
        self.streams.remove(id);
    }

    /// Follows what was done to the state: what this node has written goes round.
    fn follow(&mut self, outcome: Outcome, from: Option<&Name>, turn: &mut Turn) {
        turn.effects.extend(outcome.effects);
        turn.touched.extend(outcome.touched);
        turn.was_forgotten |= outcome.was_forgotten;
        turn.held_back = turn.held_back.take().or(outcome.held_back);
        let sender = from.cloned().unwrap_or_else(|| self.state.name().clone());
        turn.refusals.extend(outcome.refusals.into_iter().map(|refusal| (sender.clone(), refusal)));
        outcome.pushes.into_iter().for_each(|push| self.rumors.add(push));
    }
}

#[cfg(test)]
mod tests;
