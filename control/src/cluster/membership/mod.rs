//! The members of a cluster, and which of them are alive.
//!
//! [`Membership`] takes datagrams, exchanges and the passing of time, and gives out what is to be sent and told. Failure
//! detection is SWIM's (`swim`). Around it stand:
//!
//! - *the watch* (`watch`): each node probes its neighbour in a ring, so that a death is noticed in bounded time;
//! - *greeting* (`greet`): how a node is admitted, learns that it was taken for dead, or that its name is another's. Seeds are
//!   greeted until one answers, dead members for ever, so that a healed partition joins again;
//! - *exchange* (`exchange`): a comparison of all that two nodes know. A death that only the other one knows of is checked
//!   first: the member in question is told, and has the time of a suspicion to begin another life. So the halves of a healed
//!   partition do not declare each other dead;
//! - *the gate* (`receive`): what is answered, what is dropped, and what is reported;
//! - *clocks*: bounded replay, and members whose wall clocks are far off.

mod clocks;
mod codec;
mod exchange;
mod greet;
mod health;
mod leave;
mod notice;
mod receive;
mod settings;
mod settle;
mod swim;
mod table;
mod values;
mod watch;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

use self::{
    clocks::Clocks,
    exchange::Exchanges,
    greet::Greetings,
    leave::Leaving,
    notice::Troubles,
    swim::Swim,
    table::{Claim, Entry, Table, Update},
    values::shown,
    watch::Watch,
};
pub use self::{
    exchange::MAX_EXCHANGE,
    notice::Notice,
    settings::{Settings, Tuning},
    values::{ForgetError, Member, MemberState, Output, PayloadError},
};
pub use super::wire::Refusal;
use super::{
    Moment,
    identity::{Identity, NamePlace, NodeName, Pool, PublicKey},
    keyring::Keyring,
    wire::{Envelope, MAX_BODY, Message, Seal, Sender},
};

/// The membership of one node.
pub struct Membership {
    seal: Seal,
    rng: StdRng,
    tuning: Tuning,
    swim: Swim,
    watch: Watch,
    /// Every known member, this node included.
    table: Table,
    pool: Option<Pool>,
    clocks: Clocks,
    greetings: Greetings,
    exchanges: Exchanges,
    troubles: Troubles,
    refused: BTreeMap<Refusal, u64>,
    /// What was refused since it was reported.
    unreported: BTreeMap<Refusal, u64>,
    /// The living node that has this node's name.
    holder: Option<Identity>,
    leaving: Option<Leaving>,
    next_refresh: Duration,
    outputs: Vec<Output>,
}

const REFRESH: Duration = Duration::from_secs(1);

impl Membership {
    /// A node's membership from its start on. Its generation must be above all that the node has had: the wall clock's seconds,
    /// or one more than the last, whichever is higher. The seed is 32 random bytes, never used twice with one key ring.
    pub fn new(identity: Identity, settings: Settings, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let mut swim_seed = [0; 32];
        rng.fill_bytes(&mut swim_seed);
        let mut table = Table::default();
        table
            .put(&Update { identity: identity.clone(), incarnation: 0, claim: Claim::Alive }, Duration::ZERO);
        Self {
            seal: Seal::new(&settings.cluster, settings.keyring),
            greetings: Greetings::new(settings.seeds, &mut rng),
            exchanges: Exchanges::default(),
            swim: Swim::new(identity, settings.tuning.clone(), swim_seed),
            watch: Watch::default(),
            rng,
            tuning: settings.tuning,
            table,
            pool: settings.pool,
            clocks: Clocks::default(),
            troubles: Troubles::default(),
            refused: BTreeMap::new(),
            unreported: BTreeMap::new(),
            holder: None,
            leaving: None,
            next_refresh: Duration::ZERO,
            outputs: Vec::new(),
        }
    }

    /// This node's identity at present.
    pub fn identity(&self) -> &Identity {
        self.swim.identity()
    }

    /// What is to be done since the last call, in its order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Duration {
        if let Some(leaving) = &self.leaving {
            return leaving.next;
        }
        let mut next = self.next_refresh.min(self.greetings.deadline()).min(self.exchanges.deadline());
        next = next.min(self.watch.deadline());
        if let Some(swim) = self.swim.deadline() {
            next = next.min(swim);
        }
        next
    }

    /// Lets time pass. Datagrams that have arrived are to be given before: a node that did not run for a while finds the
    /// answers to its probes among them.
    pub fn tick(&mut self, at: Moment) {
        if self.leaving.is_some() {
            return self.say_good_bye(at);
        }
        if let Some(by) = self.swim.tick(at.now) {
            self.watch.put_off(by);
        }
        self.settle(at);
        self.watch_due(at);
        if at.now >= self.next_refresh {
            self.next_refresh = at.now + REFRESH;
            self.refresh_clocks(at);
        }
        self.greet_due(at);
        self.exchange_due(at);
        self.settle(at);
    }

    /// Known members, this node included, by name.
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<Member> = self.table.entries().map(shown).collect();
        members.sort_by(|one, other| one.identity.name().cmp(other.identity.name()));
        members
    }

    pub fn member(&self, name: &NodeName) -> Option<Member> {
        self.table.get(NamePlace::of(name)).map(shown)
    }

    /// The key that was first seen for a name.
    pub fn key(&self, name: &NodeName) -> Option<PublicKey> {
        self.table.get(NamePlace::of(name)).map(|entry| entry.identity.key())
    }

    /// Members that are reachable, this node included.
    pub fn reachable(&self) -> usize {
        self.table.active()
    }

    /// Whether no more than half of the members are reachable, this node included. Those that have left do not count.
    pub fn is_minority(&self) -> bool {
        let counted = self.table.entries().filter(|entry| entry.claim != Claim::Left).count();
        counted > 1 && self.table.active() * 2 <= counted
    }

    /// A sum of which members there are and which are reachable: equal on nodes that know the same.
    pub fn digest(&self) -> u64 {
        self.table.sum()
    }

    /// How many times their length time-outs have: 1 on a node that runs punctually.
    pub fn stretch(&self) -> u32 {
        self.swim.stretch()
    }

    /// The members' wall time, milliseconds since 1970: the median of those that are heard, this node's included.
    pub fn wall(&self, at: Moment) -> u64 {
        self.clocks.wall(at)
    }

    /// Members whose clocks are far off, with the milliseconds that they are ahead.
    pub fn skewed(&self) -> Vec<(NodeName, i64)> {
        let known = self.clocks.skewed().filter_map(|(place, ahead)| Some((self.table.get(place)?, ahead)));
        known.map(|(entry, ahead)| (entry.identity.name().clone(), ahead)).collect()
    }

    /// The living node that has this node's name, while the cluster refuses this one for it.
    pub fn name_holder(&self) -> Option<&Identity> {
        self.holder.as_ref()
    }

    /// How many datagrams were refused, by reason.
    pub fn refused(&self) -> &BTreeMap<Refusal, u64> {
        &self.refused
    }

    /// Other keys from now on.
    pub fn set_keyring(&mut self, keyring: Option<Keyring>) {
        self.seal.set_keyring(keyring);
    }

    /// Other seeds from now on; they are greeted at once.
    pub fn set_seeds(&mut self, at: Moment, seeds: Vec<SocketAddrV4>) {
        self.greetings.set_seeds(seeds, at.now);
    }

    /// Another address is advertised from now on.
    pub fn set_address(&mut self, at: Moment, address: SocketAddrV4) {
        if self.identity().address() != address {
            let generation = self.identity().generation();
            self.begin_life(at, generation, address);
            self.settle(at);
        }
    }

    /// Says what the shared state tells: whether a member is in maintenance.
    pub fn set_maintenance(&mut self, at: Moment, name: &NodeName, on: bool) -> bool {
        self.table.set_maintenance(name, on, at.now)
    }

    /// Removes a member that is dead or has left, with the key kept for its name.
    ///
    /// # Errors
    /// The name is not known, or its node is alive.
    pub fn forget(&mut self, at: Moment, name: &NodeName) -> Result<(), ForgetError> {
        let place = NamePlace::of(name);
        let entry = self.table.get(place).ok_or_else(|| ForgetError::Unknown(name.clone()))?;
        if entry.claim.is_active() {
            return Err(ForgetError::Alive(name.clone()));
        }
        if let Some(entry) = self.table.forget(place) {
            self.drop_entry(at, &entry);
        }
        Ok(())
    }

    /// Sends bytes of another protocol to a reachable member.
    ///
    /// # Errors
    /// The member is not known or not reachable, or the bytes are more than [`Self::MAX_PAYLOAD`].
    pub fn send_payload(
        &mut self,
        at: Moment,
        to: &NodeName,
        protocol: u8,
        bytes: &[u8],
    ) -> Result<(), PayloadError> {
        if bytes.len() > Self::MAX_PAYLOAD {
            return Err(PayloadError::TooLong(bytes.len()));
        }
        let entry = self.table.get(NamePlace::of(to)).filter(|entry| entry.claim.is_active());
        let address = entry.ok_or_else(|| PayloadError::Unreachable(to.clone()))?.identity.address();
        self.send(at, address, Message::Payload(protocol, bytes));
        Ok(())
    }

    /// Bytes that [`Self::send_payload`] takes at most.
    pub const MAX_PAYLOAD: usize = MAX_BODY;

    /// Some reachable members other than this node, at random.
    pub fn random_reachable(&mut self, number: usize) -> Vec<Identity> {
        self.pick(number, |entry| entry.claim.is_active())
    }

    fn pick(&mut self, number: usize, wanted: impl Fn(&Entry) -> bool) -> Vec<Identity> {
        let own = self.identity().place();
        let mut picked: Vec<Identity> = Vec::with_capacity(number);
        let candidates = self.table.entries().filter(|entry| entry.identity.place() != own && wanted(entry));
        // Reservoir sampling (Vitter 1985, algorithm R).
        for (seen, entry) in candidates.enumerate() {
            if picked.len() < number {
                picked.push(entry.identity.clone());
            } else {
                let place = self.rng.random_range(0..=seen);
                if let Some(place) = picked.get_mut(place) {
                    *place = entry.identity.clone();
                }
            }
        }
        picked
    }

    fn send(&mut self, at: Moment, to: SocketAddrV4, message: Message<'_>) {
        let own = self.identity();
        let sender = if codec::answers(&message) {
            Sender::Known { place: own.place().0, digest: own.digest() }
        } else {
            Sender::Full(own.clone())
        };
        let uptime = u64::try_from(at.now.as_millis()).unwrap_or(u64::MAX);
        let envelope = Envelope { sender, uptime, wall: at.wall, message };
        if let Some(datagram) = self.seal.seal(&mut self.rng, &envelope) {
            self.outputs.push(Output::Send { to, datagram });
        }
    }

    fn tell(&mut self, notice: Notice) {
        self.outputs.push(Output::Notice(notice));
    }

    fn drop_entry(&mut self, at: Moment, entry: &Entry) {
        self.clocks.forget(entry.identity.place());
        self.swim.remove_down(at.now, &entry.identity);
    }

    /// Where a datagram came from is only told, never answered.
    fn refuse(&mut self, at: Moment, refusal: Refusal, source: SocketAddr) {
        *self.refused.entry(refusal).or_default() += 1;
        if !refusal.is_trouble() {
            return;
        }
        let unreported = self.unreported.entry(refusal).or_default();
        *unreported += 1;
        let count = *unreported;
        if self.troubles.may_tell(notice::Trouble::Refused(refusal), at.now) {
            self.unreported.remove(&refusal);
            self.tell(Notice::Refused { refusal, source, count });
        }
    }
}

#[cfg(test)]
mod tests;
