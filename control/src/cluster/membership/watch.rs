//! The watch over the next member of the ring.
//!
//! Members stand in a ring, by their names' hashes, and each probes the next one. So a death is noticed within one period,
//! where random probes alone leave one death in a hundred unnoticed for five. The random probes of SWIM go on beside it: they
//! find deaths of neighbours, and members that only some can reach.
//!
//! A node that suspects a member tells it so in a probe that carries the suspicion: the answer is the refutation.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Membership,
    codec::{self, Kind, SwimHeader},
    table::{Claim, Entry, Update},
};
use crate::cluster::{
    Moment,
    identity::{Identity, NamePlace},
    wire::Message,
};

/// From one telling of a suspicion to its member to the next.
const TELL: Duration = Duration::from_millis(80);

/// Members that are told at a time.
const MAX_TOLD: usize = 64;

#[derive(Default)]
pub(super) struct Watch {
    next: Duration,
    number: u8,
    probe: Option<Probe>,
    suspicions: BTreeMap<NamePlace, Suspicion>,
}

struct Probe {
    target: Identity,
    incarnation: u16,
    /// When others are asked, until they were.
    ask: Option<Duration>,
    verdict: Duration,
    is_put_off: bool,
}

/// A suspicion of this node's.
struct Suspicion {
    identity: Identity,
    incarnation: u16,
    next: Duration,
}

impl Watch {
    pub(super) fn deadline(&self) -> Duration {
        let probe = self.probe.as_ref().map(|probe| probe.ask.unwrap_or(probe.verdict));
        let told = self.suspicions.values().map(|suspicion| suspicion.next);
        told.fold(probe.unwrap_or(self.next), Duration::min)
    }

    /// Puts the verdict off, once, because this node did not run.
    pub(super) fn put_off(&mut self, by: Duration) {
        if let Some(probe) = self.probe.as_mut().filter(|probe| !probe.is_put_off) {
            probe.is_put_off = true;
            probe.ask = probe.ask.map(|ask| ask + by);
            probe.verdict += by;
        }
    }

    /// Takes an answer of the member itself, or by way of one that was asked; says whether it was awaited.
    pub(super) fn answered(&mut self, header: &SwimHeader, sender: &Identity) -> bool {
        let (origin, number) = match &header.kind {
            Kind::Ack(number) => (sender, number),
            Kind::ForwardedAck(origin, number) => (origin, number),
            _ => return false,
        };
        let probe = self.probe.take_if(|probe| *number == self.number && probe.target == *origin);
        probe.is_some()
    }

    /// Remembers to tell a member that this node suspects it.
    pub(super) fn suspect(&mut self, now: Duration, identity: &Identity, incarnation: u16) {
        if self.suspicions.len() < MAX_TOLD || self.suspicions.contains_key(&identity.place()) {
            let suspicion = Suspicion { identity: identity.clone(), incarnation, next: now };
            self.suspicions.insert(identity.place(), suspicion);
        }
    }
}

impl Membership {
    pub(super) fn watch_due(&mut self, at: Moment) {
        self.pass_watch(at);
        self.tell_suspects(at);
        if at.now >= self.watch.next && self.watch.probe.is_none() {
            self.watch.next = at.now + self.tuning.watch_period * self.swim.stretch();
            self.watch_next(at);
        }
    }

    /// Probes the next member of the ring.
    fn watch_next(&mut self, at: Moment) {
        let own = self.identity().place();
        let Some(entry) = self.table.next_active(own) else { return };
        let (target, incarnation) = (entry.identity.clone(), entry.incarnation);
        // Random probes number theirs upwards from zero.
        self.watch.number = self.watch.number.wrapping_sub(1);
        let stretch = self.swim.stretch();
        self.watch.probe = Some(Probe {
            target: target.clone(),
            incarnation,
            ask: Some(at.now + self.tuning.probe_rtt * stretch),
            verdict: at.now + self.tuning.probe_rtt * 3 * stretch,
            is_put_off: false,
        });
        self.send_kind(at, &target, Kind::Ping(self.watch.number), &[]);
    }

    /// Asks others for a probe that got no answer; without any answer the member is suspected.
    fn pass_watch(&mut self, at: Moment) {
        let Some(probe) = &mut self.watch.probe else { return };
        let target = probe.target.clone();
        if probe.ask.is_some_and(|ask| ask <= at.now) {
            probe.ask = None;
            let place = target.place();
            let number = self.watch.number;
            let others = self.pick(self.tuning.indirect_probes, |entry| {
                entry.claim == Claim::Alive && entry.identity.place() != place
            });
            for other in others {
                self.send_kind(at, &other, Kind::PingReq(target.clone(), number), &[]);
            }
            self.send_kind(at, &target, Kind::Ping(number), &[]);
        } else if probe.ask.is_none() && probe.verdict <= at.now {
            let incarnation = probe.incarnation;
            self.watch.probe = None;
            self.swim.suspect(at.now, &Update { identity: target, incarnation, claim: Claim::Suspect });
            self.settle(at);
        }
    }

    fn tell_suspects(&mut self, at: Moment) {
        let (table, swim) = (&self.table, &mut self.swim);
        self.watch.suspicions.retain(|place, suspicion| {
            let entry = table.get(*place).filter(|entry| entry.identity == suspicion.identity);
            let stands =
                |entry: &Entry| entry.claim == Claim::Suspect && entry.incarnation == suspicion.incarnation;
            if entry.is_some_and(|entry| entry.claim.is_active() && !stands(entry)) {
                swim.was_wrong();
            }
            entry.is_some_and(stands)
        });
        let mut due = Vec::new();
        for suspicion in self.watch.suspicions.values_mut().filter(|suspicion| suspicion.next <= at.now) {
            suspicion.next = at.now + TELL;
            let (identity, incarnation) = (suspicion.identity.clone(), suspicion.incarnation);
            due.push(Update { identity, incarnation, claim: Claim::Suspect });
        }
        for update in due {
            let to = update.identity.clone();
            self.send_kind(at, &to, Kind::Ping(self.watch.number), &[update]);
        }
    }

    fn send_kind(&mut self, at: Moment, to: &Identity, kind: Kind, updates: &[Update]) {
        let own = self.identity().place();
        let incarnation = self.table.get(own).map_or(0, |entry| entry.incarnation);
        let header = SwimHeader { incarnation, to: to.digest(), kind };
        if let Some(data) = codec::written(&header, updates) {
            self.send(at, to.address(), Message::Swim(&data));
        }
    }
}
