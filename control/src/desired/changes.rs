//! Changes of what was applied: whether they may be made, making them, and what takes them back.

use std::{
    collections::{BTreeSet, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use dataplane_common::abi::MAX_SERVICES;
use serde::{Deserialize, Serialize};

use super::{Desired, Dirty, Inputs, Name, SourceId, Statement, clash::NO_RANGE};
use crate::{
    model::quoted,
    service::{Backend, Declared, Vip, VipSpec},
};

/// The source that these change.
const OWN: SourceId = SourceId::Applied;

/// A change that is kept over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Change {
    /// A service is applied, in place of a former one of its name.
    Set(Declared),
    /// An applied service's VIP has its name since then: of two the smaller number is older.
    Since(String, u64),
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
            Self::Remove(name) | Self::Since(name, _) | Self::Drain(name, _) | Self::Undrain(name, _) => name,
        }
    }
}

/// Why a change can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
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
    /// An earlier source defines it.
    #[error("service {name} is of {label}; change it there")]
    OfSource {
        /// The service.
        name: String,
        /// Where the source's services are changed.
        label: String,
    },
    /// Another service has the VIP.
    #[error("{vip} is the VIP of service {other}{}; give each its own", of(label.as_deref()))]
    VipTaken {
        /// The VIP.
        vip: Vip,
        /// The service that has it.
        other: String,
        /// Where that is changed, when it was not applied.
        label: Option<String>,
    },
    /// Its VIP has a name, and names have no addresses here.
    #[error("{0}: {NO_RANGE}")]
    NoRange(VipSpec),
    /// The VIP's address is that of a name.
    #[error("{} is the address of VIP name {}; give the service another VIP", .vip.address, quoted(.name))]
    Named {
        /// The VIP.
        vip: Vip,
        /// The name that has its address.
        name: String,
    },
    /// The table is full.
    #[error("a node has at most {MAX_SERVICES} services; remove some")]
    TooMany,
}

fn of(label: Option<&str>) -> String {
    label.map_or_else(String::new, |label| format!(" of {label}"))
}

fn list(backends: &[SocketAddr]) -> String {
    let backends: Vec<String> = backends.iter().map(ToString::to_string).collect();
    if backends.is_empty() { "none".to_owned() } else { backends.join(", ") }
}

/// Which of these services, by place, differ from what is applied.
///
/// # Errors
/// What stands in the way of applying them, by place.
pub fn check(
    inputs: &Inputs,
    desired: &Desired,
    services: &[&Declared],
) -> Result<Vec<usize>, Vec<(usize, ChangeError)>> {
    let named: HashSet<&str> = services.iter().map(|service| service.name.as_str()).collect();
    let mut problems = Vec::new();
    for (place, service) in services.iter().enumerate() {
        problems.extend(obstacle(inputs, desired, service, &named).map(|error| (place, error)));
    }
    let applied =
        |service: &Declared| inputs.get(OWN, &service.name).and_then(|own| own.service(&service.name));
    let new = services.iter().filter(|service| applied(service).is_none()).count();
    if new > 0 && inputs.definitions() + new > MAX_SERVICES as usize {
        problems.push((0, ChangeError::TooMany));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let differs = |service: &Declared| applied(service).is_none_or(|applied| !applied.is_same_as(service));
    Ok((0..services.len()).filter(|&place| differs(services[place])).collect())
}

fn obstacle(
    inputs: &Inputs,
    desired: &Desired,
    service: &Declared,
    named: &HashSet<&str>,
) -> Option<ChangeError> {
    if let Some(source) = inputs.defined_before(OWN, &service.name) {
        let label = inputs.place(source, &service.name).to_owned();
        return Some(ChangeError::OfSource { name: service.name.clone(), label });
    }
    if service.vip.at().is_none() && inputs.settings().vip_range.is_none() {
        return Some(ChangeError::NoRange(service.vip.clone()));
    }
    let vip = inputs.resolve(&service.vip)?;
    if let (VipSpec::At(vip), Some(name)) = (&service.vip, inputs.named_at(vip.address))
        && desired.at(*vip).is_none()
        && !inputs.services_named(name).all(|service| named.contains(&**service))
    {
        return Some(ChangeError::Named { vip: *vip, name: name.to_string() });
    }
    let entry = desired.at(vip)?;
    let other = &entry.defined.name;
    let label = (entry.origin < OWN).then(|| inputs.place(entry.origin, other).to_owned());
    // Its own, or one that is replaced as well and was compared with this one.
    if label.is_none() && named.contains(other.as_str()) {
        return None;
    }
    Some(ChangeError::VipTaken { vip, other: other.clone(), label })
}

/// The change that removes an applied service.
///
/// # Errors
/// It was not applied.
pub fn remove(inputs: &Inputs, name: &str) -> Result<Change, ChangeError> {
    if inputs.get(OWN, name).is_some_and(|own| own.definition.is_some()) {
        return Ok(Change::Remove(name.to_owned()));
    }
    Err(match inputs.defined_before(OWN, name) {
        Some(source) => {
            ChangeError::OfSource { name: name.to_owned(), label: inputs.place(source, name).to_owned() }
        }
        None => ChangeError::NoService(name.to_owned()),
    })
}

/// The change that drains a backend, or undrains it; `None` when it is so already.
///
/// # Errors
/// There is no such service or backend.
pub fn drain(
    desired: &Desired,
    name: &str,
    backend: SocketAddr,
    drain: bool,
) -> Result<Option<Change>, ChangeError> {
    let entry = desired.get(name).ok_or_else(|| ChangeError::NoService(name.to_owned()))?;
    if !entry.defined.has(backend) {
        let has = entry.defined.backends.iter().map(Backend::socket).collect();
        return Err(ChangeError::NoBackend { service: name.to_owned(), backend, has });
    }
    if entry.drained.contains(&backend) == drain {
        return Ok(None);
    }
    let change = if drain { Change::Drain } else { Change::Undrain };
    Ok(Some(change(name.to_owned(), backend)))
}

/// Makes changes; gives those that take them back, and what they concern.
pub fn make(inputs: &mut Inputs, changes: &[Change]) -> (Vec<Change>, Dirty) {
    let names: BTreeSet<Name> = changes.iter().map(|change| Name::from(change.name())).collect();
    let former: Vec<Option<Arc<Statement>>> =
        names.iter().map(|name| inputs.get(OWN, name).cloned()).collect();
    let mut concerned = names.clone();
    for change in changes {
        let name = Name::from(change.name());
        let mut statement = inputs.get(OWN, &name).map_or_else(Statement::default, |own| (**own).clone());
        note(&mut statement, change, inputs.defined_before(OWN, &name).is_some());
        match change {
            Change::Set(service) if service.vip.name().is_some() && statement.age == 0 => {
                statement.age = inputs.next_age();
            }
            Change::Since(_, age) => inputs.note_age(*age),
            _ => {}
        }
        concerned.extend(inputs.state(OWN, &name, Some(Arc::new(statement))));
    }
    let pairs = names.iter().zip(&former);
    let inverse = pairs
        .flat_map(|(name, former)| way(name, inputs.get(OWN, name).map(AsRef::as_ref), former.as_deref()));
    let inverse = inverse.collect();
    (inverse, Dirty::Names(concerned))
}

/// What a change says. Marks go with their backend; where another source defines the service they may be for its.
fn note(statement: &mut Statement, change: &Change, is_defined_elsewhere: bool) {
    match change {
        Change::Set(service) => {
            let mut drained = std::mem::take(&mut statement.drained);
            drained.retain(|&backend| service.has(backend));
            // The same name, or another, has its VIP for as long as any had.
            let age = if service.vip.name().is_some() { statement.age } else { 0 };
            *statement = Statement { drained, age, ..Statement::of(service) };
        }
        Change::Since(_, age) => {
            let has_name = statement.definition.as_ref().is_some_and(|own| own.vip.name().is_some());
            statement.age = if has_name { *age } else { 0 };
        }
        Change::Remove(_) => {
            let drained = std::mem::take(&mut statement.drained);
            let drained = if is_defined_elsewhere { drained } else { BTreeSet::new() };
            *statement = Statement { drained, ..Statement::default() };
        }
        Change::Drain(_, backend) => {
            statement.drained.insert(*backend);
        }
        Change::Undrain(_, backend) => {
            statement.drained.remove(backend);
        }
    }
}

/// The changes that lead from one statement to another.
fn way(name: &str, from: Option<&Statement>, to: Option<&Statement>) -> Vec<Change> {
    let service = |own: Option<&Statement>| own.and_then(|own| own.service(name));
    let mut changes = Vec::new();
    match (service(from), service(to)) {
        (former, Some(to)) if former.as_ref() != Some(&to) => changes.push(Change::Set(to)),
        (Some(_), None) => changes.push(Change::Remove(name.to_owned())),
        _ => {}
    }
    changes.extend(to.filter(|to| from.is_none_or(|from| from.age != to.age)).and_then(|to| since(name, to)));
    let marks = |own: Option<&Statement>| own.map(|own| own.drained.clone()).unwrap_or_default();
    let (was, is) = (marks(from), marks(to));
    changes.extend(was.difference(&is).map(|&backend| Change::Undrain(name.to_owned(), backend)));
    // A definition that is replaced takes its marks along.
    let lost = if changes.is_empty() { &is - &was } else { is };
    changes.extend(lost.into_iter().map(|backend| Change::Drain(name.to_owned(), backend)));
    changes
}

/// Since when a service's VIP has its name.
fn since(name: &str, own: &Statement) -> Option<Change> {
    (own.age > 0).then(|| Change::Since(name.to_owned(), own.age))
}

/// The changes that lead from nothing to what is applied.
pub fn all_changes<'s>(
    stated: impl IntoIterator<Item = (&'s Name, &'s Arc<Statement>)> + Clone,
) -> Vec<Change> {
    let services = stated
        .clone()
        .into_iter()
        .flat_map(|(name, own)| own.service(name).map(Change::Set).into_iter().chain(since(name, own)));
    let marks = stated
        .into_iter()
        .flat_map(|(name, own)| own.drained.iter().map(|&backend| Change::Drain(name.to_string(), backend)));
    services.chain(marks).collect()
}

/// The changes that take marks away whose backends are no more.
pub fn stale_marks(inputs: &Inputs) -> Vec<Change> {
    let is_stale = |name: &str, backend| {
        !inputs.sources().filter_map(|source| inputs.get(source, name)).any(|own| own.has(backend))
    };
    let marks =
        inputs.services(OWN).flat_map(|(name, own)| own.drained.iter().map(move |&mark| (name, mark)));
    let stale = marks.filter(|&(name, backend)| is_stale(name, backend));
    stale.map(|(name, backend)| Change::Undrain(name.to_string(), backend)).collect()
}
