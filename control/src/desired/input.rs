//! What all sources say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::Ipv4Net;

use super::{Desired, Dirty, Entry, Input, Name, Reserved, SourceId, Statement, index::Index};
use crate::{
    model::{FanSpec, HostFilters, Origin, PortRange, UplinkHook},
    service::{Backend, Down, Service, Vip, VipSpec},
};

/// What does not concern single services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The fans of the files.
    pub fans: Vec<(FanSpec, Origin)>,
    /// The uplinks; empty for automatic choice.
    pub uplinks: Vec<String>,
    /// Where tunnel packets are judged.
    pub uplink_hook: UplinkHook,
    /// What is done about others' packet filters.
    pub host_filters: HostFilters,
    /// How many flows the tables hold; `None`: as the memory allows.
    pub flows: Option<u32>,
    /// Source ports for flows to backends off the overlays.
    pub nat_ports: PortRange,
    /// The network that named VIPs have their addresses in, and whose addresses are all routed to the datapath while there
    /// are services.
    pub vip_range: Option<Ipv4Net>,
    /// Services that the kernel holds and no source names stay: what was applied could not be read.
    pub keeps_unknown: bool,
}

/// What all sources say.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    settings: Arc<Settings>,
    reserved: Reserved,
    inputs: BTreeMap<SourceId, Input>,
    /// Whether the cluster speaks, and not this node's own sources.
    pub(super) is_clustered: bool,
    /// Of all sources together.
    down: Arc<BTreeMap<IpAddr, Down>>,
    /// What can't be followed of a source, for people.
    faults: Arc<BTreeMap<SourceId, Vec<String>>>,
    /// The greatest age so far.
    ages: u64,
    pub(super) index: Index,
}

impl Inputs {
    /// What does not concern single services.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Replaces what does not concern single services: anything may be other then.
    pub fn set_settings(&mut self, settings: Settings) {
        let is_other = self.settings.vip_range != settings.vip_range;
        self.settings = Arc::new(settings);
        if is_other {
            self.index_anew();
        }
    }

    /// Replaces the addresses that no named VIP may have; gives what that concerns.
    pub fn set_reserved(&mut self, mut reserved: Reserved) -> Dirty {
        let range = self.settings.vip_range;
        let is_near = |network: &Ipv4Net| {
            range.is_some_and(|range| range.contains(network) || network.contains(&range))
        };
        reserved.addresses.retain(|&address| is_near(&address.into()));
        reserved.networks.retain(is_near);
        if self.reserved == reserved {
            return Dirty::default();
        }
        self.reserved = reserved;
        self.index_anew();
        Dirty::All
    }

    pub(super) fn index_anew(&mut self) {
        let mut index = Index::new(self.settings.vip_range, self.reserved.clone());
        for (source, input) in self.inputs.iter().filter(|(source, _)| self.speaks(**source)) {
            for (name, statement) in &input.services {
                index.add(*source, name, statement);
            }
        }
        self.index = index;
    }

    /// Replaces what a source says; gives what that concerns.
    pub fn replace(&mut self, source: SourceId, input: Input) -> Dirty {
        let Input { label, node, services, down } = input;
        let own = self.inputs.entry(source).or_default();
        let is_other = (&own.label, &own.node) != (&label, &node);
        (own.label, own.node) = (label, node);
        let gone: Vec<Name> =
            own.services.keys().filter(|name| !services.contains_key(*name)).cloned().collect();
        let mut names = BTreeSet::new();
        for (name, statement) in gone
            .into_iter()
            .map(|name| (name, None))
            .chain(services.into_iter().map(|(name, statement)| (name, Some(statement))))
        {
            names.extend(self.state(source, &name, statement));
        }
        let dirty = self.set_down(source, down).and(Dirty::Names(names));
        if is_other { Dirty::All } else { dirty }
    }

    /// Names the node that contributes a source's backends, and where its services are changed.
    pub fn describe(&mut self, source: SourceId, label: &str, node: &Name) {
        let own = self.inputs.entry(source).or_default();
        (own.label, own.node) = (label.to_owned(), Arc::clone(node));
    }

    /// Takes away all that a source says of services.
    pub fn remove(&mut self, source: SourceId) {
        let names: Vec<Name> = self.services(source).map(|(name, _)| Arc::clone(name)).collect();
        for name in names {
            self.state(source, &name, None);
        }
        self.set_faults(source, Vec::new());
        self.inputs.remove(&source);
    }

    /// Replaces what can't be followed of a source.
    pub fn set_faults(&mut self, source: SourceId, faults: Vec<String>) {
        let former = self.faults.get(&source).map(Vec::as_slice).unwrap_or_default();
        if *former != *faults {
            let all = Arc::make_mut(&mut self.faults);
            all.remove(&source);
            if !faults.is_empty() {
                all.insert(source, faults);
            }
        }
    }

    /// Replaces what a source says of one service; gives the services that it concerns: none where it is as before. Where
    /// the source does not count, the service is told all the same.
    pub fn state(
        &mut self,
        source: SourceId,
        name: &Name,
        statement: Option<Arc<Statement>>,
    ) -> BTreeSet<Name> {
        let speaks = self.speaks(source);
        let own = &mut self.inputs.entry(source).or_default().services;
        let statement = statement.filter(|statement| !statement.is_empty());
        if own.get(name) == statement.as_ref() {
            return BTreeSet::new();
        }
        let mut names = BTreeSet::from([Arc::clone(name)]);
        if let Some(former) = own.remove(name).filter(|_| speaks) {
            names.extend(self.index.remove(source, name, &former));
        }
        if let Some(statement) = statement {
            if speaks {
                names.extend(self.index.add(source, name, &statement));
            }
            own.insert(Arc::clone(name), statement);
        }
        names
    }

    /// Where a VIP is; `None`: it has a name, and that has no address.
    pub fn resolve(&self, vip: &VipSpec) -> Option<Vip> {
        self.index.resolve(vip)
    }

    /// The name of VIPs that has an address.
    pub fn named_at(&self, address: IpAddr) -> Option<&Name> {
        match address {
            IpAddr::V4(address) => self.index.named().at(address),
            IpAddr::V6(_) => None,
        }
    }

    /// The services whose VIP has a name.
    pub(super) fn services_named(&self, name: &str) -> impl Iterator<Item = &Name> {
        self.index.services_named(name)
    }

    /// An age that is greater than all before.
    pub(super) fn next_age(&mut self) -> u64 {
        self.ages += 1;
        self.ages
    }

    /// Notes an age, so that those to come are greater.
    pub(super) fn note_age(&mut self, age: u64) {
        self.ages = self.ages.max(age);
    }

    /// Replaces what a source says of backends' health; gives the services that it concerns.
    pub fn set_down(&mut self, source: SourceId, down: BTreeMap<IpAddr, Down>) -> Dirty {
        let own = &mut self.inputs.entry(source).or_default().down;
        if *own == down {
            return Dirty::default();
        }
        *own = down;
        let all = self.inputs.values().rev().flat_map(|input| input.down.clone()).collect();
        let former = std::mem::replace(&mut self.down, Arc::new(all));
        let now = &self.down;
        let changed =
            former.keys().chain(now.keys()).filter(|address| former.get(address) != now.get(address));
        let index = &self.index;
        let names =
            changed.flat_map(|address| index.with_backend(*address)).map(|(_, name)| Arc::clone(name));
        Dirty::Names(names.collect())
    }

    /// What a source says of a service.
    pub fn get(&self, source: SourceId, name: &str) -> Option<&Arc<Statement>> {
        self.inputs.get(&source)?.services.get(name)
    }

    /// All that a source says of services.
    pub fn services(&self, source: SourceId) -> impl Iterator<Item = (&Name, &Arc<Statement>)> + Clone {
        self.inputs.get(&source).into_iter().flat_map(|input| &input.services)
    }

    /// The sources that count, in the order of their precedence.
    pub fn sources(&self) -> impl Iterator<Item = SourceId> + Clone {
        self.all_sources().filter(|source| self.speaks(*source))
    }

    /// Those too that do not count.
    pub(super) fn all_sources(&self) -> impl Iterator<Item = SourceId> + Clone {
        self.inputs.keys().copied()
    }

    /// Where a source's service is changed.
    pub fn place(&self, source: SourceId, name: &str) -> &str {
        let label = || self.inputs.get(&source).map_or("", |input| &input.label);
        self.get(source, name).and_then(|own| own.place.as_deref()).unwrap_or_else(label)
    }

    pub(super) fn faults(&self) -> &Arc<BTreeMap<SourceId, Vec<String>>> {
        &self.faults
    }

    /// Whether another source than this one names a backend of a service.
    pub(super) fn has_other(&self, source: SourceId, name: &str, backend: SocketAddr) -> bool {
        let mut others = self.sources().filter(|other| *other != source);
        others.any(|other| self.get(other, name).is_some_and(|own| own.has(backend)))
    }

    /// The source before `source` that contributes a backend to a service which is followed, and what it says of it.
    pub(super) fn contributed_before(
        &self,
        source: SourceId,
        entry: &Entry,
        backend: SocketAddr,
    ) -> Option<(SourceId, Backend)> {
        let counts = |other: SourceId, own: &Statement| other == entry.origin || own.definition.is_none();
        self.sources().take_while(|other| *other < source).find_map(|other| {
            let own = self.get(other, &entry.defined.name).filter(|own| counts(other, own))?;
            Some((other, *own.backends.iter().find(|own| own.socket() == backend)?))
        })
    }

    /// How many definitions there are, hidden ones too.
    pub fn definitions(&self) -> usize {
        let statements = self.sources().flat_map(|source| self.services(source));
        statements.filter(|(_, statement)| statement.definition.is_some()).count()
    }

    /// The services of `desired` that have a VIP of an address.
    pub fn with_vip_address<'d>(
        &'d self,
        desired: &'d Desired,
        address: IpAddr,
    ) -> impl Iterator<Item = &'d Service> {
        let named = self.index.with_vip_address(address).filter_map(|(_, name)| desired.get(name));
        named.map(|entry| &entry.wanted).filter(move |service| service.vip.address == address)
    }

    /// The services of `desired` that have a backend of an address.
    pub fn with_backend<'d>(
        &'d self,
        desired: &'d Desired,
        address: IpAddr,
    ) -> impl Iterator<Item = &'d Service> {
        let named = self.index.with_backend(address).filter_map(|(_, name)| desired.get(name));
        let has = move |service: &&Service| service.backends.iter().any(|backend| backend.address == address);
        named.map(|entry| &entry.wanted).filter(has)
    }

    /// Names of all that is said.
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.inputs.values().flat_map(|input| input.services.keys())
    }

    /// The sources, in the order of the nodes that contribute.
    pub(super) fn contributors(&self) -> Vec<SourceId> {
        let speaking = self.inputs.iter().filter(|(source, _)| self.speaks(**source));
        let mut sources: Vec<(&Name, SourceId)> =
            speaking.map(|(source, input)| (&input.node, *source)).collect();
        sources.sort_unstable();
        sources.into_iter().map(|(_, source)| source).collect()
    }

    /// All addresses that can't be reached, and why: of several sources the first says so.
    pub(super) fn all_down(&self) -> &Arc<BTreeMap<IpAddr, Down>> {
        &self.down
    }
}
