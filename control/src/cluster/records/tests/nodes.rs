//! A cluster of states, without a network between them.

use std::collections::VecDeque;

use ed25519_dalek::SigningKey;

use super::super::*;
use crate::{
    cluster::{
        log::{Change, Item, Key, Limits, Listener, Name, Segment, SignedHead},
        state::{Identity, Outcome, State, Wall},
    },
    service::{Algorithm, Backend, Declared, Definition, Service, VipSpec},
};

pub(super) const NOW: u64 = 1_796_000_000_000;

pub(super) fn vip(last: u8) -> VipSpec {
    format!("10.96.0.{last}:80/tcp").parse().expect("a VIP")
}

pub(super) fn socket(last: u8) -> std::net::SocketAddr {
    ([250, 0, 28, last], 80).into()
}

pub(super) fn define(name: &str, last: u8) -> Record {
    let what = Definition { vip: vip(last), algorithm: Algorithm::Maglev, checking: None };
    Record::Define { name: name.into(), what }
}

pub(super) fn offer(name: &str, last: u8, weight: u32) -> Record {
    Record::Offer(name.into(), socket(last), BackendRecord { weight, file: None })
}

pub(super) fn service(name: &str, last: u8, backends: &[u8]) -> Declared {
    let backend = |&last: &u8| Backend { address: [250, 0, 28, last].into(), port: 80, weight: 1 };
    Service {
        name: name.to_owned(),
        vip: vip(last),
        algorithm: Algorithm::Maglev,
        checking: None,
        backends: backends.iter().map(backend).collect(),
    }
}

/// A node with its store.
pub(super) struct Node {
    pub(super) state: State,
    heads: std::collections::BTreeMap<(Name, u32), SignedHead>,
    entries: std::collections::BTreeMap<(Name, u32, Key), Item>,
    number: u8,
    starts: u32,
    pub(super) wall_ms: u64,
    pub(super) pushes: Vec<Segment>,
    pub(super) touched: Touched,
    pub(super) was_forgotten: bool,
}

impl Node {
    pub(super) fn new(number: u8) -> Self {
        let state = Self::state(&format!("h{number}"), number, 0);
        let (heads, entries, pushes, touched) = Default::default();
        let was_forgotten = false;
        Self { state, heads, entries, number, starts: 0, wall_ms: NOW, pushes, touched, was_forgotten }
    }

    fn state(name: &str, number: u8, starts: u32) -> State {
        let identity = Identity {
            cluster: "test".to_owned(),
            name: Name::from(name),
            key: SigningKey::from_bytes(&[number + 1; 32]),
            tag: u32::from(number) << 16 | starts,
        };
        State::new(identity, Limits::default())
    }

    pub(super) fn name(&self) -> Name {
        self.state.name().clone()
    }

    pub(super) fn wall(&self) -> Wall {
        Wall { own_ms: self.wall_ms, median_ms: NOW }
    }

    pub(super) fn took(&mut self, outcome: Outcome) -> Vec<crate::cluster::log::Message> {
        assert_eq!(outcome.refusals, []);
        for Change { origin, slot, key, now, .. } in outcome.effects.changes {
            match now {
                Some(item) => self.entries.insert((origin, slot, key), item),
                None => self.entries.remove(&(origin, slot, key)),
            };
        }
        for (origin, slot, head) in outcome.effects.heads {
            match head {
                Some(head) => self.heads.insert((origin, slot), head),
                None => self.heads.remove(&(origin, slot)),
            };
        }
        self.pushes.extend(outcome.pushes);
        self.touched.extend(outcome.touched);
        self.was_forgotten |= outcome.was_forgotten;
        outcome.messages
    }

    pub(super) fn write(&mut self, records: Vec<Record>) {
        self.wall_ms += 1;
        let outcome = self.state.write(records, self.wall()).expect("small records");
        self.took(outcome);
    }

    /// All that this node's file defines.
    pub(super) fn file(&mut self, file: &str, services: &[Declared]) -> Vec<Record> {
        let (name, file) = (self.name(), Name::from(file));
        let (view, logs) = (self.state.view(), self.state.logs());
        let stated = services.iter().map(|service| Name::from(service.name.as_str()));
        let names: std::collections::BTreeSet<Name> = stated.chain(claimed(view, &name)).collect();
        let defined: Vec<Definition> = services.iter().map(Definition::of).collect();
        let said = |of: &Name| {
            let place = services.iter().position(|service| *service.name == **of)?;
            Some(Said { file: &file, definition: &defined[place], backends: &services[place].backends })
        };
        let records: Vec<Record> =
            names.iter().flat_map(|of| state(view, logs, &name, of, said(of))).collect();
        if !records.is_empty() {
            self.write(records.clone());
        }
        records
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        self.write(vec![put(self.state.view(), key, value.as_bytes(), None).expect("small")]);
    }

    pub(super) fn delete(&mut self, key: &str) {
        let record = delete(self.state.view(), key, None).expect("any version");
        self.write(record.into_iter().collect());
    }

    pub(super) fn restart(&mut self) {
        let name = self.name();
        self.restart_as(&name);
    }

    /// Starts again with the store that it has.
    pub(super) fn restart_as(&mut self, name: &str) {
        self.starts += 1;
        self.state = Self::state(name, self.number, self.starts);
        for ((origin, slot), head) in &self.heads {
            let of_log = self.entries.iter().filter(|((own, other, _), _)| (own, other) == (origin, slot));
            let entries = of_log.map(|((.., key), item)| (key.clone(), item.clone()));
            self.state.load(*slot, head.clone(), entries).expect("as it was stored");
        }
        let outcome = self.state.start(self.wall()).expect("room");
        self.took(outcome);
    }

    pub(super) fn lose_store(&mut self) {
        (self.heads, self.entries) = Default::default();
        self.restart();
    }

    pub(super) fn tend(&mut self, members: &[Name]) {
        let name = self.name();
        let others = members.iter().filter(|member| **member != name);
        let others: Vec<Listener> =
            others.map(|name| Listener { name: name.clone(), is_reachable: true }).collect();
        let outcome = self.state.tend(&others, self.wall());
        self.took(outcome);
    }

    pub(super) fn forget(&mut self, name: &Name) {
        let outcome = self.state.forget(name, self.wall()).expect("room");
        self.took(outcome);
    }

    /// The backends of a service, as `ADDRESS WEIGHT NODE`, by the last byte of the address.
    pub(super) fn offers(&self, name: &str) -> Vec<(u8, u32, String)> {
        let last = |socket: std::net::SocketAddr| match socket.ip() {
            std::net::IpAddr::V4(address) => address.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        let offers = self.state.view().service(name).into_iter().flat_map(Parts::offers);
        offers.map(|offer| (last(offer.socket), offer.weight, offer.node.to_string())).collect()
    }

    pub(super) fn vip(&self, name: &str) -> Option<VipSpec> {
        self.state.view().service(name)?.definition().map(|(_, definition)| definition.vip.clone())
    }

    pub(super) fn get(&self, key: &str) -> Option<String> {
        let value = self.state.view().user(key)?.value;
        Some(String::from_utf8_lossy(value.as_slice()).into_owned())
    }
}

/// Two nodes give each other what they lack.
pub(super) fn exchange(one: &mut Node, other: &mut Node) {
    let (mut asking, first) = one.state.begin_exchange();
    let mut answering = other.state.answering();
    let mut under_way = VecDeque::from([(false, first)]);
    while let Some((is_for_one, message)) = under_way.pop_front() {
        let (node, side, peer) = if is_for_one {
            (&mut *one, &mut asking, other.name())
        } else {
            (&mut *other, &mut answering, one.name())
        };
        let wall = node.wall();
        let outcome = node.state.answer(side, &peer, message, wall);
        under_way.extend(node.took(outcome).into_iter().map(|message| (!is_for_one, message)));
    }
}

/// All with all, until nothing is new.
pub(super) fn settle(nodes: &mut [Node]) {
    for _round in 0..3 {
        for one in 0..nodes.len() {
            for other in one + 1..nodes.len() {
                let [one, other] = nodes.get_disjoint_mut([one, other]).expect("two nodes");
                exchange(one, other);
            }
        }
    }
}

/// Has all nodes look after their logs and exchange what differs, as often as it takes until nothing is left to collect.
pub(super) fn tidy(nodes: &mut [Node], members: &[Name]) {
    for _round in 0..4 {
        nodes.iter_mut().for_each(|node| node.tend(members));
        settle(nodes);
    }
}

pub(super) fn cluster(count: u8) -> Vec<Node> {
    (1..=count).map(Node::new).collect()
}

pub(super) fn names(nodes: &[Node]) -> Vec<Name> {
    nodes.iter().map(Node::name).collect()
}
