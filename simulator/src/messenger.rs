//! A node that runs membership, and messages to all members.

use std::{
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use control::cluster::{
    Moment,
    events::{Event, Events, Step},
    identity::NodeName,
    log::{Listener, Name},
    membership::{Membership, Output},
    replication::Peers,
};

use crate::{
    disk::Disk,
    node::{Action, Member, MemberSettings, Node, Start, name},
};

/// The number of the protocol among payloads.
const PROTOCOL: u8 = 2;

pub struct Messenger {
    member: Member,
    events: Events,
    /// What membership asks for.
    outputs: Vec<Output>,
    /// Messages that came.
    came: Vec<Event>,
}

/// The members, for messages.
struct Members<'m>(&'m mut Membership);

impl Peers for Members<'_> {
    fn random(&mut self, count: usize) -> Vec<Name> {
        self.0.random_reachable(count).iter().map(|member| member.name().as_str().into()).collect()
    }

    fn all(&self) -> Vec<Listener> {
        let members = self.0.members().into_iter();
        let listener = |member: control::cluster::membership::Member| Listener {
            name: member.identity.name().as_str().into(),
            is_reachable: member.state.is_reachable(),
        };
        members.map(listener).collect()
    }
}

impl Messenger {
    /// The membership of this node.
    pub fn core(&self) -> &Membership {
        &self.member.core
    }

    /// Sends a message to all members.
    pub fn send(&mut self, at: Moment, name: &str, payload: &[u8]) {
        let mut members = Members(&mut self.member.core);
        let sent = self.events.send(name, payload, (at.now, at.wall), &mut members);
        self.pass_on(at, sent.expect("a small message"));
    }

    fn pass_on(&mut self, at: Moment, Step { datagrams, event }: Step) {
        for (to, bytes) in datagrams {
            let to = NodeName::new(&to).expect("a member's name");
            // It may have died.
            drop(self.member.core.send_payload(at, &to, PROTOCOL, &bytes));
        }
        self.came.extend(event);
    }

    /// Takes what membership gives out; messages are answered at once.
    fn hear(&mut self, at: Moment) {
        for output in self.member.core.take_outputs() {
            match output {
                Output::Payload { from, bytes, .. } => {
                    let from = from.as_str().into();
                    let mut members = Members(&mut self.member.core);
                    let step = self.events.datagram(&from, &bytes, at.now, &mut members);
                    self.pass_on(at, step);
                }
                output => self.outputs.push(output),
            }
        }
    }
}

impl Node for Messenger {
    type Settings = MemberSettings;
    type Event = Event;

    fn start(start: Start<'_, MemberSettings>) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = start.seed;
        let number = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let events = Events::new(name(start.address).as_str().into(), number);
        let (outputs, came) = Default::default();
        Self { member: Member::start(start), events, outputs, came }
    }

    fn datagram(&mut self, at: Moment, source: SocketAddr, datagram: &[u8]) {
        self.member.datagram(at, source, datagram);
        self.hear(at);
    }

    fn tick(&mut self, at: Moment) {
        if self.events.deadline() <= at.now {
            let step = self.events.tick(at.now, &mut Members(&mut self.member.core));
            self.pass_on(at, step);
        }
        if self.member.deadline() <= at.now {
            self.member.tick(at);
        }
        self.hear(at);
    }

    fn deadline(&self) -> Duration {
        self.member.deadline().min(self.events.deadline())
    }

    fn answer(&mut self, at: Moment, request: &[u8]) -> Option<Vec<u8>> {
        self.member.answer(at, request)
    }

    fn answered(&mut self, at: Moment, from: SocketAddrV4, answer: Option<&[u8]>) {
        self.member.answered(at, from, answer);
        self.hear(at);
    }

    fn take_actions(&mut self, _disk: &mut Disk) -> Vec<Action<Event>> {
        self.outputs.extend(self.member.core.take_outputs());
        let outputs = self.outputs.drain(..).filter_map(|output| match output {
            Output::Send { to, datagram } => Some(Action::Send { to, datagram }),
            Output::Exchange { to, request } => Some(Action::Exchange { to, request }),
            Output::Notice(_) | Output::Payload { .. } => None,
        });
        outputs.chain(self.came.drain(..).map(Action::Event)).collect()
    }
}
