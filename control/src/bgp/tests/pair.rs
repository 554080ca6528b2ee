//! Two speakers on a simulated wire of 1 ms.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::bgp::{Action, Family, Link, Local, Peer, Session, State};

pub(super) const LATENCY: Duration = Duration::from_millis(1);

pub(super) fn local(asn: u32, last: u8) -> Local {
    Local { asn, router_id: [192, 0, 2, last].into(), hold_time: 9, graceful_restart: 120, listens: true }
}

pub(super) fn peer(asn: u32, last: u8) -> Peer {
    Peer { address: address(last), asn }
}

pub(super) fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// What is on its way to a side.
#[derive(Debug)]
enum Event {
    Arrives(Link, Vec<u8>),
    Closes(Link),
    Opened(Link),
    Refused(Link),
}

/// Both sides, each of which can be reached.
pub(super) struct Pair {
    pub(super) now: Duration,
    pub(super) sides: [Session; 2],
    events: Vec<(Duration, usize, Event)>,
    /// The other end of each connection.
    ends: BTreeMap<(usize, Link), Link>,
    /// Whether connections get through.
    pub(super) is_up: bool,
}

impl Pair {
    pub(super) fn new(one: Session, other: Session) -> Self {
        Self {
            now: Duration::ZERO,
            sides: [one, other],
            events: Vec::new(),
            ends: BTreeMap::new(),
            is_up: true,
        }
    }

    pub(super) fn of(one: Local, other: Local, seed: u64) -> Self {
        let peers = [peer(other.asn, 2), peer(one.asn, 1)];
        let [to_other, to_one] = peers;
        Self::new(
            Session::new(one, to_other, seed, false, Duration::ZERO),
            Session::new(other, to_one, seed + 1, false, Duration::ZERO),
        )
    }

    pub(super) fn states(&self) -> [State; 2] {
        [0, 1].map(|side| self.sides[side].status().state)
    }

    pub(super) fn is_established(&self) -> bool {
        self.states() == [State::Established; 2]
    }

    fn end(side: usize) -> IpAddr {
        address(u8::try_from(side).unwrap() + 1)
    }

    /// Carries out what the sides want done.
    pub(super) fn act(&mut self) {
        for side in [0, 1] {
            for action in self.sides[side].take_actions() {
                let at = self.now + LATENCY;
                match action {
                    Action::Connect(link) => {
                        let event = if self.is_up { Event::Opened(link) } else { Event::Refused(link) };
                        self.events.push((at, side, event));
                    }
                    Action::Send(link, bytes) => {
                        self.sides[side].written(link, bytes.len(), self.now);
                        if let Some(far) = self.ends.get(&(side, link)) {
                            self.events.push((at, 1 - side, Event::Arrives(*far, bytes)));
                        }
                    }
                    Action::Close(link) => {
                        if let Some(far) = self.ends.remove(&(side, link)) {
                            self.events.push((at, 1 - side, Event::Closes(far)));
                        }
                    }
                }
            }
        }
    }

    fn happen(&mut self, side: usize, event: Event) {
        let now = self.now;
        match event {
            Event::Arrives(link, bytes) => self.sides[side].received(link, &bytes, now),
            Event::Closes(link) => self.sides[side].closed(link, "closed by the peer", now),
            Event::Refused(link) => self.sides[side].closed(link, "refused", now),
            Event::Opened(link) => match self.sides[1 - side].accepted(Self::end(1 - side), now) {
                Some(far) => {
                    self.ends.insert((side, link), far);
                    self.ends.insert((1 - side, far), link);
                    self.sides[side].opened(link, Self::end(side), now);
                }
                None => self.sides[side].closed(link, "reset", now),
            },
        }
    }

    /// Lets everything happen that happens until then.
    pub(super) fn run(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            self.act();
            let timers = self.sides.iter().filter_map(Session::deadline).min();
            let next = self.events.iter().map(|(at, ..)| *at).chain(timers).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            // In the order in which they were sent.
            match self.events.iter().position(|(at, ..)| *at <= self.now) {
                Some(place) => {
                    let (_, side, event) = self.events.remove(place);
                    self.happen(side, event);
                }
                None => self.sides.iter_mut().for_each(|side| side.tick(self.now)),
            }
        }
        self.now = end;
    }

    /// Connections break without a word.
    pub(super) fn cut(&mut self) {
        self.events.clear();
        let now = self.now;
        for ((side, link), _) in std::mem::take(&mut self.ends) {
            self.sides[side].closed(link, "reset by peer", now);
        }
    }

    /// What was sent is lost from now on, and nobody is told.
    pub(super) fn lose_all(&mut self) {
        self.events.clear();
        self.ends.clear();
        self.is_up = false;
    }

    /// A side begins anew, and the other does not know.
    pub(super) fn replace(&mut self, side: usize, session: Session) {
        self.ends.retain(|(of, _), _| *of != side);
        self.events.retain(|(_, of, _)| *of != side);
        self.sides[side] = session;
    }

    pub(super) fn v6_hop(&mut self, side: usize) {
        let hops = [(Family::V6, "2001:db8::1".parse().unwrap())].into();
        self.sides[side].set_uplink(hops, self.now);
    }
}
