//! What one source says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::Name;
use crate::service::{Backend, Declared, Definition, Down, Outage, Service, VipSpec};

/// The sources, in the order of their precedence.
///
/// A further one is a line here, a module that makes its [`Input`] or its statements, and its wiring in the event loop:
/// [`super::Inputs::replace`] or [`super::Inputs::state`] whenever it says something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceId {
    /// The configuration file.
    File,
    /// A source that the configuration lists, by its place there.
    Listed(u8),
    /// What was applied by request.
    Applied,
    /// What the cluster's members share. While it speaks, those before do not: what they say is in the cluster.
    Cluster,
    /// Which endpoints of this node are there.
    Presence,
    /// What this node's checks say, while the cluster does not speak.
    Checks,
}

impl SourceId {
    /// Whether it defines services for this node alone.
    pub(super) fn is_local(self) -> bool {
        self < Self::Cluster
    }

    /// Whether what it says is changed in a file.
    pub(super) fn is_file(self) -> bool {
        self < Self::Applied
    }
}

/// Where a backend comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The backend.
    pub socket: SocketAddr,
    /// The member that has the address; `None`: none has.
    pub node: Option<Name>,
    /// The members that contribute it.
    pub contributors: Arc<[Name]>,
}

/// What there is to tell of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Files of several nodes define it in different ways.
    Conflict,
    /// An older service has its VIP.
    Clash,
    /// A file of this node's defines it otherwise than the cluster, which changed later.
    Overruled,
    /// No backend is up, and all take new flows.
    AllDown,
    /// Some backends that are down take new flows.
    Kept,
}

impl Topic {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Clash => "clash",
            Self::Overruled => "overruled",
            Self::AllDown => "all-down",
            Self::Kept => "kept",
        }
    }
}

/// What a source says of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// What the service is.
    pub definition: Option<Definition>,
    /// Backends that the source's node contributes; of the cluster those of all members.
    pub backends: Vec<Backend>,
    /// Backends that take no new flows.
    pub drained: BTreeSet<SocketAddr>,
    /// Backends that are down.
    pub down: BTreeMap<SocketAddr, Outage>,
    /// Backends that are checked, and whether they are up by that; the others are not known yet.
    pub checked: BTreeMap<SocketAddr, bool>,
    /// Where backends come from, in the order of their addresses, where the source knows.
    pub provenance: Arc<[Provenance]>,
    /// What there is to tell, for people.
    pub notes: Vec<(Topic, Arc<str>)>,
    /// Where it is changed, for messages: `None` where the source's label says it.
    pub place: Option<Arc<str>>,
    /// When its VIP's name came, where the source knows: of two the smaller one is older.
    pub age: u64,
}

impl Statement {
    /// A service with its backends.
    pub fn of<V: Clone + Into<VipSpec>>(service: &Service<V>) -> Self {
        let definition = Some(Definition::of(service));
        Self { definition, backends: service.backends.clone(), ..Self::default() }
    }

    /// The service that it defines.
    pub fn service(&self, name: &str) -> Option<Declared> {
        let Definition { vip, algorithm, checking } = self.definition.clone()?;
        Some(Service { name: name.to_owned(), vip, algorithm, checking, backends: self.backends.clone() })
    }

    /// Whether it names a backend.
    pub fn has(&self, backend: SocketAddr) -> bool {
        self.backends.iter().any(|own| own.socket() == backend)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.definition.is_none()
            && self.backends.is_empty()
            && self.drained.is_empty()
            && self.down.is_empty()
            && self.checked.is_empty()
            && self.notes.is_empty()
    }
}

/// All that one source says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// Where its services are changed, for messages.
    pub label: String,
    /// The node that contributes its backends.
    pub node: Name,
    /// Its part of each service.
    pub services: BTreeMap<Name, Arc<Statement>>,
    /// Backends' addresses that can't be reached, and why.
    pub down: BTreeMap<IpAddr, Down>,
}

impl Input {
    /// A source that defines these services.
    pub fn defining<'s, V: Clone + Into<VipSpec> + 's>(
        label: &str,
        services: impl IntoIterator<Item = &'s Service<V>>,
    ) -> Self {
        let stated = services
            .into_iter()
            .map(|service| (Name::from(service.name.as_str()), Arc::new(Statement::of(service))));
        Self { label: label.to_owned(), services: stated.collect(), ..Self::default() }
    }
}
