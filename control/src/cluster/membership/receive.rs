//! The gate: which datagrams are taken, and which are answered.
//!
//! Answers go to the advertised address of the identity that a datagram names, whatever address it came from.

use std::net::SocketAddr;

use super::{
    Membership, Output,
    codec::{self, Kind},
    table::{Claim, Update},
};
use crate::cluster::{
    Moment,
    identity::{Identity, NamePlace},
    wire::{Envelope, Message, Refusal, Sender},
};

/// What becomes of a datagram.
pub(super) enum Verdict {
    Take,
    Refuse(Refusal),
    /// Its sender needs a later life than this generation, because of the living holder of its name if there is one.
    Outdated(u64, Option<Identity>),
    /// Its sender is unknown and its clock far off.
    Challenge,
}

impl Membership {
    /// Takes a datagram. `source` is where it came from, for reports.
    pub fn datagram(&mut self, at: Moment, source: SocketAddr, datagram: &[u8]) {
        if self.leaving.is_some() {
            return;
        }
        let taken = self.seal.open(datagram).and_then(|plain| {
            let envelope: Envelope<'_> = postcard::from_bytes(&plain).ok().ok_or(Refusal::Malformed)?;
            self.take(at, envelope)
        });
        if let Err(refusal) = taken {
            self.refuse(at, refusal, source);
        }
        self.settle(at);
    }

    fn take(&mut self, at: Moment, envelope: Envelope<'_>) -> Result<(), Refusal> {
        let Envelope { sender, uptime, wall, message } = envelope;
        let sender = match sender {
            Sender::Full(identity) => identity,
            Sender::Known { place, digest } => {
                let entry = self.table.get(NamePlace(place));
                let known = entry.filter(|entry| entry.identity.digest() == digest);
                known.ok_or(Refusal::UnknownSender)?.identity.clone()
            }
        };
        if sender.place() == self.identity().place() {
            return self.take_namesake(at, &sender, &message);
        }
        match self.judge(at, &sender, uptime, wall, &message) {
            Verdict::Take => {}
            Verdict::Refuse(refusal) => {
                self.answer_refused(at, &sender, &message, refusal);
                return Err(refusal);
            }
            Verdict::Outdated(generation, holder) => {
                let message = Message::Outdated { echo: echo(&message), generation, holder };
                self.send(at, sender.address(), message);
                return Ok(());
            }
            Verdict::Challenge => {
                self.challenge(at, &sender, echo(&message));
                return Ok(());
            }
        }
        if self.table.get(sender.place()).is_some_and(|entry| entry.identity == sender) {
            self.clocks.hear(at, &sender, uptime, wall);
        }
        self.handle(at, sender, message)
    }

    /// Weighs a sender against what is known of its name.
    fn judge(&self, at: Moment, sender: &Identity, uptime: u64, wall: u64, message: &Message<'_>) -> Verdict {
        // These three do not say that their sender is alive. To answer them in kind would never end.
        let is_word =
            matches!(message, Message::Outdated { .. } | Message::Taken { .. } | Message::Challenge { .. });
        let is_fresh = || {
            self.clocks.agrees(at, wall)
                || self.clocks.agrees_with_itself(at, sender, wall)
                || self.is_proven(at, sender, message)
        };
        let greets = matches!(message, Message::Hello { .. });
        let Some(entry) = self.table.get(sender.place()) else {
            return match self.table.forgotten(sender.place()) {
                _ if is_word && is_fresh() => Verdict::Take,
                Some(generation) if sender.generation() <= generation && !is_word => {
                    Verdict::Outdated(generation, None)
                }
                _ if is_fresh() => Verdict::Take,
                _ if greets => Verdict::Challenge,
                _ => Verdict::Refuse(Refusal::Stale),
            };
        };
        let known = &entry.identity;
        if known.key() != sender.key() || known.name() != sender.name() {
            return Verdict::Refuse(Refusal::NameTaken);
        }
        if self.clocks.is_replay(sender, uptime) {
            return Verdict::Refuse(Refusal::Replayed);
        }
        if is_word {
            return Verdict::Take;
        }
        let is_elsewhere = entry.claim.is_active() && known.address() != sender.address();
        if known == sender {
            let is_active = entry.claim.is_active();
            if is_active { Verdict::Take } else { Verdict::Outdated(known.generation(), None) }
        } else if foca::Identity::win_addr_conflict(sender, known) {
            match (is_elsewhere && greets, is_fresh()) {
                (true, _) => Verdict::Refuse(Refusal::NameTaken),
                (false, true) => Verdict::Take,
                (false, false) if greets => Verdict::Challenge,
                (false, false) => Verdict::Refuse(Refusal::Stale),
            }
        } else {
            Verdict::Outdated(known.generation(), is_elsewhere.then(|| known.clone()))
        }
    }

    fn answer_refused(&mut self, at: Moment, sender: &Identity, message: &Message<'_>, refusal: Refusal) {
        if refusal != Refusal::NameTaken {
            return;
        }
        self.name_taken(at, sender);
        let holder = self.table.get(sender.place()).map(|entry| entry.identity.clone());
        if let (Message::Hello { nonce, .. }, Some(holder)) = (message, holder) {
            self.send(at, sender.address(), Message::Taken { echo: *nonce, holder });
        }
    }

    /// A datagram of a node that has this node's name.
    fn take_namesake(&mut self, at: Moment, sender: &Identity, message: &Message<'_>) -> Result<(), Refusal> {
        let own = self.identity().clone();
        if sender.key() == own.key() && sender.address() == own.address() {
            return Err(Refusal::Own);
        }
        if let Message::Hello { nonce, .. } = message
            && self.table.active() > 1
        {
            self.send(at, sender.address(), Message::Taken { echo: *nonce, holder: own });
        }
        self.name_taken(at, sender);
        Err(Refusal::NameTaken)
    }

    fn handle(&mut self, at: Moment, sender: Identity, message: Message<'_>) -> Result<(), Refusal> {
        match message {
            Message::Swim(data) => return self.take_swim(at, &sender, data),
            Message::Hello { nonce, .. } => return self.take_hello(at, sender, nonce),
            Message::Welcome { .. } => self.take_welcome(at, sender),
            Message::Challenge { echo, cookie } => self.take_challenge(at, &sender, echo, cookie),
            Message::Outdated { echo, generation, holder } => {
                self.take_outdated(at, &sender, echo, generation, holder);
            }
            Message::Taken { echo, holder } => self.take_taken(at, echo, &holder),
            Message::Digest { sum } => {
                if sum != self.table.sum() {
                    self.send(at, sender.address(), Message::Differs);
                }
            }
            Message::Differs => self.begin_exchange(at, &sender),
            Message::Leave => {
                let incarnation = u16::MAX;
                self.learn(at, vec![Update { identity: sender, incarnation, claim: Claim::Left }], true);
            }
            Message::Payload(protocol, bytes) => {
                if self.table.get(sender.place()).is_some_and(|entry| entry.claim.is_active()) {
                    let from = sender.name().clone();
                    self.outputs.push(Output::Payload { from, protocol, bytes: bytes.to_vec() });
                }
            }
        }
        Ok(())
    }

    fn take_swim(&mut self, at: Moment, sender: &Identity, data: &[u8]) -> Result<(), Refusal> {
        let (header, mut updates) = codec::read(data).ok_or(Refusal::Malformed)?;
        if header.kind == Kind::Down {
            return Err(Refusal::Malformed);
        }
        let is_known = self.table.get(sender.place()).is_some();
        if !is_known && !self.make_room(at) {
            return Err(Refusal::Full);
        }
        let incarnation = header.incarnation.min(u16::MAX - 1);
        updates.insert(0, Update { identity: sender.clone(), incarnation, claim: Claim::Alive });
        self.learn(at, updates, true);
        if header.to != self.identity().digest() {
            // The sender knows an earlier life of this node, or of another one at this address.
            self.send(at, sender.address(), Message::Welcome { echo: 0 });
            return Err(Refusal::Misaddressed);
        }
        if self.watch.answered(&header, sender) {
            self.swim.probe_answered(at.now);
        }
        if self.swim.receive(at.now, sender, &header) { Ok(()) } else { Err(Refusal::Malformed) }
    }
}

/// The nonce that an answer returns.
fn echo(message: &Message<'_>) -> u64 {
    if let Message::Hello { nonce, .. } = message { *nonce } else { 0 }
}
