//! How changes reach all members, and how what was missed is found.
//!
//! A change is pushed at once to some random members, and by each to whom it is new to some others; twice later they are told
//! its version, and ask when they lack it. While there are many changes, they are gathered into datagrams.
//! Whoever gets a change that continues what it lacks asks for that. Every few seconds each node sends the
//! digest of all that it has to one member; where they differ, both exchange what they lack on a stream, in order and
//! encrypted, which the shell carries.
//!
//! Equal digests and exchanges that came to their end tell which members have heard of removals. Members that have not
//! are asked first while this node has tombstones.

mod gossip;
mod rumors;
mod streams;

use std::{collections::BTreeMap, time::Duration};

pub use self::streams::StreamId;
use self::{gossip::Gossip, rumors::Rumors, streams::Streams};
use super::{
    log::{DATAGRAM, Digest, Effects, Exchange, Message, Name, Refusal, Segment, Want, WriteError},
    records::{Record, Touched},
    state::{Outcome, Pushed, State, Wall},
};

/// The members that a node knows.
pub trait Peers {
    /// Some reachable members other than this node, at random.
    fn random(&mut self, count: usize) -> Vec<Name>;
    /// All members other than this node, dead ones too; not those that were forgotten.
    fn all(&self) -> Vec<Name>;
    /// Whether a member is reachable.
    fn is_reachable(&self, member: &Name) -> bool;
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
    /// From one comparison of digests to the next.
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
            compare: Duration::from_secs(15),
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
        /// At most [`super::log::MAX_MESSAGE`] bytes.
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
    /// Removals of this node wait: no more can be made.
    pub held_back: Option<WriteError>,
}

/// How long an origin's log is not asked for again.
const PATIENCE: Duration = Duration::from_millis(60);
/// Parts that are asked for by datagrams; what is larger is exchanged.
const PARTS: u32 = 8;
/// Origins whose logs are asked for at most; others are found by digests.
const ASKED: usize = 4_096;

/// The cluster's state, and its way to and from the members.
#[derive(Debug)]
pub struct Replication {
    state: State,
    pace: Pace,
    rumors: Rumors,
    streams: Streams,
    /// By origin: until when its log is not asked for again, and how many parts of it were.
    asked: BTreeMap<Name, (Duration, u32)>,
    /// Digests that were sent, by member, with the count of steps then; until when an answer counts.
    compared: BTreeMap<Name, (Duration, Digest, u64)>,
    next_compare: Duration,
    next_tend: Duration,
}

impl Replication {
    /// A node's state that was started; `now` is the monotonic time.
    pub fn new(state: State, pace: Pace, now: Duration) -> Self {
        Self {
            state,
            pace,
            rumors: Rumors::default(),
            streams: Streams::default(),
            asked: BTreeMap::new(),
            compared: BTreeMap::new(),
            next_compare: now,
            next_tend: now + pace.tend,
        }
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Duration {
        let own = [self.next_compare, self.next_tend];
        let others = [self.rumors.deadline(), self.streams.deadline()];
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

    /// Does what is due.
    pub fn tick(&mut self, time: Time, peers: &mut impl Peers) -> Turn {
        let mut turn = Turn::default();
        let silent = self.streams.take_silent(time.now);
        turn.actions.extend(silent.into_iter().map(Action::Close));
        if self.next_tend <= time.now {
            self.next_tend = time.now + self.pace.tend;
            self.asked.retain(|_, (until, _)| *until > time.now);
            self.compared.retain(|_, (until, ..)| *until > time.now);
            let members = peers.all();
            match self.state.tend(&members, time.wall) {
                Ok(outcome) => self.follow(outcome, None, &mut turn),
                Err(error) => turn.held_back = Some(error),
            }
        }
        if self.next_compare <= time.now {
            self.compare(time, peers, &mut turn);
        }
        self.push(time, peers, &mut turn);
        turn
    }

    /// Sends a digest to a member: one that has not heard of removals, or any.
    fn compare(&mut self, time: Time, peers: &mut impl Peers, turn: &mut Turn) {
        let mut members = Vec::new();
        if self.state.waits() {
            let all = peers.all();
            let behind = self.state.behind(&all).into_iter().filter(|member| peers.is_reachable(member));
            members.extend(behind.cloned());
            // Those that were asked already, and have not answered, come last.
            members.sort_by_key(|member| self.compared.get(member).map(|(until, ..)| *until));
            members.truncate(self.pace.fan_out);
        }
        let hurries = !members.is_empty();
        if members.is_empty() {
            members = peers.random(1);
        }
        self.next_compare = time.now + if hurries { self.pace.hurry } else { self.pace.compare };
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
                        self.asked.remove(&segment.signed.head.origin);
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
                            self.go_on(&want.origin, &segment);
                            self.ask(from, want, time, turn);
                        }
                    }
                }
            }
            Err(refusal) => turn.refusals.push((from.clone(), refusal)),
        }
    }

    /// A part has come, perhaps: the next one may be asked for.
    fn go_on(&mut self, origin: &Name, segment: &Segment) {
        let asked = self.asked.get_mut(origin).filter(|_| !segment.is_last());
        if let Some((until, _)) = asked {
            *until = Duration::ZERO;
        }
    }

    /// Asks a member for a log, unless somebody was asked just now.
    fn ask(&mut self, member: &Name, want: Want, time: Time, turn: &mut Turn) {
        if self.asked.len() >= ASKED && !self.asked.contains_key(&want.origin) {
            return;
        }
        let (until, parts) = self.asked.entry(want.origin.clone()).or_default();
        if *until > time.now {
            return;
        }
        (*until, *parts) = (time.now + PATIENCE, *parts + 1);
        if *parts > PARTS {
            *parts = 0;
            self.exchange(member, time, turn);
            return;
        }
        turn.say(member, &Gossip::Ask(want));
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
        let sender = from.cloned().unwrap_or_else(|| self.state.name().clone());
        turn.refusals.extend(outcome.refusals.into_iter().map(|refusal| (sender.clone(), refusal)));
        outcome.pushes.into_iter().for_each(|push| self.rumors.add(push));
    }
}

impl Turn {
    fn say(&mut self, to: &Name, gossip: &Gossip) {
        self.actions.push(Action::Datagram { to: to.clone(), bytes: gossip.encode() });
    }
}

#[cfg(test)]
mod tests;
