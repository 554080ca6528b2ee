//! The node that worlds run: membership, the replicated logs and what is served by them, as the agent's cluster task has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use control::cluster::{
    Moment,
    agenda::Agenda,
    events::{Event as Message, Events},
    identity::{Identity, NodeName, Pool, PublicKey},
    keyring::Keyring,
    log::{Digest, Effects, Limits, Name},
    members::{Members, standings},
    membership::{Membership, Notice, Output, Settings, Tuning},
    records::{Facts, Record, Touched, View},
    replication::{Leaving, Pace, Replication, Time, Turn, Waiting},
    rotation::Serving,
    state::{self, SigningKey, State, Wall},
};

use crate::{
    client::{Answer, Asked, Held, Outcome},
    disk::Disk,
    messages::EVENTS,
    node::{Action, Node, Start},
    streams::{Kind, Stream},
    talks::Talk,
};

/// The cluster's name.
const CLUSTER: &str = "simulated";
/// Payloads of membership's datagrams: what replication says.
const LOGS: u8 = 1;

/// What members are told.
#[derive(Clone)]
pub struct MemberSettings {
    /// The text of the key file; none: no keys.
    pub keys: Option<String>,
    pub seeds: Vec<SocketAddrV4>,
    pub tuning: Tuning,
    /// What all nodes know of each other is held once.
    pub pool: Pool,
    /// Whether each says in the logs what it is, as agents do. Then every node holds a log of every other one.
    pub has_facts: bool,
}

/// What is observed.
#[derive(Debug)]
pub enum Event {
    /// Membership tells something.
    Notice(Notice),
    /// The view of user keys, services or nodes is another one.
    Touched(Touched),
    /// Services that this node serves otherwise now.
    Serves(BTreeSet<Name>),
    /// A client is answered.
    Answered(Answer),
    /// A message to all members has come.
    Heard(Message),
}

/// What rests on a step that is to be stored.
pub(crate) enum Then {
    Leave(Leaving),
    /// For the other side of a stream; none ends it.
    Say(Stream, Option<Vec<u8>>),
    /// For who has written.
    Answer(Answer),
}

/// A node.
pub struct Member {
    pub core: Membership,
    pub(crate) replication: Replication,
    pub(crate) events: Events,
    serving: Serving,
    /// Whether members stand otherwise than what is served knows.
    stands_otherwise: bool,
    waiting: Waiting<Then>,
    /// Writes that wait for the members to settle.
    pub(crate) held: Agenda<Held>,
    pub(crate) talks: BTreeMap<Stream, Talk>,
    pub(crate) streams: u64,
    to_store: Vec<(u64, Effects)>,
    pub(crate) actions: Vec<Action<Event>>,
    digest: Digest,
}

/// A node's name, of its address.
pub fn name(address: SocketAddrV4) -> NodeName {
    NodeName::new(&format!("node-{}", number(address))).expect("a host name label")
}

fn number(address: SocketAddrV4) -> u32 {
    u32::from(*address.ip()) & 0x00ff_ffff
}

/// A node's key, of its address.
fn key(address: SocketAddrV4) -> SigningKey {
    let mut secret = [7; 32];
    secret[..4].copy_from_slice(&address.ip().octets());
    SigningKey::from_bytes(&secret)
}

/// What a node says of itself: its address, and a slice of 256 addresses in 250.0.0.0/8.
fn facts(address: SocketAddrV4) -> Facts {
    let number = number(address);
    let slice = format!("250.{}.{}.0/24", number >> 8 & 0xff, number & 0xff);
    let slices = slice.parse().into_iter().collect();
    Facts { addresses: vec![(*address.ip()).into()], slices, ..Facts::default() }
}

impl Member {
    /// What all logs say.
    pub fn view(&self) -> &View {
        self.replication.state().view()
    }

    /// What this node serves.
    pub fn serving(&self) -> &Serving {
        &self.serving
    }

    /// The digest of all logs.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Writes records, and answers once they are stored.
    pub fn write(&mut self, at: Moment, asked: Asked, records: Vec<Record>) {
        let time = self.time(at);
        match self.replication.write(records, time, &mut Members(&mut self.core)) {
            Ok(turn) => {
                let outcome = self.outcome(&turn);
                self.done(at, turn, [Then::Answer(Answer { asked, outcome })]);
            }
            Err(error) => {
                let outcome = Outcome::Refused(error.to_string());
                self.tell(Event::Answered(Answer { asked, outcome }));
            }
        }
        self.carry_out(at);
    }

    /// Says good-bye.
    pub fn leave(&mut self, at: Moment) {
        self.core.leave(at);
        self.carry_out(at);
    }

    pub(crate) fn time(&self, at: Moment) -> Time {
        Time { now: at.now, wall: Wall { own_ms: at.wall, median_ms: self.core.wall(at) } }
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.actions.push(Action::Event(event));
    }

    /// Follows a step: it is stored first, then what rests on it leaves.
    pub(crate) fn done(&mut self, at: Moment, mut turn: Turn, then: impl IntoIterator<Item = Then>) {
        if !turn.effects.is_empty() {
            self.to_store.push((self.waiting.give(), std::mem::take(&mut turn.effects)));
            self.digest = self.replication.digest();
        }
        let leaving = turn.take_leaving().into_iter().map(Then::Leave);
        leaving.chain(then).for_each(|then| self.waiting.hold(then));
        for name in turn.touched.forgotten.iter().filter_map(|name| NodeName::new(name).ok()) {
            // One that is alive has begun anew.
            drop(self.core.forget(at, &name));
        }
        if turn.was_forgotten {
            self.state_facts(at);
        }
        self.serve(at, turn.touched);
        self.release(at);
    }

    /// Follows what has changed in what is served.
    fn serve(&mut self, at: Moment, touched: Touched) {
        let mut changed = BTreeSet::new();
        let view = self.replication.state().view();
        if !touched.services.is_empty() || !touched.nodes.is_empty() {
            changed.extend(self.serving.follow(view, &touched, at.now));
        }
        // Without services it makes no difference how thousands of members stand.
        if self.stands_otherwise && view.names().next().is_some() {
            self.stands_otherwise = false;
            let (standings, is_minority) = (standings(&self.core), self.core.is_minority());
            changed.extend(self.serving.stand(view, standings, is_minority, at.now));
        }
        if self.serving.deadline().is_some_and(|deadline| deadline <= at.now) {
            changed.extend(self.serving.elapse(view, at.now));
        }
        if !changed.is_empty() {
            self.tell(Event::Serves(changed));
        }
        if touched != Touched::default() {
            self.tell(Event::Touched(touched));
        }
    }

    /// Lets leave what is stored.
    fn release(&mut self, at: Moment) {
        while let Some(then) = self.waiting.release() {
            match then {
                Then::Leave(Leaving::Datagram(to, bytes)) => {
                    if let Ok(name) = NodeName::new(&to) {
                        // The member may have gone.
                        drop(self.core.send_payload(at, &name, LOGS, &bytes));
                    }
                }
                Then::Leave(Leaving::Open(stream, to, messages)) => self.open_logs(stream, &to, messages),
                Then::Say(stream, bytes) => self.actions.push(Action::Say { stream, bytes }),
                Then::Answer(answer) => self.tell(Event::Answered(answer)),
            }
        }
    }

    /// Says what this node is.
    fn state_facts(&mut self, at: Moment) {
        let facts = facts(self.core.identity().address());
        let state = self.replication.state();
        if state.view().facts_of(state.name()) != Some(&facts) {
            self.write(at, Asked::NOBODY, vec![Record::Facts(facts)]);
        }
    }

    /// Does what membership asks for.
    pub(crate) fn carry_out(&mut self, at: Moment) {
        loop {
            let outputs = self.core.take_outputs();
            if outputs.is_empty() {
                return;
            }
            outputs.into_iter().for_each(|output| self.carry_out_one(at, output));
        }
    }

    fn carry_out_one(&mut self, at: Moment, output: Output) {
        match output {
            Output::Send { to, datagram } => self.actions.push(Action::Send { to, datagram }),
            Output::Exchange { to, request } => self.open(to, Kind::Members, request, Talk::Members(to)),
            Output::Notice(notice) => {
                if let Notice::Up(_) = notice {
                    self.replication.met(at.now);
                }
                if let Notice::Up(_) | Notice::Down { .. } = notice {
                    self.stands_otherwise = true;
                    self.serve(at, Touched::default());
                }
                self.tell(Event::Notice(notice));
            }
            Output::Payload { from, protocol, bytes } => {
                if protocol == EVENTS {
                    self.hear_event(at, &from, &bytes);
                } else if protocol == LOGS {
                    let (from, time) = (from.as_str().into(), self.time(at));
                    let turn = self.replication.datagram(&from, &bytes, time, &mut Members(&mut self.core));
                    self.done(at, turn, []);
                }
            }
        }
    }
}

impl Node for Member {
    type Settings = MemberSettings;
    type Event = Event;

    fn start(start: Start<'_, MemberSettings>) -> Self {
        let Start { address, settings, disk, wall, seed } = start;
        let generation = (wall / 1_000).max(disk.generation() + 1);
        disk.set_generation(generation);
        let key = key(address);
        let public = PublicKey(key.verifying_key().to_bytes());
        let identity = Identity::new(name(address), address, generation, public);
        let at = Moment { now: Duration::ZERO, wall };
        let time = Time { now: at.now, wall: Wall { own_ms: wall, median_ms: wall } };
        let tag = seed.first_chunk().map_or(0, |tag| u32::from_le_bytes(*tag));
        let node =
            state::Identity { cluster: CLUSTER.to_owned(), name: name(address).as_str().into(), key, tag };
        let mut state = State::new(node, Limits::default());
        for (slot, head, entries) in disk.logs() {
            state.load(slot, head, entries).expect("what was stored is whole");
        }
        let started = state.start(time.wall).expect("there is room");
        let keyring = settings.keys.as_deref().map(|text| Keyring::parse(text).expect("keys"));
        let (seeds, tuning) = (settings.seeds.clone(), settings.tuning.clone());
        let pool = Some(settings.pool.clone());
        let core = Settings { cluster: CLUSTER.to_owned(), keyring, seeds, tuning, pool };
        let mut member = Self {
            core: Membership::new(identity, core, seed),
            replication: Replication::new(state, Pace::default(), at.now),
            events: Events::new(name(address).as_str().into(), u64::from(tag)),
            serving: Serving::default(),
            stands_otherwise: true,
            waiting: Waiting::default(),
            held: Agenda::default(),
            talks: BTreeMap::new(),
            streams: 0,
            to_store: Vec::new(),
            actions: Vec::new(),
            digest: Digest::default(),
        };
        let turn = member.replication.started(started, time, &mut Members(&mut member.core));
        member.digest = member.replication.digest();
        member.done(at, turn, []);
        if settings.has_facts {
            member.state_facts(at);
        }
        let view = member.view();
        let services = view.names().cloned().collect();
        let nodes = view.facts().map(|(name, _)| name.clone()).collect();
        member.serve(at, Touched { services, nodes, ..Touched::default() });
        member
    }

    fn datagram(&mut self, at: Moment, source: SocketAddr, datagram: &[u8]) {
        self.core.datagram(at, source, datagram);
        self.carry_out(at);
    }

    fn tick(&mut self, at: Moment) {
        if self.replication.deadline() <= at.now {
            let time = self.time(at);
            let turn = self.replication.tick(time, &mut Members(&mut self.core));
            self.done(at, turn, []);
        }
        self.tend_events(at);
        if self.core.deadline() <= at.now {
            self.core.tick(at);
        }
        while let Some((_, held)) = self.held.pop_until(at.now) {
            self.decide(at, held);
        }
        self.serve(at, Touched::default());
        self.carry_out(at);
    }

    fn deadline(&self) -> Duration {
        let own = self.core.deadline().min(self.replication.deadline()).min(self.events.deadline());
        [self.serving.deadline(), self.held.deadline()].into_iter().flatten().fold(own, Duration::min)
    }

    fn said(&mut self, at: Moment, stream: Stream, kind: Kind, bytes: &[u8]) {
        match kind {
            Kind::Members => self.hear_members(at, stream, bytes),
            Kind::Logs => self.hear_logs(at, stream, bytes),
            Kind::Write => self.hear_write(at, stream, bytes),
        }
        self.carry_out(at);
    }

    fn ended(&mut self, at: Moment, stream: Stream) {
        match self.talks.remove(&stream) {
            Some(Talk::Members(with)) => self.core.answered(at, with, None),
            Some(Talk::Logs(logs)) => self.replication.closed(logs),
            Some(Talk::Write(asked)) => {
                let outcome = Outcome::Refused("the member that decides can't be reached".to_owned());
                self.tell(Event::Answered(Answer { asked, outcome }));
            }
            None => {}
        }
        self.carry_out(at);
    }

    fn stored(&mut self, at: Moment, step: u64) {
        self.waiting.stored(step);
        self.release(at);
        self.carry_out(at);
    }

    fn take_actions(&mut self, disk: &mut Disk) -> Vec<Action<Event>> {
        self.to_store.drain(..).for_each(|(step, effects)| disk.give(step, effects));
        std::mem::take(&mut self.actions)
    }
}
