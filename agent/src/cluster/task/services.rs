//! Services: what this node's sources and requests say becomes records, and what all records say is told, with what follows
//! from how the members stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use control::{
    cluster::{
        log::Name,
        members::standings,
        records::{self, Former, RequestError, Said, Touched},
        replication::Turn,
        rotation::Serving,
    },
    desired::Statement,
};
use tokio::sync::oneshot;

use super::{
    Task,
    shared::{Members, Then},
};
use crate::cluster::{
    served::statement,
    services::{
        Local, OtherBackend, OwnOffer, ServiceChange, ServiceOutcome, ServiceRefusal, ServicesChanged,
        Stated, Word,
    },
};

/// How long a node that has lost what it wrote, or is new, waits for a member that answers, and for one that answers to give it
/// that back.
const PATIENCE: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(8)];
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);
/// From one attempt to write what this node's sources say to the next.
const AGAIN: Duration = Duration::from_secs(5);

/// Services, once the store is open and this node's own sources were heard.
#[derive(Default)]
pub(super) struct Services {
    serving: Serving,
    /// This node has never been in a cluster.
    is_first: bool,
    /// Since when the store is open.
    pub(super) opened: Duration,
    /// Whether what is served was told as a whole.
    has_begun: bool,
    /// Members may stand otherwise than what is served follows from.
    pub(super) is_standing_due: bool,
    /// Why what this node's sources say of some services is not written, and when it is tried again.
    pub(super) unwritten: Option<(String, BTreeSet<Name>, Duration)>,
    /// When what checks have found is written, as that failed.
    pub(super) unfound_at: Option<Duration>,
}

impl Services {
    /// Before the store is open; `is_first`: this node has never been in a cluster.
    pub(super) fn new(is_first: bool) -> Self {
        Self { is_first, ..Self::default() }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Duration {
        let again = self.unwritten.as_ref().map(|(.., at)| *at);
        self.serving.deadline().into_iter().chain(again).chain(self.unfound_at).min().unwrap_or(Duration::MAX)
    }

    /// Whether what is served was told.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }
}

impl Task<'_> {
    /// Takes what this node's own sources say.
    pub(super) fn hear_local(&mut self, local: Local) {
        let names = self.inbox.stated.get_or_insert_default().follow(local);
        if self.services.has_begun {
            self.write_local(names);
            self.adopt();
        } else {
            self.begin_services();
        }
    }

    /// When [`Self::begin_services`] is tried again.
    pub(super) fn begin_at(&self) -> Duration {
        let is_waiting = !self.services.has_begun && self.shared.is_some() && self.inbox.stated.is_some();
        if is_waiting { self.now() + LOOK } else { Duration::MAX }
    }

    /// Whether what this node wrote from its files last is known: members know when it was lost.
    fn may_begin(&self) -> bool {
        let Some(shared) = &self.shared else { return false };
        let own = self.inbox.settings.advertise;
        let has_seeds =
            self.seeds.addresses.iter().any(|seed| *seed != own) || !self.seeds.unresolved.is_empty();
        let is_alone = self.core.reachable() <= 1;
        let over = |patience: Duration| self.now() >= self.services.opened + patience;
        let [unanswered, given_back] = PATIENCE;
        !shared.is_new
            || shared.replication.state().has_compared()
            || over(given_back)
            || (is_alone && (over(unanswered) || (self.services.is_first && !has_seeds)))
    }

    /// Begins to serve: all that sources say is written where it was not, and what follows from all records is told.
    pub(super) fn begin_services(&mut self) {
        if !self.may_begin() {
            return;
        }
        let Some(shared) = &self.shared else { return };
        let Some(Stated { said, .. }) = &self.inbox.stated else { return };
        let state = shared.replication.state();
        let mut names: BTreeSet<Name> = said.keys().cloned().collect();
        names.extend(records::claimed(state.view(), state.name()));
        self.write_local(names);
        self.adopt();
        let Some(shared) = &self.shared else { return };
        let view = shared.replication.state().view();
        self.services = Services {
            serving: Serving::default(),
            is_first: false,
            opened: self.services.opened,
            has_begun: true,
            is_standing_due: true,
            unwritten: self.services.unwritten.take(),
            unfound_at: None,
        };
        let touched = Touched {
            services: view.names().cloned().collect(),
            nodes: view.facts().map(|(node, _)| node.clone()).collect(),
            ..Touched::default()
        };
        let now = self.start.elapsed();
        self.services.serving.follow(view, &touched, now);
        let statements = self.statements(touched.services);
        let all = statements.into_iter().filter_map(|(name, statement)| Some((name, statement?))).collect();
        self.inbox.outbox.say(Word::Whole(all));
        self.stand();
        self.write_all_found();
    }

    /// Writes what this node's sources say of some services, where that was not written.
    fn write_local(&mut self, mut names: BTreeSet<Name>) {
        let (time, now) = (self.time(), self.now());
        names.extend(self.services.unwritten.take().into_iter().flat_map(|(_, names, _)| names));
        let (Some(shared), Some(stated)) = (&mut self.shared, &self.inbox.stated) else { return };
        let state = shared.replication.state();
        let (view, logs, own) = (state.view(), state.logs(), state.name());
        let records = names.iter().flat_map(|name| {
            let said = stated.said.get(name).and_then(|(file, statement)| said(file, statement));
            records::state(view, logs, own, name, said)
        });
        let records: Vec<_> = records.collect();
        if records.is_empty() {
            return;
        }
        match shared.replication.write(records, time, &mut Members(&mut self.core)) {
            Ok(turn) => self.done(turn, Vec::new()),
            Err(error) => {
                let why = format!(
                    "services-unwritten: what this node's files say of {} services is not in the cluster: {error}",
                    names.len()
                );
                self.services.unwritten = Some((why, names, now + AGAIN));
            }
        }
    }

    /// Writes what was applied before the cluster spoke, once.
    fn adopt(&mut self) {
        let time = self.time();
        let (Some(shared), Some(stated)) = (&mut self.shared, &self.inbox.stated) else { return };
        if stated.applied.is_empty() {
            return;
        }
        let state = shared.replication.state();
        let (view, logs, own) = (state.view(), state.logs(), state.name());
        let records = stated.applied.iter().flat_map(|(name, statement)| {
            let Statement { definition, backends, drained, .. } = &**statement;
            // A file's definition hides the applied one with its backends.
            let is_hidden = definition.is_some() && stated.said.contains_key(name);
            let (definition, backends) =
                if is_hidden { (None, &[][..]) } else { (definition.as_ref(), &backends[..]) };
            records::adopt(view, logs, own, name, Former { definition, backends, drained })
        });
        match shared.replication.write(records.collect(), time, &mut Members(&mut self.core)) {
            Ok(turn) => self.done(turn, vec![Then::Adopted]),
            Err(error) => tracing::warn!("cluster: what was applied here is not in it: {error}"),
        }
    }

    /// Follows what records say now.
    pub(super) fn follow_services(&mut self, touched: &Touched) {
        self.services.is_standing_due |= !touched.nodes.is_empty();
        let Some(shared) = self.shared.as_ref().filter(|_| self.services.has_begun) else { return };
        if touched.services.is_empty() && touched.nodes.is_empty() {
            return;
        }
        let view = shared.replication.state().view();
        let mut names = self.services.serving.follow(view, touched, self.start.elapsed());
        names.extend(touched.services.iter().cloned());
        self.tell(names);
    }

    /// Follows how members stand.
    pub(super) fn stand(&mut self) {
        let at = self.moment();
        self.services.is_standing_due = false;
        let Some(shared) = self.shared.as_ref().filter(|_| self.services.has_begun) else { return };
        let view = shared.replication.state().view();
        let members = self.core.members();
        let mut is_news = false;
        for member in &members {
            let name = member.identity.name();
            let is_on = view.facts_of(name.as_str()).is_some_and(|facts| facts.is_in_maintenance);
            is_news |= self.core.set_maintenance(at, name, is_on);
        }
        let (standings, is_minority) = (standings(&self.core), self.core.is_minority());
        let names = self.services.serving.stand(view, standings, is_minority, at.now);
        self.tell(names);
        if is_news {
            self.view_soon();
        }
    }

    /// What is due.
    pub(super) fn tend_services(&mut self) {
        let now = self.now();
        if self.services.unwritten.as_ref().is_some_and(|(.., at)| *at <= now) {
            self.write_local(BTreeSet::new());
        }
        if self.services.unfound_at.is_some_and(|at| at <= now) {
            self.write_all_found();
        }
        let Some(shared) = &self.shared else { return };
        if self.services.serving.deadline().is_some_and(|due| due <= now) {
            let names = self.services.serving.elapse(shared.replication.state().view(), now);
            self.tell(names);
        }
    }

    fn tell(&mut self, names: BTreeSet<Name>) {
        if !names.is_empty() {
            self.inbox.outbox.say(Word::Changes(self.statements(names)));
        }
    }

    fn statements(&self, names: BTreeSet<Name>) -> BTreeMap<Name, Option<Arc<Statement>>> {
        let Some(shared) = &self.shared else { return BTreeMap::new() };
        let state = shared.replication.state();
        let of = |name: Name| {
            let placed = self.services.serving.get(&name).map(AsRef::as_ref);
            let said = statement(state.name(), state.view().service(&name), placed);
            (name, said)
        };
        names.into_iter().map(of).collect()
    }

    /// Changes services as a request asks for it; it is answered once that is on disk.
    pub(super) fn change_services(&mut self, change: &ServiceChange, reply: oneshot::Sender<ServiceOutcome>) {
        match self.changed(change) {
            Ok((turn, changed)) => self.done(turn, vec![Then::Changed(reply, changed)]),
            // The client may have given up.
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    fn changed(&mut self, change: &ServiceChange) -> Result<(Turn, ServicesChanged), ServiceRefusal> {
        let (time, why_not) = (self.time(), self.why_not());
        let shared = self.shared.as_mut().filter(|shared| shared.failing.is_none());
        let Some(shared) = shared else { return Err(ServiceRefusal::Unavailable(why_not)) };
        let state = shared.replication.state();
        let (view, logs, own) = (state.view(), state.logs(), state.name());
        let mut changed = ServicesChanged::default();
        let records = match change {
            ServiceChange::Apply(services) => {
                changed.others =
                    services.iter().flat_map(|own| others(view, state.name(), &own.name)).collect();
                services.iter().flat_map(|service| records::apply(view, logs, own, service)).collect()
            }
            ServiceChange::Remove(name) => vec![records::remove(view, name).map_err(refusal)?],
            ServiceChange::Drain(name, backend, drain) => {
                records::drain(view, name, *backend, *drain).map_err(refusal)?.into_iter().collect()
            }
            ServiceChange::Offer(name, backend, weight) => {
                let offered = records::offer(view, logs, own, name, (*backend, *weight));
                let (record, weight) = offered.map_err(refusal)?;
                changed.weight = weight;
                record.into_iter().collect()
            }
            ServiceChange::Withdraw(name, backend) => {
                let withdrawn = records::withdraw(view, logs, own, name, *backend);
                let (records, weight) = withdrawn.map_err(refusal)?;
                changed.weight = weight;
                records
            }
        };
        changed.names = records.iter().filter_map(|record| record.service().cloned()).collect();
        let turn = match records.is_empty() {
            true => Turn::default(),
            false => shared
                .replication
                .write(records, time, &mut Members(&mut self.core))
                .map_err(|error| ServiceRefusal::Refused(error.to_string()))?,
        };
        Ok((turn, changed))
    }

    /// The backends that this node contributes, of one service or all: service, address, weight.
    pub(super) fn own_backends(&self, service: Option<&str>) -> Result<Vec<OwnOffer>, ServiceRefusal> {
        let Some(shared) = &self.shared else { return Err(ServiceRefusal::Unavailable(self.why_not())) };
        let state = shared.replication.state();
        let (view, logs, own) = (state.view(), state.logs(), state.name());
        let is_there = |name: &str| view.service(name).is_some_and(|parts| parts.definition().is_some());
        if let Some(name) = service.filter(|name| !is_there(name)) {
            return Err(refusal(RequestError::NoService(name.to_owned())));
        }
        let names = view.names().filter(|name| service.is_none_or(|service| *service == ***name));
        let of = |name: &Name| {
            let offered = records::offered(view, logs, own, name).into_iter();
            let name = name.clone();
            offered.map(move |(socket, record)| (name.to_string(), socket, record.weight))
        };
        Ok(names.filter(|name| is_there(name)).flat_map(of).collect())
    }
}

fn said<'s>(file: &'s Name, statement: &'s Statement) -> Option<Said<'s>> {
    let definition = statement.definition.as_ref()?;
    Some(Said { file, definition, backends: &statement.backends })
}

fn others(view: &records::View, own: &Name, service: &str) -> Vec<OtherBackend> {
    let offers = view.service(service).into_iter().flat_map(records::Parts::offers);
    let others = offers.filter(|offer| offer.node != own);
    let other = |offer: records::Offer<'_>| OtherBackend {
        service: service.to_owned(),
        address: offer.socket,
        node: offer.node.to_string(),
    };
    others.map(other).collect()
}

fn refusal(error: RequestError) -> ServiceRefusal {
    match error {
        RequestError::NoService(_) | RequestError::NoBackend { .. } => {
            ServiceRefusal::NotFound(error.to_string())
        }
        RequestError::OfOthers { .. } | RequestError::OfFile { .. } => {
            ServiceRefusal::Refused(error.to_string())
        }
    }
}
