//! A few memberships with a wire that takes no time.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use super::super::{Member, MemberState, Membership, Notice, Output, Settings, Tuning};
use crate::cluster::{
    Moment,
    identity::{Identity, NodeName, PublicKey},
    keyring::Keyring,
};

pub(super) const WALL: u64 = 1_795_242_852_000;
pub(super) const DAY: i64 = 86_400_000;

pub(super) fn address(host: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host), 7481)
}

pub(super) fn named(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(super) fn ring(letter: char) -> Option<Keyring> {
    Some(Keyring::parse(&format!("{}=", letter.to_string().repeat(43))).unwrap())
}

pub(super) fn settings(cluster: &str, key: Option<char>) -> Settings {
    Settings {
        cluster: cluster.to_owned(),
        keyring: key.and_then(ring),
        seeds: vec![address(1)],
        tuning: Tuning::default(),
        pool: None,
    }
}

/// A node of cluster `prod` with its own key.
pub(super) fn node(name: &str, host: u8, key: u8, generation: u64) -> Membership {
    let identity = Identity::new(named(name), address(host), generation, PublicKey([key; 32]));
    Membership::new(identity, settings("prod", Some('A')), [host; 32])
}

pub(super) struct Host {
    pub(super) core: Membership,
    pub(super) runs: bool,
    pub(super) ahead: i64,
    started: Duration,
    pub(super) notices: Vec<Notice>,
    pub(super) payloads: Vec<(NodeName, u8, Vec<u8>)>,
    /// Datagrams that it sent, and where to.
    pub(super) sent: Vec<(SocketAddrV4, Vec<u8>)>,
}

#[derive(Default)]
pub(super) struct Net {
    pub(super) hosts: Vec<Host>,
    pub(super) now: Duration,
    pub(super) cut: BTreeSet<(usize, usize)>,
}

impl Net {
    pub(super) fn of(nodes: Vec<Membership>) -> Self {
        let mut net = Self::default();
        nodes.into_iter().for_each(|node| net.add(node));
        net
    }

    /// Three nodes that know each other: a, b and c.
    pub(super) fn joined() -> Self {
        let mut net = Self::of(vec![node("a", 1, 1, 1), node("b", 2, 2, 1), node("c", 3, 3, 1)]);
        net.run(3_000);
        assert!(net.hosts.iter().all(|host| host.core.reachable() == 3));
        net.hosts.iter_mut().for_each(|host| host.notices.clear());
        net
    }

    pub(super) fn add(&mut self, core: Membership) {
        let (notices, payloads, sent) = (Vec::new(), Vec::new(), Vec::new());
        let started = self.now;
        self.hosts.push(Host { core, runs: true, ahead: 0, started, notices, payloads, sent });
    }

    pub(super) fn at(&self, host: usize) -> Moment {
        let wall = WALL + self.now.as_millis() as u64;
        let wall = wall.saturating_add_signed(self.hosts[host].ahead);
        Moment { now: self.now - self.hosts[host].started, wall }
    }

    /// Lets milliseconds pass in steps of ten.
    pub(super) fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 10 {
            self.now += Duration::from_millis(10);
            self.step();
        }
    }

    pub(super) fn step(&mut self) {
        for host in 0..self.hosts.len() {
            let at = self.at(host);
            if self.hosts[host].runs && self.hosts[host].core.deadline() <= at.now {
                self.hosts[host].core.tick(at);
            }
        }
        for _ in 0..20 {
            (0..self.hosts.len()).for_each(|host| self.carry(host));
        }
    }

    /// Does something with a node.
    pub(super) fn act<R>(&mut self, host: usize, action: impl FnOnce(&mut Membership, Moment) -> R) -> R {
        let at = self.at(host);
        action(&mut self.hosts[host].core, at)
    }

    fn reach(&self, from: usize, to: SocketAddrV4) -> Vec<usize> {
        let is_there = |other: &usize| {
            let host = &self.hosts[*other];
            host.runs && host.core.identity().address() == to && !self.cut.contains(&(from, *other))
        };
        (0..self.hosts.len()).filter(is_there).collect()
    }

    fn carry(&mut self, from: usize) {
        for output in self.hosts[from].core.take_outputs() {
            match output {
                Output::Send { to, datagram } => {
                    for other in self.reach(from, to) {
                        let source = self.hosts[from].core.identity().address().into();
                        self.act(other, |core, at| core.datagram(at, source, &datagram));
                    }
                    self.hosts[from].sent.push((to, datagram));
                }
                Output::Exchange { to, request } => {
                    let other = self.reach(from, to).first().copied();
                    let answer =
                        other.and_then(|other| self.act(other, |core, at| core.answer(at, &request)));
                    self.act(from, |core, at| core.answered(at, to, answer.as_deref()));
                }
                Output::Notice(notice) => self.hosts[from].notices.push(notice),
                Output::Payload { from: sender, protocol, bytes } => {
                    self.hosts[from].payloads.push((sender, protocol, bytes));
                }
            }
        }
    }

    pub(super) fn member(&self, host: usize, name: &str) -> Option<Member> {
        self.hosts[host].core.member(&named(name))
    }

    pub(super) fn state(&self, host: usize, name: &str) -> Option<MemberState> {
        self.member(host, name).map(|member| member.state)
    }

    pub(super) fn counts(&self, host: usize, wanted: impl Fn(&Notice) -> bool) -> usize {
        self.hosts[host].notices.iter().filter(|notice| wanted(notice)).count()
    }
}
