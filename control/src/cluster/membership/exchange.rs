//! The comparison of all that two nodes know of members (push-pull).
//!
//! A node asks with the sums of its buckets and is answered with the members of those that differ; then it gives what the
//! other one lacks. A death or a farewell of a member that is alive here is not believed at once: the member is told, and
//! when it has not begun another life after the time of a suspicion, it is dead here, too.

use std::{collections::BTreeMap, net::SocketAddrV4, time::Duration};

use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use super::{
    Membership, Output,
    table::{BUCKETS, Claim, Standing, Update},
};
use crate::cluster::{
    Moment,
    identity::{Identity, NamePlace},
    wire::Message,
};

/// Bytes of a request or an answer at most.
pub const MAX_EXCHANGE: usize = 4 << 20;

/// Deaths that are checked at a time, here or by the members in question.
const MAX_DOUBTS: usize = 64;

/// From one exchange to the next while they bring news.
const SOON: Duration = Duration::from_secs(1);

/// After this an answer comes no more.
const ANSWER: Duration = Duration::from_secs(10);

/// News of more members than this are not gossiped on: exchanges carry them.
const GOSSIPED: usize = 16;

#[derive(Default)]
pub(super) struct Exchanges {
    next: Duration,
    /// Whether everything was compared with anybody since this node was alone.
    has_compared: bool,
    /// Until when an answer is awaited, and from where.
    open: Option<(SocketAddrV4, Duration)>,
    /// Deaths that are being checked, with the time of the verdict.
    doubts: BTreeMap<NamePlace, (Update, Duration)>,
}

impl Exchanges {
    pub(super) fn deadline(&self) -> Duration {
        let verdicts = self.doubts.values().map(|(_, at)| *at);
        verdicts.chain(self.open.map(|(_, until)| until)).fold(self.next, Duration::min)
    }
}

#[derive(Serialize, Deserialize)]
enum Request {
    /// Sums by bucket.
    Ask { cluster: u64, from: Identity, sums: Vec<u64> },
    /// Members that the other one lacks.
    Give { cluster: u64, updates: Vec<Update> },
}

#[derive(Serialize, Deserialize)]
struct Answer {
    cluster: u64,
    /// The buckets that differ, and their members.
    buckets: Vec<u8>,
    updates: Vec<Update>,
}

/// Suspicions pass by themselves.
fn settled(entry: &super::Entry) -> Update {
    let claim = if entry.claim.is_active() { Claim::Alive } else { entry.claim };
    Update { identity: entry.identity.clone(), incarnation: entry.incarnation, claim }
}

impl Membership {
    pub(super) fn exchange_due(&mut self, at: Moment) {
        if self.exchanges.open.is_some_and(|(_, until)| until <= at.now) {
            self.exchanges.open = None;
        }
        self.pass_verdicts(at);
        if at.now < self.exchanges.next {
            return;
        }
        let spread = self.rng.random_range(0.75..1.25);
        self.exchanges.next = at.now + self.tuning.exchange_period.mul_f64(spread);
        let sum = self.table.sum();
        for member in self.random_reachable(1) {
            if self.exchanges.has_compared {
                self.send(at, member.address(), Message::Digest { sum });
            } else {
                self.exchanges.next = at.now + SOON;
                self.begin_exchange(at, &member);
            }
        }
    }

    /// Compares soon: something has changed, and gossip may have missed this node or another one.
    pub(super) fn exchange_soon(&mut self, at: Moment) {
        let soon = at.now + SOON.mul_f64(self.rng.random_range(1.0..3.0));
        self.exchanges.next = self.exchanges.next.min(soon);
    }

    /// Compares everything with some member as soon as there is one.
    pub(super) fn exchange_anew(&mut self) {
        self.exchanges.has_compared = false;
    }

    /// Buries members whose death was doubted and that stayed silent.
    fn pass_verdicts(&mut self, at: Moment) {
        let due = self.exchanges.doubts.iter().filter(|(_, (_, verdict))| *verdict <= at.now);
        let due: Vec<NamePlace> = due.map(|(place, _)| *place).collect();
        let doubts = &mut self.exchanges.doubts;
        let silent: Vec<Update> = due.iter().filter_map(|place| Some(doubts.remove(place)?.0)).collect();
        if !silent.is_empty() {
            self.learn(at, silent, true);
        }
    }

    pub(super) fn begin_exchange(&mut self, at: Moment, with: &Identity) {
        if self.exchanges.open.is_some() {
            return;
        }
        let (cluster, from) = (self.seal.cluster(), self.identity().clone());
        let request = Request::Ask { cluster, from, sums: self.table.sums().to_vec() };
        self.exchanges.open = Some((with.address(), at.now + ANSWER));
        self.request(with.address(), &request);
    }

    fn request(&mut self, to: SocketAddrV4, request: &Request) {
        let encoded = postcard::to_allocvec(request).ok().filter(|bytes| bytes.len() <= MAX_EXCHANGE);
        if let Some(request) = encoded {
            self.outputs.push(Output::Exchange { to, request });
        }
    }

    /// The answer to another member's request; none when it is malformed, too long or of another cluster.
    pub fn answer(&mut self, at: Moment, request: &[u8]) -> Option<Vec<u8>> {
        if request.len() > MAX_EXCHANGE || self.leaving.is_some() {
            return None;
        }
        let cluster = self.seal.cluster();
        let answer = match postcard::from_bytes(request).ok()? {
            Request::Ask { cluster: other, from, sums } if other == cluster && sums.len() == BUCKETS => {
                if self.key(from.name()).is_some_and(|key| key != from.key()) {
                    self.name_taken(at, &from);
                    return None;
                }
                let own = self.table.sums();
                let differs = |number: &u8| own.get(usize::from(*number)) != sums.get(usize::from(*number));
                let buckets: Vec<u8> = (0..=u8::MAX).filter(differs).collect();
                let updates = self.in_buckets(&buckets);
                Answer { cluster, buckets, updates }
            }
            Request::Give { cluster: other, updates } if other == cluster => {
                self.merge(at, updates);
                Answer { cluster, buckets: Vec::new(), updates: Vec::new() }
            }
            _ => return None,
        };
        self.settle(at);
        postcard::to_allocvec(&answer).ok().filter(|bytes| bytes.len() <= MAX_EXCHANGE)
    }

    fn in_buckets(&self, buckets: &[u8]) -> Vec<Update> {
        buckets.iter().flat_map(|number| self.table.bucket(usize::from(*number))).map(settled).collect()
    }

    /// Takes the answer to a request of this node's, or that there is none.
    pub fn answered(&mut self, at: Moment, from: SocketAddrV4, answer: Option<&[u8]>) {
        if self.exchanges.open.is_none_or(|(awaited, _)| awaited != from) {
            return;
        }
        self.exchanges.open = None;
        let answer = answer.filter(|bytes| bytes.len() <= MAX_EXCHANGE && self.leaving.is_none());
        let Some(answer) = answer.and_then(|bytes| postcard::from_bytes::<Answer>(bytes).ok()) else {
            return;
        };
        if answer.cluster != self.seal.cluster() {
            return;
        }
        self.exchanges.has_compared = true;
        if answer.buckets.is_empty() {
            return;
        }
        self.exchange_soon(at);
        let own = self.in_buckets(&answer.buckets);
        let told: BTreeMap<NamePlace, &Update> =
            answer.updates.iter().map(|update| (update.identity.place(), update)).collect();
        let is_lacking = |update: &Update| {
            told.get(&update.identity.place()).is_none_or(|told| {
                told.identity.digest() != update.identity.digest() || told.claim != update.claim
            })
        };
        let updates: Vec<Update> = own.into_iter().filter(is_lacking).collect();
        if !updates.is_empty() {
            self.exchanges.open = Some((from, at.now + ANSWER));
            self.request(from, &Request::Give { cluster: answer.cluster, updates });
        }
        self.merge(at, answer.updates);
        self.settle(at);
    }

    /// Takes what another node knows.
    fn merge(&mut self, at: Moment, updates: Vec<Update>) {
        let own = self.identity().place();
        let mut news = Vec::new();
        let mut told = 0;
        for update in updates {
            let place = update.identity.place();
            let entry = self.table.get(place).filter(|_| place != own);
            let Some(entry) = entry else {
                news.push(update);
                continue;
            };
            let is_same_life = entry.identity == update.identity;
            match (entry.claim.is_active(), update.claim.is_active()) {
                (true, false) if matches!(self.table.standing(&update), Standing::Newer) => {
                    self.doubt(at, update);
                }
                (false, true) if is_same_life => {
                    // The next exchange tells more of them.
                    told += 1;
                    if told > MAX_DOUBTS {
                        continue;
                    }
                    let generation = update.identity.generation();
                    let message = Message::Outdated { echo: 0, generation, holder: None };
                    self.send(at, update.identity.address(), message);
                }
                _ => news.push(update),
            }
        }
        let spread = news.len() <= GOSSIPED;
        self.learn(at, news, spread);
    }

    /// Tells a member that another node takes it for gone, and waits for its next life.
    fn doubt(&mut self, at: Moment, update: Update) {
        let place = update.identity.place();
        if self.exchanges.doubts.len() >= MAX_DOUBTS || self.exchanges.doubts.contains_key(&place) {
            return;
        }
        let generation = update.identity.generation();
        let message = Message::Outdated { echo: 0, generation, holder: None };
        let Some(address) = self.table.get(place).map(|entry| entry.identity.address()) else { return };
        self.send(at, address, message);
        let wait = self.tuning.suspicion * self.swim.stretch() * 2;
        self.exchanges.doubts.insert(place, (update, at.now + wait));
    }
}
