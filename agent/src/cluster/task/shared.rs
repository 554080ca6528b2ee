//! What members share, in the task: replication's core, the store that it rests on, and its streams.
//!
//! Whatever a step says to others, and the acknowledgement of a write, waits until the step's effects are stored.

use std::{collections::BTreeMap, iter, time::Duration};

use control::cluster::{
    agenda::Agenda,
    identity::NodeName,
    log::{Change, Effects, Limits, Name},
    membership::Membership,
    replication::{Leaving, Messages, Pace, Replication, StreamId as LogStream, Time, Turn, Waiting},
    state::{Identity, State, Wall},
};
use tokio::sync::oneshot;

pub(super) use control::cluster::members::Members;

use super::{Settings, Task, events::EVENTS, followers::Watches, lag::Lag, write::Held};
use crate::cluster::{
    keys::KeyOutcome,
    services::{ServiceOutcome, ServicesChanged, Word},
    store::{Store, StoredLog, Told},
    transport::{Kind, Said, StreamId},
};

/// Payloads of the core's datagrams: what replication says.
const LOGS: u8 = 1;
/// From one attempt to open the store to the next.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// What rests on a step that is to be stored.
pub(super) enum Then {
    Leave(Leaving),
    /// For the other side of a stream.
    Answer(oneshot::Sender<Option<Vec<u8>>>, Option<Vec<u8>>),
    /// For who has written.
    Reply(oneshot::Sender<KeyOutcome>, KeyOutcome),
    /// For who has changed services.
    Changed(oneshot::Sender<ServiceOutcome>, ServicesChanged),
    /// What was applied before the cluster spoke is in it.
    Adopted,
}

/// What one side of a stream says at a time, on the wire: with the name of who says it.
type Saying = (String, Messages);

/// A stream.
pub(super) enum Talk {
    Logs(LogStream),
    /// Another node decides on a write.
    Write(oneshot::Sender<KeyOutcome>),
}

/// Replication, its store, and what waits.
pub(super) struct Shared {
    pub(super) replication: Replication,
    pub(super) store: Store,
    pub(super) talks: BTreeMap<StreamId, Talk>,
    /// Nothing of this node's was in the store: it is new, or has lost what it wrote.
    pub(super) is_new: bool,
    /// Who follows user keys.
    pub(super) watches: Watches,
    /// How long records were on their way.
    pub(super) lag: Lag,
    /// Why nothing can be stored.
    pub(super) failing: Option<String>,
    waiting: Waiting<Then>,
    /// Writes that wait for the members to settle.
    pub(super) held: Agenda<Held>,
}

impl Shared {
    /// Opens the store and takes what is in it; gives what beginning with that did.
    fn open(
        settings: &Settings,
        tag: u32,
        time: Time,
        core: &mut Membership,
    ) -> Result<(Self, Turn), String> {
        let (store, logs) = Store::open(&settings.config.data)?;
        let identity = Identity {
            cluster: settings.config.name.clone(),
            name: settings.node.as_str().into(),
            key: settings.key.clone(),
            tag,
        };
        let mut state = State::new(identity, Limits::default());
        let lost: Vec<Effects> = logs.into_iter().filter_map(|log| load(&mut state, log)).collect();
        let is_new = state.logs().heads(state.name()).next().is_none();
        let started = state.start(time.wall).unwrap_or_else(|error| {
            tracing::error!("cluster: {error}");
            Default::default()
        });
        let mut replication = Replication::new(state, Pace::default(), time.now);
        let turn = replication.started(started, time, &mut Members(core));
        let (talks, watches, waiting, held) = Default::default();
        let lag = Lag::new(time.wall);
        let mut shared =
            Self { replication, store, talks, watches, lag, is_new, failing: None, waiting, held };
        lost.into_iter().for_each(|effects| shared.keep(effects));
        Ok((shared, turn))
    }

    /// Has effects stored.
    fn keep(&mut self, effects: Effects) {
        if !effects.is_empty() {
            self.store.write(self.waiting.give(), effects);
        }
    }

    pub(super) fn hear_store(&mut self, told: Told) {
        match told {
            Told::UpTo(step) => {
                self.waiting.stored(step);
                self.failing = None;
            }
            Told::Failing(why) => self.failing = Some(why),
        }
    }

    /// What the store tells; never ends once it has ended.
    pub(super) async fn told(&mut self) -> Told {
        match self.store.told.recv().await {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Duration {
        let replication = self.replication.deadline();
        self.held.deadline().map_or(replication, |held| held.min(replication))
    }
}

/// Takes a log; one that is damaged leaves the store, and comes back from members.
fn load(state: &mut State, (slot, head, entries): StoredLog) -> Option<Effects> {
    let origin = head.head.origin.clone();
    let keys: Vec<_> = entries.iter().map(|(key, _)| key.clone()).collect();
    let error = state.load(slot, head, entries).err()?;
    tracing::error!("cluster: {error}; it comes back from members");
    let gone = |key| Change { origin: origin.clone(), slot, key, was: None, now: None };
    let changes = keys.into_iter().map(gone).collect();
    Some(Effects { changes, heads: vec![(origin.clone(), slot, None)] })
}

impl Task<'_> {
    pub(super) fn time(&self) -> Time {
        let at = self.moment();
        Time { now: at.now, wall: Wall { own_ms: at.wall, median_ms: self.core.wall(at) } }
    }

    /// Opens the store, where that has not been done.
    pub(super) fn open_shared(&mut self) {
        let (mut tag, time) = ([0; 4], self.time());
        let random = getrandom::fill(&mut tag).map_err(|error| format!("store: no random bytes: {error}"));
        let tag = u32::from_le_bytes(tag);
        match random.and_then(|()| Shared::open(&self.inbox.settings, tag, time, &mut self.core)) {
            Ok((mut shared, turn)) => {
                // Members may be known by now.
                shared.replication.met(time.now);
                (self.shared, self.unstored) = (Some(shared), None);
                self.done(turn, Vec::new());
                self.take_over_former();
                self.write_facts();
                self.services.opened = self.now();
                self.begin_services();
            }
            Err(why) => {
                self.unstored = Some(why);
                self.inbox.outbox.say(Word::Silent);
                self.open_at = self.now() + OPEN_AGAIN;
            }
        }
        self.view_soon();
    }

    /// Takes over what this node wrote under another name, which had the same key.
    fn take_over_former(&mut self) {
        let time = self.time();
        let Some(shared) = &mut self.shared else { return };
        let Some(former) = shared.replication.state().former_name().cloned() else { return };
        match shared.replication.rename_from(&former, time, &mut Members(&mut self.core)) {
            Ok(turn) => self.done(turn, Vec::new()),
            Err(error) => tracing::warn!("cluster: the former name {former}: {error}"),
        }
    }

    /// Follows a step: it is stored first, then what rests on it leaves.
    pub(super) fn done(&mut self, mut turn: Turn, then: Vec<Then>) {
        let Time { now, wall } = self.time();
        let Some(shared) = &mut self.shared else { return };
        shared.lag.follow(&turn.effects.changes, shared.replication.state().name(), now, wall);
        shared.keep(std::mem::take(&mut turn.effects));
        if let Some(error) = turn.held_back.take() {
            self.troubles.note(format!("removals-wait: {error}"), now);
        }
        let leaving = turn.take_leaving().into_iter().map(Then::Leave);
        leaving.chain(then).for_each(|then| shared.waiting.hold(then));
        for (_, refusal) in &turn.refusals {
            self.troubles.refused_log(refusal, now);
        }
        if !turn.touched.forgotten.is_empty() {
            self.view_at = now;
        }
        if !turn.touched.users.is_empty() {
            self.keys_changed(&turn.touched.users);
        }
        self.follow_services(&turn.touched);
        if turn.was_forgotten {
            self.write_facts();
            self.begin_services();
        }
        self.release();
    }

    /// Lets leave what is stored.
    pub(super) fn release(&mut self) {
        while let Some(then) = self.shared.as_mut().and_then(|shared| shared.waiting.release()) {
            // Whoever waited may have given up, and a member may have gone.
            match then {
                Then::Leave(Leaving::Datagram(to, bytes)) => self.say(&to, &bytes),
                Then::Leave(Leaving::Open(stream, to, messages)) => self.open_stream(stream, &to, messages),
                Then::Answer(answer, bytes) => drop(answer.send(bytes)),
                Then::Reply(reply, outcome) => drop(reply.send(outcome)),
                Then::Changed(reply, changed) => drop(reply.send(Ok(changed))),
                Then::Adopted => self.inbox.outbox.adopted(),
            }
        }
    }

    fn say(&mut self, to: &Name, bytes: &[u8]) {
        let at = self.moment();
        if let Ok(name) = NodeName::new(to) {
            drop(self.core.send_payload(at, &name, LOGS, bytes));
        }
    }

    fn open_stream(&mut self, stream: LogStream, to: &Name, messages: Messages) {
        let member = NodeName::new(to).ok().and_then(|name| self.core.member(&name));
        let Some(shared) = &mut self.shared else { return };
        let saying: Saying = (shared.replication.state().name().to_string(), messages);
        let (Some(member), Some(transport), Ok(bytes)) =
            (member, &mut self.transport, postcard::to_allocvec(&saying))
        else {
            return shared.replication.closed(stream);
        };
        self.streams += 1;
        shared.talks.insert(StreamId::Own(self.streams), Talk::Logs(stream));
        transport.converse(self.streams, member.identity.address(), Kind::Logs, bytes);
    }

    /// What is due.
    pub(super) fn tend_shared(&mut self) {
        let time = self.time();
        let Some(shared) = &mut self.shared else { return };
        let turn = shared.replication.tick(time, &mut Members(&mut self.core));
        let held: Vec<Held> =
            iter::from_fn(|| shared.held.pop_until(time.now)).map(|(_, held)| held).collect();
        self.done(turn, Vec::new());
        held.into_iter().for_each(|held| self.decide(held));
    }

    /// Takes a payload of a member.
    pub(super) fn payload(&mut self, from: &NodeName, protocol: u8, bytes: &[u8]) {
        if protocol == EVENTS {
            return self.hear_event(from, bytes);
        }
        let time = self.time();
        // Others are of a later version.
        let Some(shared) = self.shared.as_mut().filter(|_| protocol == LOGS) else { return };
        let from = from.as_str().into();
        let turn = shared.replication.datagram(&from, bytes, time, &mut Members(&mut self.core));
        self.done(turn, Vec::new());
    }

    /// Takes what the other side of a stream about logs says.
    pub(super) fn hear_logs(&mut self, Said { stream, bytes, answer, .. }: Said) {
        let time = self.time();
        let Some((from, said)) = postcard::from_bytes::<Saying>(&bytes).ok() else {
            return drop(answer.send(None));
        };
        let member = NodeName::new(&from).ok().and_then(|name| self.core.member(&name));
        let is_member = member.is_some_and(|member| member.state.is_reachable());
        let Some(shared) = self.shared.as_mut().filter(|_| is_member) else {
            return drop(answer.send(None));
        };
        let logs = match (shared.talks.get(&stream), stream) {
            (Some(Talk::Logs(logs)), _) => Some(*logs),
            (None, StreamId::Other(_)) => shared.replication.accept(&from.as_str().into(), time),
            _ => None,
        };
        let Some(logs) = logs else { return drop(answer.send(None)) };
        shared.talks.insert(stream, Talk::Logs(logs));
        let (turn, messages) = shared.replication.hear(logs, &said, time, &mut Members(&mut self.core));
        let name = shared.replication.state().name().to_string();
        let bytes = messages.and_then(|messages| postcard::to_allocvec::<Saying>(&(name, messages)).ok());
        self.done(turn, vec![Then::Answer(answer, bytes)]);
    }
}
