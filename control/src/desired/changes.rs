//! Changes of what was applied: making them, and what takes them back.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Dirty, Inputs, Name, SourceId, Statement};
use crate::service::{Backend, Declared};

/// The source that these change.
pub(super) const OWN: SourceId = SourceId::Applied;

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
    /// A backend is contributed to a service, in place of a former one of its address and port.
    Offer(String, Backend),
    /// It is contributed no more.
    Withdraw(String, SocketAddr),
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
            Self::Remove(name)
            | Self::Since(name, _)
            | Self::Offer(name, _)
            | Self::Withdraw(name, _)
            | Self::Drain(name, _)
            | Self::Undrain(name, _) => name,
        }
    }
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
        note(&mut statement, change, inputs.file_of(&name).is_some());
        if let Change::Withdraw(_, backend) = change
            && !inputs.has_other(OWN, &name, *backend)
        {
            statement.drained.remove(backend);
        }
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
        Change::Offer(_, backend) => {
            match statement.backends.iter_mut().find(|own| own.socket() == backend.socket()) {
                Some(own) => *own = *backend,
                None => statement.backends.push(*backend),
            }
            if statement.definition.is_none() {
                statement.backends.sort_unstable();
            }
        }
        Change::Withdraw(_, backend) => statement.backends.retain(|own| own.socket() != *backend),
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
    let mut changes = match (service(from), service(to)) {
        (former, Some(to)) if former.as_ref() != Some(&to) => vec![Change::Set(to)],
        (Some(_), Some(_)) => Vec::new(),
        (Some(_), None) => {
            let removed = Change::Remove(name.to_owned());
            std::iter::once(removed).chain(contributions(name, &[], backends(to))).collect()
        }
        (None, _) => contributions(name, backends(from), backends(to)).collect(),
    };
    changes.extend(to.filter(|to| from.is_none_or(|from| from.age != to.age)).and_then(|to| since(name, to)));
    let marks = |own: Option<&Statement>| own.map(|own| own.drained.clone()).unwrap_or_default();
    let (was, is) = (marks(from), marks(to));
    changes.extend(was.difference(&is).map(|&backend| Change::Undrain(name.to_owned(), backend)));
    // A definition that is replaced takes its marks along.
    let lost = if changes.is_empty() { &is - &was } else { is };
    changes.extend(lost.into_iter().map(|backend| Change::Drain(name.to_owned(), backend)));
    changes
}

fn backends(own: Option<&Statement>) -> &[Backend] {
    own.map(|own| own.backends.as_slice()).unwrap_or_default()
}

/// The changes that lead from some contributed backends to others.
fn contributions<'b>(name: &str, from: &'b [Backend], to: &'b [Backend]) -> impl Iterator<Item = Change> {
    let is_gone = |own: &&Backend| to.iter().all(|other| other.socket() != own.socket());
    let gone = from.iter().filter(is_gone).map(|own| Change::Withdraw(name.to_owned(), own.socket()));
    let offered = to.iter().filter(|own| !from.contains(own)).map(|own| Change::Offer(name.to_owned(), *own));
    gone.chain(offered)
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

/// The changes that leave nothing of what is applied.
pub fn none_left(inputs: &Inputs) -> Vec<Change> {
    inputs.services(OWN).flat_map(|(name, own)| way(name, Some(own), None)).collect()
}

/// The changes that take away what is about nothing any more: marks whose backends are no more, and contributions to
/// services that nobody defines.
pub fn stale(inputs: &Inputs) -> Vec<Change> {
    let defines = |source, name: &str| inputs.get(source, name).is_some_and(|own| own.definition.is_some());
    let is_defined = |name: &str| inputs.sources().any(|source| defines(source, name));
    let mut changes = Vec::new();
    for (name, own) in inputs.services(OWN) {
        let is_over = !own.backends.is_empty() && !is_defined(name);
        if is_over {
            changes.extend(contributions(name, &own.backends, &[]));
        }
        let is_stale =
            |mark: &&SocketAddr| !((own.has(**mark) && !is_over) || inputs.has_other(OWN, name, **mark));
        changes
            .extend(own.drained.iter().filter(is_stale).map(|&mark| Change::Undrain(name.to_string(), mark)));
    }
    changes
}
