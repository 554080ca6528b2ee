//! Greetings: how a node is admitted, and admitted again.

use std::{hash::Hasher as _, net::SocketAddrV4, time::Duration};

use rand::{Rng as _, RngExt as _, rngs::StdRng};

use super::{
    Membership,
    table::{Claim, Update},
};
use crate::cluster::{
    Moment,
    identity::Identity,
    wire::{Message, Refusal},
};

/// Waiting times between greetings of the seeds while no member is known.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// How long a nonce or a cookie holds, at least.
const PERIOD: Duration = Duration::from_secs(30);

pub(super) struct Greetings {
    seeds: Vec<SocketAddrV4>,
    next_seed: Duration,
    retry: Duration,
    next_dead: Duration,
    next_nonce: Duration,
    nonce: u64,
    former_nonce: u64,
    /// What cookies are made of.
    secret: [u64; 2],
}

impl Greetings {
    pub(super) fn new(seeds: Vec<SocketAddrV4>, rng: &mut StdRng) -> Self {
        Self {
            seeds,
            next_seed: Duration::ZERO,
            retry: FIRST_RETRY,
            next_dead: Duration::ZERO,
            next_nonce: PERIOD,
            nonce: rng.next_u64().max(1),
            former_nonce: 0,
            secret: [rng.next_u64(), rng.next_u64()],
        }
    }

    pub(super) fn deadline(&self) -> Duration {
        self.next_seed.min(self.next_dead).min(self.next_nonce)
    }

    pub(super) fn set_seeds(&mut self, seeds: Vec<SocketAddrV4>, now: Duration) {
        (self.seeds, self.next_seed, self.retry) = (seeds, now, FIRST_RETRY);
    }

    fn is_own_nonce(&self, echo: u64) -> bool {
        echo != 0 && (echo == self.nonce || echo == self.former_nonce)
    }

    /// A number that only this node can tell for an identity and a period: SipHash of a secret and both.
    fn cookie(&self, identity: &Identity, period: u64) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        for word in [self.secret[0], self.secret[1], identity.place().0, identity.digest(), period] {
            hasher.write_u64(word);
        }
        hasher.finish().max(1)
    }
}

fn period(now: Duration) -> u64 {
    now.as_secs() / PERIOD.as_secs()
}

impl Membership {
    /// Sends the greetings that are due: to all seeds while this node is alone, else to a seed that is no member; to a dead member.
    pub(super) fn greet_due(&mut self, at: Moment) {
        if at.now >= self.greetings.next_nonce {
            self.greetings.next_nonce = at.now + PERIOD;
            self.greetings.former_nonce = self.greetings.nonce;
            self.greetings.nonce = self.rng.next_u64().max(1);
        }
        if at.now >= self.greetings.next_seed {
            self.greet_seeds(at);
        }
        if at.now >= self.greetings.next_dead {
            let spread = self.rng.random_range(0.75..1.25);
            self.greetings.next_dead = at.now + self.tuning.dead_period.mul_f64(spread);
            for dead in self.pick(1, |entry| entry.claim == Claim::Dead) {
                self.greet(at, dead.address(), 0);
            }
        }
    }

    fn greet_seeds(&mut self, at: Moment) {
        let is_alone = self.table.active() <= 1 || self.holder.is_some();
        let own = self.identity().address();
        if is_alone {
            self.greetings.next_seed = at.now + self.greetings.retry;
            self.greetings.retry = (self.greetings.retry * 2).min(LAST_RETRY);
            let seeds: Vec<_> = self.greetings.seeds.iter().copied().filter(|seed| *seed != own).collect();
            seeds.into_iter().for_each(|seed| self.greet(at, seed, 0));
            return;
        }
        (self.greetings.next_seed, self.greetings.retry) = (at.now + LAST_RETRY, FIRST_RETRY);
        if self.greetings.seeds.is_empty() {
            return;
        }
        let place = self.rng.random_range(0..self.greetings.seeds.len());
        let Some(seed) = self.greetings.seeds.get(place).copied() else { return };
        let is_member = |entry: &super::Entry| entry.claim.is_active() && entry.identity.address() == seed;
        if !self.table.entries().any(is_member) {
            self.greet(at, seed, 0);
        }
    }

    fn greet(&mut self, at: Moment, address: SocketAddrV4, cookie: u64) {
        let nonce = self.greetings.nonce;
        self.send(at, address, Message::Hello { nonce, cookie });
    }

    /// Whether a message could only have been sent just now: it returns this node's nonce or cookie.
    pub(super) fn is_proven(&self, at: Moment, sender: &Identity, message: &Message<'_>) -> bool {
        match *message {
            Message::Hello { cookie, .. } => {
                let now = period(at.now);
                let periods = [now, now.saturating_sub(1)];
                cookie != 0 && periods.iter().any(|period| cookie == self.greetings.cookie(sender, *period))
            }
            Message::Welcome { echo }
            | Message::Challenge { echo, .. }
            | Message::Outdated { echo, .. }
            | Message::Taken { echo, .. } => self.greetings.is_own_nonce(echo),
            _ => false,
        }
    }

    pub(super) fn challenge(&mut self, at: Moment, sender: &Identity, echo: u64) {
        let cookie = self.greetings.cookie(sender, period(at.now));
        self.send(at, sender.address(), Message::Challenge { echo, cookie });
    }

    pub(super) fn take_challenge(&mut self, at: Moment, sender: &Identity, echo: u64, cookie: u64) {
        if self.greetings.is_own_nonce(echo) {
            self.greet(at, sender.address(), cookie);
        }
    }

    pub(super) fn take_hello(&mut self, at: Moment, sender: Identity, nonce: u64) -> Result<(), Refusal> {
        let is_known = self.table.get(sender.place()).is_some();
        if !is_known && !self.make_room(at) {
            return Err(Refusal::Full);
        }
        let address = sender.address();
        self.learn(at, vec![alive(sender)], true);
        self.send(at, address, Message::Welcome { echo: nonce });
        Ok(())
    }

    pub(super) fn take_welcome(&mut self, at: Moment, sender: Identity) {
        let was_active = self.table.get(sender.place()).is_some_and(|entry| entry.claim.is_active());
        self.holder = None;
        self.learn(at, vec![alive(sender.clone())], true);
        if !was_active {
            self.begin_exchange(at, &sender);
        }
    }

    pub(super) fn take_outdated(
        &mut self,
        at: Moment,
        sender: &Identity,
        echo: u64,
        generation: u64,
        holder: Option<Identity>,
    ) {
        let own = self.identity().clone();
        if generation < own.generation() {
            // Another member said so before: the sender has not heard yet what came of it.
            self.send(at, sender.address(), Message::Welcome { echo: 0 });
            return;
        }
        match holder {
            Some(holder) if holder.place() == own.place() && holder.address() != own.address() => {
                // Also in a replay it is true of this generation; only an answer may say that another one lives.
                if self.greetings.is_own_nonce(echo) || self.table.get(sender.place()).is_some() {
                    self.own_name_taken(at, &holder);
                }
            }
            _ => {
                self.begin_life(at, generation, own.address());
                self.greet(at, sender.address(), 0);
            }
        }
    }

    pub(super) fn take_taken(&mut self, at: Moment, echo: u64, holder: &Identity) {
        let own = self.identity().clone();
        let is_another = holder.key() != own.key() || holder.address() != own.address();
        let is_alone = self.table.active() <= 1;
        if self.greetings.is_own_nonce(echo) && holder.place() == own.place() && is_another && is_alone {
            self.own_name_taken(at, holder);
        }
    }
}

fn alive(identity: Identity) -> Update {
    Update { identity, incarnation: 0, claim: Claim::Alive }
}
