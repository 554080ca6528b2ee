//! Which services there are: those of the file and those that were applied, with drain marks.
//!
//! The file's are changed only there. An applied service that clashes with the file's is kept, but not served, until
//! one of them goes.

mod clash;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use dataplane_common::abi::MAX_SERVICES;
use serde::{Deserialize, Serialize};

use super::{Service, Vip};
use crate::model::quoted;

/// Where a service is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the configuration file.
    File,
    /// It was applied.
    Applied,
}

/// A service that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it is defined.
    pub defined: Service,
    /// Where.
    pub origin: Origin,
    /// Those of its backends that take no new flows until they are undrained.
    pub drained: BTreeSet<SocketAddr>,
    /// Those of its backends that are not there.
    pub absent: BTreeSet<SocketAddr>,
    /// As the kernel is to hold it: drained and absent backends weigh nothing.
    pub wanted: Service,
}

impl Entry {
    pub(crate) fn new(defined: Service, origin: Origin, marks: Option<&BTreeSet<SocketAddr>>) -> Self {
        let is_marked = |socket: &SocketAddr| marks.is_some_and(|marks| marks.contains(socket));
        let sockets = defined.backends.iter().map(super::Backend::socket);
        let drained: BTreeSet<SocketAddr> = sockets.filter(is_marked).collect();
        let mut wanted = defined.clone();
        for backend in &mut wanted.backends {
            if drained.contains(&backend.socket()) {
                backend.weight = 0;
            }
        }
        Self { defined, origin, drained, absent: BTreeSet::new(), wanted }
    }

    /// With backends of these addresses out of rotation.
    fn without(mut self, absent: &BTreeSet<Ipv4Addr>) -> Self {
        let is_absent = |ip: IpAddr| matches!(ip, IpAddr::V4(address) if absent.contains(&address));
        for backend in self.wanted.backends.iter_mut().filter(|backend| is_absent(backend.address)) {
            backend.weight = 0;
            self.absent.insert(backend.socket());
        }
        self
    }
}

/// A change that is kept over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Change {
    /// A service is applied, in place of a former one of its name.
    Set(Service),
    /// An applied service goes.
    Remove(String),
    /// A backend takes no new flows.
    Drain(String, SocketAddr),
    /// It does again.
    Undrain(String, SocketAddr),
}

impl Change {
    /// The service that it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Set(service) => &service.name,
            Self::Remove(name) | Self::Drain(name, _) | Self::Undrain(name, _) => name,
        }
    }
}

/// Why a change can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// No service has the name.
    #[error("no service {}; see 'fanlight service list'", quoted(.0))]
    NoService(String),
    /// The service has no such backend.
    #[error("service {service} has no backend {backend}; it has {}", list(.has))]
    NoBackend {
        /// The service.
        service: String,
        /// What was asked for.
        backend: SocketAddr,
        /// What there is.
        has: Vec<SocketAddr>,
    },
    /// It is defined in the file.
    #[error("service {name} is of {}; change it there", file.display())]
    OfFile {
        /// The service.
        name: String,
        /// The file.
        file: PathBuf,
    },
    /// Another service has the VIP.
    #[error("{vip} is the VIP of service {other}{}; give each its own", of(.file.as_deref()))]
    VipTaken {
        /// The VIP.
        vip: Vip,
        /// Who has it.
        other: String,
        /// The file that it is defined in.
        file: Option<PathBuf>,
    },
    /// The table is full.
    #[error("a node has at most {MAX_SERVICES} services; remove some")]
    TooMany,
}

fn of(file: Option<&Path>) -> String {
    file.map_or_else(String::new, |file| format!(" of {}", file.display()))
}

fn list(backends: &[SocketAddr]) -> String {
    let backends: Vec<String> = backends.iter().map(ToString::to_string).collect();
    if backends.is_empty() { "none".to_owned() } else { backends.join(", ") }
}

/// All services.
#[derive(Clone, Debug, Default)]
pub struct Book {
    path: PathBuf,
    file: BTreeMap<String, Service>,
    /// Addresses of the file's VIPs and backends.
    file_vips: HashSet<IpAddr>,
    file_backends: HashSet<IpAddr>,
    applied: BTreeMap<String, Service>,
    marks: BTreeMap<String, BTreeSet<SocketAddr>>,
    entries: BTreeMap<String, Arc<Entry>>,
    names: HashMap<Vip, String>,
    absent: BTreeSet<Ipv4Addr>,
}

impl Book {
    /// Uses these services of the file from now on.
    pub fn set_file(&mut self, path: &Path, services: &[Service]) {
        self.path = path.to_owned();
        self.file = services.iter().map(|service| (service.name.clone(), service.clone())).collect();
        self.file_vips = services.iter().map(|service| service.vip.address).collect();
        let backends = services.iter().flat_map(|service| &service.backends);
        self.file_backends = backends.map(|backend| backend.address).collect();
        self.entries.clear();
        self.names.clear();
        let names: Vec<String> = self.file.keys().chain(self.applied.keys()).cloned().collect();
        names.iter().for_each(|name| self.enter(name));
    }

    /// Takes backends of these addresses, and no others, out of rotation for being absent; gives the services that this
    /// changes.
    pub fn set_absent(&mut self, absent: &BTreeSet<Ipv4Addr>) -> BTreeSet<String> {
        let changed: HashSet<IpAddr> =
            self.absent.symmetric_difference(absent).map(|&address| address.into()).collect();
        self.absent.clone_from(absent);
        let has_changed =
            |entry: &Entry| entry.defined.backends.iter().any(|backend| changed.contains(&backend.address));
        let names = self.entries.iter().filter(|(_, entry)| has_changed(entry)).map(|(name, _)| name.clone());
        let names: BTreeSet<String> = names.collect();
        for name in &names {
            if let Some(former) = self.entries.remove(name) {
                self.names.remove(&former.wanted.vip);
            }
            self.enter(name);
        }
        names
    }

    /// The addresses that are absent.
    pub fn absent(&self) -> &BTreeSet<Ipv4Addr> {
        &self.absent
    }

    /// The services that are wanted, by name.
    pub fn entries(&self) -> &BTreeMap<String, Arc<Entry>> {
        &self.entries
    }

    /// The service of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.entries.get(name)
    }

    /// The service that has a VIP.
    pub fn at(&self, vip: Vip) -> Option<&Arc<Entry>> {
        self.entries.get(self.names.get(&vip)?)
    }

    /// Which of these services, by place, differ from what is applied; or what stands in the way, by place.
    pub fn check(&self, services: &[&Service]) -> Result<Vec<usize>, Vec<(usize, BookError)>> {
        let named: HashSet<&str> = services.iter().map(|service| service.name.as_str()).collect();
        let mut problems = Vec::new();
        for (place, service) in services.iter().enumerate() {
            problems.extend(self.obstacle(service, &named).map(|error| (place, error)));
        }
        let new = services.iter().filter(|service| !self.applied.contains_key(&service.name));
        if self.file.len() + self.applied.len() + new.count() > MAX_SERVICES as usize {
            problems.push((0, BookError::TooMany));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let differs = |service: &Service| {
            self.applied.get(&service.name).is_none_or(|applied| !applied.is_same_as(service))
        };
        Ok((0..services.len()).filter(|&place| differs(services[place])).collect())
    }

    fn obstacle(&self, service: &Service, named: &HashSet<&str>) -> Option<BookError> {
        if self.file.contains_key(&service.name) {
            return Some(BookError::OfFile { name: service.name.clone(), file: self.path.clone() });
        }
        let other = self.names.get(&service.vip)?;
        let file = self.file.contains_key(other).then(|| self.path.clone());
        // Its own, or one that is replaced as well and was compared with this one.
        if file.is_none() && named.contains(other.as_str()) {
            return None;
        }
        Some(BookError::VipTaken { vip: service.vip, other: other.clone(), file })
    }

    /// The change that removes an applied service.
    pub fn remove(&self, name: &str) -> Result<Change, BookError> {
        if self.applied.contains_key(name) {
            Ok(Change::Remove(name.to_owned()))
        } else if self.file.contains_key(name) {
            Err(BookError::OfFile { name: name.to_owned(), file: self.path.clone() })
        } else {
            Err(BookError::NoService(name.to_owned()))
        }
    }

    /// The change that drains a backend, or undrains it; `None` when it is so already.
    pub fn drain(&self, name: &str, backend: SocketAddr, drain: bool) -> Result<Option<Change>, BookError> {
        let entry = self.entries.get(name).ok_or_else(|| BookError::NoService(name.to_owned()))?;
        if !entry.defined.has(backend) {
            let has = entry.defined.backends.iter().map(super::Backend::socket).collect();
            return Err(BookError::NoBackend { service: name.to_owned(), backend, has });
        }
        if entry.drained.contains(&backend) == drain {
            return Ok(None);
        }
        let change = if drain { Change::Drain } else { Change::Undrain };
        Ok(Some(change(name.to_owned(), backend)))
    }

    /// Makes changes; gives what would take them back.
    pub fn make(&mut self, changes: &[Change]) -> Vec<Change> {
        let mut inverse: Vec<Change> = changes.iter().rev().flat_map(|change| self.inverse(change)).collect();
        for change in changes {
            self.note(change);
        }
        let names: BTreeSet<&str> = changes.iter().map(Change::name).collect();
        for name in &names {
            if let Some(former) = self.entries.remove(*name) {
                self.names.remove(&former.wanted.vip);
            }
        }
        names.iter().for_each(|name| self.enter(name));
        inverse.dedup();
        inverse
    }

    /// The changes that lead from nothing to what is applied.
    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        let services = self.applied.values().cloned().map(Change::Set);
        let marks = self
            .marks
            .iter()
            .flat_map(|(name, marks)| marks.iter().map(|&backend| Change::Drain(name.clone(), backend)));
        services.chain(marks)
    }

    /// The changes that take marks away whose backends are no more.
    pub fn stale_marks(&self) -> Vec<Change> {
        let is_stale = |name: &String, backend| {
            let defined = self.file.get(name).into_iter().chain(self.applied.get(name));
            !defined.into_iter().any(|service| service.has(backend))
        };
        let marks =
            self.marks.iter().flat_map(|(name, marks)| marks.iter().map(move |&backend| (name, backend)));
        let stale = marks.filter(|&(name, backend)| is_stale(name, backend));
        stale.map(|(name, backend)| Change::Undrain(name.clone(), backend)).collect()
    }

    fn inverse(&self, change: &Change) -> Vec<Change> {
        let name = change.name();
        let mut inverse = match (change, self.applied.get(name)) {
            (Change::Set(_) | Change::Remove(_), Some(former)) => vec![Change::Set(former.clone())],
            (Change::Set(_), None) => vec![Change::Remove(name.to_owned())],
            _ => Vec::new(),
        };
        let is_marked = |backend| self.marks.get(name).is_some_and(|marks| marks.contains(backend));
        match change {
            Change::Drain(name, backend) if !is_marked(backend) => {
                inverse.push(Change::Undrain(name.clone(), *backend));
            }
            Change::Drain(..) => {}
            _ => {
                let marks = self.marks.get(name).into_iter().flatten();
                inverse.extend(marks.map(|&backend| Change::Drain(name.to_owned(), backend)));
            }
        }
        inverse
    }

    /// What a change says, without its consequences.
    fn note(&mut self, change: &Change) {
        match change {
            Change::Set(service) => {
                self.keep_marks(&service.name, |backend| service.has(backend));
                self.applied.insert(service.name.clone(), service.clone());
            }
            Change::Remove(name) => {
                self.applied.remove(name);
                if !self.file.contains_key(name) {
                    self.marks.remove(name);
                }
            }
            Change::Drain(name, backend) => {
                self.marks.entry(name.clone()).or_default().insert(*backend);
            }
            Change::Undrain(name, backend) => self.keep_marks(name, |marked| marked != *backend),
        }
    }

    fn keep_marks(&mut self, name: &str, keep: impl Fn(SocketAddr) -> bool) {
        if let Some(marks) = self.marks.get_mut(name) {
            marks.retain(|&backend| keep(backend));
            if marks.is_empty() {
                self.marks.remove(name);
            }
        }
    }

    /// Enters the service of a name that has no entry, unless it contradicts the file's.
    fn enter(&mut self, name: &str) {
        let (defined, origin) = match (self.file.get(name), self.applied.get(name)) {
            (Some(service), _) => (service, Origin::File),
            (None, Some(service)) => (service, Origin::Applied),
            (None, None) => return,
        };
        let is_mistaken = origin == Origin::Applied && self.mistaken(defined).is_some();
        if is_mistaken || self.names.contains_key(&defined.vip) {
            return;
        }
        let entry = Entry::new(defined.clone(), origin, self.marks.get(name)).without(&self.absent);
        self.names.insert(entry.wanted.vip, name.to_owned());
        self.entries.insert(name.to_owned(), Arc::new(entry));
    }
}

#[cfg(test)]
mod tests;
