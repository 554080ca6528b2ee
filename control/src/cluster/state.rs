//! The cluster's state as one node holds it: all logs, the view of them, and what this node writes.

mod fresh;

pub use ed25519_dalek::SigningKey;

use self::fresh::{Fresh, is_missing};
use super::{
    clock::{Clock, Stamp},
    log::{
        Arrival, Collector, Commit, Digest, Effects, Exchange, Item, Key, Limits, Listener, LoadError, Logs,
        Message, Name, Put, Refusal, Segment, SignedHead, Step, Want, WriteError, Writer,
    },
    records::{self, Record, Tidy, Touched, View},
};

/// Whose state it is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster's name.
    pub cluster: String,
    /// The node's name.
    pub name: Name,
    /// The node's key.
    pub key: SigningKey,
    /// Random: no two starts of the node have the same.
    pub tag: u32,
}

/// The clocks when something happens, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wall {
    /// This node's.
    pub own_ms: u64,
    /// The median of the members' that this node hears, its own included.
    pub median_ms: u64,
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "what was done is to be stored before anything is sent"]
pub struct Outcome {
    /// To be stored, as one transaction, before anything below is sent and before a write is acknowledged.
    pub effects: Effects,
    /// For some random members: what this node has written.
    pub pushes: Vec<Segment>,
    /// For the other side of an exchange.
    pub messages: Vec<Message>,
    /// What the view says of is other now.
    pub touched: Touched,
    /// What was refused.
    pub refusals: Vec<Refusal>,
    /// This node was forgotten: what it had written before its start is gone, and it states its facts and files anew.
    pub was_forgotten: bool,
    /// What was to be taken out of this node's log and could not.
    pub held_back: Option<WriteError>,
}

/// What a push was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// New: it is to be passed on to some random members.
    New,
    /// Known: it goes no further.
    Known,
    /// It continues what is not here: this is to be asked of its sender.
    Ask(Want),
}

/// The cluster's state as one node holds it.
#[derive(Debug)]
pub struct State {
    identity: Identity,
    logs: Logs,
    view: View,
    writer: Writer,
    fresh: Fresh,
    clock: Clock,
    collector: Collector,
    tidy: Tidy,
    has_compared: bool,
}

impl State {
    /// Nothing, until what was stored is loaded.
    pub fn new(identity: Identity, limits: Limits) -> Self {
        let logs = Logs::new(&identity.cluster, limits);
        let writer = Writer::new(identity.name.clone(), identity.key.clone(), identity.tag);
        let (view, fresh, clock, collector, tidy) = Default::default();
        Self { identity, logs, view, writer, fresh, clock, collector, tidy, has_compared: false }
    }

    /// Takes a log that was stored.
    ///
    /// # Errors
    /// It is damaged.
    pub fn load(
        &mut self,
        slot: u32,
        head: SignedHead,
        entries: impl IntoIterator<Item = (Key, Item)>,
    ) -> Result<(), LoadError> {
        self.logs.load(slot, head, entries)
    }

    /// Begins, once everything that was stored is loaded.
    ///
    /// This node's records with stamps that are too far ahead are stamped anew.
    ///
    /// # Errors
    /// There is no room for that.
    pub fn start(&mut self, wall: Wall) -> Result<Outcome, WriteError> {
        self.view = View::of(&self.logs);
        let mut outcome = Outcome::default();
        for name in self.view.all_forgotten() {
            self.obey_mark(&name, wall, &mut outcome);
        }
        let own = self.logs.entries().filter(|(origin, ..)| **origin == self.identity.name);
        let mut ahead: Vec<(Stamp, Key, Item)> = Vec::new();
        let mut last = Stamp::ZERO;
        for (_, _, key, item) in own {
            if item.stamp.is_ahead_of(wall.median_ms) {
                ahead.push((item.stamp, key.clone(), item.clone()));
            } else {
                last = last.max(item.stamp);
            }
        }
        self.clock = Clock::after(last);
        ahead.sort_by_key(|(stamp, ..)| *stamp);
        let puts: Vec<Put> = ahead
            .into_iter()
            .map(|(_, key, Item { writer, value, .. })| {
                let stamp = self.clock.tick(wall.own_ms, Stamp::ZERO);
                Put { key, stamp, writer, value }
            })
            .collect();
        self.edit(puts, wall, &mut outcome)?;
        Ok(outcome)
    }

    /// All logs.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// What they say.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The node's name.
    pub fn name(&self) -> &Name {
        &self.identity.name
    }

    /// The digest of everything.
    pub fn digest(&mut self) -> Digest {
        self.logs.digest()
    }

    /// Whether something waits for members to hear of it: removals, or records that others' cover.
    pub fn waits(&self) -> bool {
        self.tidy.waits() || self.logs.tombstones(&self.identity.name) > 0
    }

    /// A member has what is here, or what was here at a count of steps, and nothing else.
    pub fn is_same(&mut self, member: &Name, steps: u64) {
        self.has_compared = true;
        self.collector.heard(member, steps);
    }

    /// Whether this node has, since its start, all that some member had: what it had lost is here again, as far as that member
    /// knew.
    pub fn has_compared(&self) -> bool {
        self.has_compared
    }

    /// Members that have not heard of everything that is here.
    pub fn behind<'m>(&self, members: impl IntoIterator<Item = &'m Name>) -> Vec<&'m Name> {
        self.collector.behind(members, self.logs.steps())
    }

    /// Writes records, all or none.
    ///
    /// # Errors
    /// Nothing was written, and why.
    pub fn write(&mut self, records: Vec<Record>, wall: Wall) -> Result<Outcome, WriteError> {
        let puts = records::puts(&self.view, &self.identity.name, records, &mut self.clock, wall.own_ms);
        let mut outcome = Outcome::default();
        self.put(puts, wall, &mut outcome)?;
        Ok(outcome)
    }

    /// Forgets a node: what it has written for the cluster is taken over, the rest goes, everywhere.
    ///
    /// # Errors
    /// There is no room for that; nothing was forgotten.
    pub fn forget(&mut self, node: &Name, wall: Wall) -> Result<Outcome, WriteError> {
        let mut outcome = Outcome::default();
        self.collector.forget(node);
        let Some(mark) = records::forget(&self.view, &self.logs, node) else { return Ok(outcome) };
        let mut puts = records::taken_over(&self.view, node);
        puts.extend(records::puts(&self.view, &self.identity.name, vec![mark], &mut self.clock, wall.own_ms));
        self.put(puts, wall, &mut outcome)?;
        Ok(outcome)
    }

    /// A former name of this node: it has a log of that name with this node's key.
    pub fn former_name(&self) -> Option<&Name> {
        let key = self.identity.key.verifying_key().to_bytes();
        let is_own =
            |name: &&Name| **name != self.identity.name && self.logs.heads(name).any(|head| head.key == key);
        self.logs.origins().find(is_own)
    }

    /// Takes over everything that this node wrote under a former name, which is forgotten. No node may use that name now.
    ///
    /// # Errors
    /// There is no room for that; nothing was done.
    pub fn rename_from(&mut self, former: &Name, wall: Wall) -> Result<Outcome, WriteError> {
        let mut outcome = Outcome::default();
        let Some(mark) = records::forget(&self.view, &self.logs, former) else { return Ok(outcome) };
        let mut puts = records::taken_over(&self.view, former);
        puts.extend(records::owned(&self.logs, former));
        let own = &self.identity.name;
        puts.extend(records::puts(&self.view, own, vec![mark], &mut self.clock, wall.own_ms));
        self.put(puts, wall, &mut outcome)?;
        Ok(outcome)
    }

    /// How much is known to be written since the start.
    #[cfg(test)]
    pub(super) fn fresh(&self) -> usize {
        self.fresh.count()
    }

    /// Writes what outlives the log that it stands in.
    fn put(&mut self, puts: Vec<Put>, wall: Wall, outcome: &mut Outcome) -> Result<(), WriteError> {
        if !puts.is_empty() {
            let written: Vec<_> = puts.iter().map(|put| (put.key.clone(), put.stamp)).collect();
            let commit = self.writer.write(&mut self.logs, puts)?;
            self.fresh.wrote(written);
            self.committed(commit, wall, outcome);
        }
        Ok(())
    }

    /// Changes what was written before.
    fn edit(&mut self, puts: Vec<Put>, wall: Wall, outcome: &mut Outcome) -> Result<(), WriteError> {
        if !puts.is_empty() {
            let commit = self.writer.write(&mut self.logs, puts)?;
            self.committed(commit, wall, outcome);
        }
        Ok(())
    }

    fn committed(&mut self, Commit { effects, push }: Commit, wall: Wall, outcome: &mut Outcome) {
        outcome.pushes.push(push);
        self.follow(effects, wall, outcome);
    }

    /// Takes a push of a member.
    ///
    /// # Errors
    /// It was refused, and why.
    pub fn receive(&mut self, segment: Segment, wall: Wall) -> Result<(Pushed, Outcome), Refusal> {
        let mut outcome = Outcome::default();
        let pushed = match self.logs.receive(segment, wall.median_ms)? {
            Arrival::New(effects) => {
                self.follow(effects, wall, &mut outcome);
                Pushed::New
            }
            Arrival::Part(want) | Arrival::Gap(want) => Pushed::Ask(want),
            Arrival::Known => Pushed::Known,
        };
        Ok((pushed, outcome))
    }

    /// Begins an exchange with its first message.
    pub fn begin_exchange(&mut self) -> (Exchange, Message) {
        Exchange::begin(&mut self.logs)
    }

    /// The side of an exchange that is spoken to.
    pub fn answering(&self) -> Exchange {
        Exchange::answering(&self.logs)
    }

    /// Takes a message of an exchange with a member.
    pub fn answer(
        &mut self,
        exchange: &mut Exchange,
        member: &Name,
        message: Message,
        wall: Wall,
    ) -> Outcome {
        let Step { effects, messages, refusals } = exchange.answer(&mut self.logs, message, wall.median_ms);
        let mut outcome = Outcome { messages, refusals, ..Outcome::default() };
        self.follow(effects, wall, &mut outcome);
        if exchange.is_complete() {
            self.has_compared = true;
            self.collector.heard(member, exchange.began);
        }
        outcome
    }

    /// Follows what was done to the logs: the view, marks of forgotten nodes, and logs of this node's that were lost.
    fn follow(&mut self, effects: Effects, wall: Wall, outcome: &mut Outcome) {
        for change in &effects.changes {
            if change.origin == self.identity.name {
                self.fresh.follow(change);
            } else {
                self.collector.touch(&change.key);
            }
        }
        let touched = self.view.follow(&effects.changes);
        outcome.effects.extend(effects);
        let forgotten = touched.forgotten.clone();
        outcome.touched.extend(touched);
        for name in forgotten {
            self.obey_mark(&name, wall, outcome);
        }
        if let Some(commit) = self.writer.adopt(&mut self.logs) {
            self.committed(commit, wall, outcome);
        }
    }

    /// Drops the logs of a node that a mark says is forgotten.
    fn obey_mark(&mut self, name: &Name, wall: Wall, outcome: &mut Outcome) {
        let Some(born) = self.view.forgotten(name).map(|(_, forgotten)| forgotten.born) else { return };
        if !self.logs.heads(name).any(|head| head.born <= born) {
            let _nothing = self.logs.forget(name, born);
            return;
        }
        if *name == self.identity.name {
            return self.begin_anew(born, wall, outcome);
        }
        let puts = records::taken_over(&self.view, name);
        let effects = self.logs.forget(name, born);
        // Without room for what is taken over, those hold it that have some.
        let _refused = self.put(puts, wall, outcome);
        self.follow(effects, wall, outcome);
    }

    /// Begins another log, because this node was forgotten, with what it has written since its start.
    fn begin_anew(&mut self, born: u32, wall: Wall, outcome: &mut Outcome) {
        outcome.was_forgotten = true;
        let mut written = self.fresh.take(&self.logs, &self.identity.name);
        let effects = self.writer.begin_anew(&mut self.logs, born);
        self.follow(effects, wall, outcome);
        written.retain(|put| is_missing(&self.view, put));
        // It had room in the former log.
        outcome.held_back = self.put(written, wall, outcome).err().or(outcome.held_back.take());
    }

    /// Takes out of this node's log tombstones that nobody needs, what has ended, and what others' records cover.
    ///
    /// `members` are all others, dead ones too, as long as they are not forgotten. To be called now and then.
    pub fn tend(&mut self, members: &[Listener], wall: Wall) -> Outcome {
        let mut outcome = Outcome::default();
        let view = &self.view;
        let need = |key: &Key, item: &Item| view.need(key, item.stamp);
        if let Some(commit) = self.collector.collect(&mut self.writer, &mut self.logs, members, need) {
            self.committed(commit, wall, &mut outcome);
        }
        let ended = records::ended(&self.view, &self.identity.name);
        let mut puts: Vec<Put> = ended
            .into_iter()
            .map(|key| Put { key: key.encode(), stamp: Stamp::ZERO, writer: None, value: None })
            .collect();
        let all_heard = self.collector.all_heard(&self.logs, &self.identity.name, members);
        puts.extend(self.tidy.covered(&self.view, &self.logs, &self.identity.name, all_heard));
        // What finds no room waits for the next time.
        puts.truncate(self.logs.room_for_removals(&self.identity.name));
        outcome.held_back = self.edit(puts, wall, &mut outcome).err();
        outcome
    }
}
