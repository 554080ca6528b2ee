//! What files say of services, and what follows when they change.
//!
//! A file writes when what it says is not what this node wrote from it last ([`Claim`]): a restart never overrules a later
//! change or removal. The claim is a record, so that every node can tell which files disagree.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    key::RecordKey,
    record::Record,
    service::Parts,
    value::{self, BackendRecord, Claim},
    view::View,
};
use crate::{
    cluster::log::{Logs, Name},
    service::Service,
};

/// Files of live nodes that disagree on a service: node and file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// All that define it.
    pub files: Vec<(Name, Name)>,
}

/// The records that a file's services make, when they are not what this node wrote from it last.
pub fn state(view: &View, logs: &Logs, own: &Name, file: &Name, services: &[Service]) -> Vec<Record> {
    let mut records = Vec::new();
    for service in services {
        let name = Name::from(service.name.as_str());
        let Service { vip, algorithm, ref backends, .. } = *service;
        let claim = Claim { vip, algorithm, backends: Claim::hash(backends) };
        let parts = view.service(&name);
        if parts.and_then(|parts| parts.claims().remove(&(own, file)).cloned()).as_ref() == Some(&claim) {
            continue;
        }
        let is_so = parts.and_then(Parts::definition).is_some_and(|(_, own)| claim.is_of(own));
        if !is_so {
            records.push(Record::Define { name: name.clone(), vip, algorithm });
        }
        records.extend(offers(view, logs, own, file, service));
        records.push(Record::Claim(name, file.clone(), Some(claim)));
    }
    let stated: BTreeSet<&str> = services.iter().map(|service| service.name.as_str()).collect();
    for name in claimed(view, own, file).into_iter().filter(|name| !stated.contains(&**name)) {
        records.extend(gone(view, logs, own, file, &name));
    }
    records
}

impl Claim {
    fn is_of(&self, definition: &super::Definition) -> bool {
        (self.vip, self.algorithm) == (definition.vip, definition.algorithm)
    }
}

/// The services that this node wrote from a file.
fn claimed(view: &View, own: &Name, file: &Name) -> Vec<Name> {
    let has =
        |name: &&Name| view.service(name).is_some_and(|parts| parts.claims().contains_key(&(own, file)));
    view.names().filter(has).cloned().collect()
}

/// A service's backends as a file has them.
fn offers(view: &View, logs: &Logs, own: &Name, file: &Name, service: &Service) -> Vec<Record> {
    let name = Name::from(service.name.as_str());
    let mut records = Vec::new();
    let mut former = offered(view, logs, own, &name);
    for backend in &service.backends {
        let record = BackendRecord { weight: backend.weight, file: Some(file.clone()) };
        if former.remove(&backend.socket()).as_ref() != Some(&record) {
            records.push(Record::Offer(name.clone(), backend.socket(), record));
        }
    }
    let gone = former.into_iter().filter(|(_, record)| record.file.as_ref() == Some(file));
    records.extend(gone.map(|(socket, _)| Record::Withdraw(name.clone(), socket)));
    records
}

/// The backends that this node contributes to a service, as they are written.
fn offered(
    view: &View,
    logs: &Logs,
    own: &Name,
    name: &Name,
) -> BTreeMap<std::net::SocketAddr, BackendRecord> {
    let offers = view.service(name).into_iter().flat_map(Parts::offers).filter(|offer| offer.node == own);
    let record = |socket| {
        let key = RecordKey::Backend(name.clone(), socket).encode();
        let item = logs.at(own, &key).max_by_key(|item| item.stamp)?;
        Some((socket, value::decode(item.value.as_ref()?)?))
    };
    offers.filter_map(|offer| record(offer.socket)).collect()
}

/// A service that a file has no more: what it contributed goes, and the definition, unless that is another's.
fn gone(view: &View, logs: &Logs, own: &Name, file: &Name, name: &Name) -> Vec<Record> {
    let mut records = Vec::new();
    let Some(parts) = view.service(name) else { return records };
    let claims = parts.claims();
    let is_its = |definition: &super::Definition| {
        claims.get(&(own, file)).is_some_and(|claim| claim.is_of(definition))
    };
    let is_alone = claims.len() == 1;
    if is_alone && parts.definition().is_some_and(|(_, definition)| is_its(definition)) {
        records.push(Record::Undefine(name.clone()));
    } else {
        let own = offered(view, logs, own, name).into_iter();
        let own = own.filter(|(_, record)| record.file.as_ref() == Some(file));
        records.extend(own.map(|(socket, _)| Record::Withdraw(name.clone(), socket)));
    }
    records.push(Record::Claim(name.clone(), file.clone(), None));
    records
}

/// Files of live nodes that define a service in different ways.
pub fn conflict(parts: &Parts, is_live: impl Fn(&str) -> bool) -> Option<Conflict> {
    let mut live = parts.claims();
    live.retain(|(node, _), _| is_live(node));
    let mut said = live.values().map(|claim| (claim.vip, claim.algorithm));
    let first = said.next()?;
    let files = || live.keys().map(|(node, file)| ((*node).clone(), (*file).clone())).collect();
    said.any(|other| other != first).then(|| Conflict { files: files() })
}

/// Whether a node's file defines a service that is another one now, or none.
pub fn is_overruled(parts: &Parts, own: &Name) -> bool {
    let holds = |claim: &Claim| parts.definition().is_some_and(|(_, definition)| claim.is_of(definition));
    parts.claims().iter().any(|((node, _), claim)| *node == own && !holds(claim))
}
