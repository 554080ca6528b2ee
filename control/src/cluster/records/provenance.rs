//! What files say of services, and what follows when they change.
//!
//! A file writes when what it says is not what this node wrote from it last ([`Claim`]): a restart never overrules a later
//! change or removal. The claim is a record, so that every node can tell which files disagree.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{
    key::RecordKey,
    record::Record,
    service::Parts,
    value::{self, BackendRecord, Claim},
    view::View,
};
use crate::{
    cluster::log::{Logs, Name},
    service::{Backend, Definition},
};

/// In a claim's place of a file: what was applied by request before this node was in the cluster. No file has this name.
pub const APPLIED: &str = "applied";

/// What a file of this node's says of a service.
#[derive(Clone, Copy, Debug)]
pub struct Said<'s> {
    /// The file.
    pub file: &'s Name,
    /// What the service is.
    pub definition: &'s Definition,
    /// The backends that this node contributes by it.
    pub backends: &'s [Backend],
}

/// Files of live nodes that disagree on a service: node and file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// All that define it.
    pub files: Vec<(Name, Name)>,
}

/// The records that follow from what this node's files say of one service now; none where that was written already.
pub fn state(view: &View, logs: &Logs, own: &Name, name: &Name, said: Option<Said<'_>>) -> Vec<Record> {
    let mut records = Vec::new();
    let parts = view.service(name);
    let is_other = |file: &Name| said.is_none_or(|said| said.file != file);
    for (file, claim) in parts.map(|parts| claims_of(parts, own)).unwrap_or_default() {
        if is_other(file) {
            let is_alone = said.is_none();
            records.extend(gone(view, logs, own, (file, claim), name, is_alone));
        }
    }
    let Some(said) = said else { return records };
    let Said { file, definition, backends } = said;
    let claim = Claim::of(definition, backends);
    if parts.and_then(|parts| parts.claims().remove(&(own, file)).cloned()).as_ref() == Some(&claim) {
        return records;
    }
    let is_so = parts.and_then(Parts::definition).is_some_and(|(_, own)| own.is_of(definition));
    if !is_so {
        records.push(Record::Define { name: name.clone(), what: definition.clone() });
    }
    records.extend(contribute(view, logs, own, name, Some(file), backends));
    records.push(Record::Claim(name.clone(), file.clone(), Some(claim)));
    records
}

impl Claim {
    fn is_of(&self, definition: &value::Definition) -> bool {
        let value::Definition { vip, algorithm, checking, .. } = definition;
        let definition = Definition { vip: vip.clone(), algorithm: *algorithm, checking: checking.clone() };
        *self == Self { backends: self.backends, ..Self::of(&definition, &[]) }
    }
}

/// A node's claims of its files.
fn claims_of<'v>(parts: &'v Parts, own: &Name) -> BTreeMap<&'v Name, &'v Claim> {
    let claims = parts.claims().into_iter();
    let own = claims.filter(|((node, file), _)| *node == own && ***file != *APPLIED);
    own.map(|((_, file), claim)| (file, claim)).collect()
}

/// The services that this node wrote from a file.
pub fn claimed(view: &View, own: &Name) -> Vec<Name> {
    let has = |name: &&Name| view.service(name).is_some_and(|parts| !claims_of(parts, own).is_empty());
    view.names().filter(has).cloned().collect()
}

/// A service's backends of this node as a file has them; without a file as a request has them, in place of all that this
/// node contributes.
pub(super) fn contribute(
    view: &View,
    logs: &Logs,
    own: &Name,
    name: &Name,
    file: Option<&Name>,
    backends: &[Backend],
) -> Vec<Record> {
    let mut records = Vec::new();
    let mut former = offered(view, logs, own, name);
    for backend in backends {
        let record = BackendRecord { weight: backend.weight, file: file.cloned() };
        if former.remove(&backend.socket()).as_ref() != Some(&record) {
            records.push(Record::Offer(name.clone(), backend.socket(), record));
        }
    }
    let gone = former.into_iter().filter(|(_, record)| file.is_none() || record.file.as_ref() == file);
    records.extend(gone.map(|(socket, _)| Record::Withdraw(name.clone(), socket)));
    records
}

/// The backends that this node contributes to a service, as they are written.
pub fn offered(view: &View, logs: &Logs, own: &Name, name: &Name) -> BTreeMap<SocketAddr, BackendRecord> {
    let offers = view.service(name).into_iter().flat_map(Parts::offers).filter(|offer| offer.node == own);
    let record = |socket| {
        let key = RecordKey::Backend(name.clone(), socket).encode();
        let item = logs.at(own, &key).max_by_key(|item| item.stamp)?;
        Some((socket, value::decode(item.value.as_ref()?)?))
    };
    offers.filter_map(|offer| record(offer.socket)).collect()
}

/// A file that has a service no more: what it contributed goes, and the definition, unless that is another's.
fn gone(
    view: &View,
    logs: &Logs,
    own: &Name,
    (file, claim): (&Name, &Claim),
    name: &Name,
    is_last: bool,
) -> Vec<Record> {
    let mut records = Vec::new();
    let Some(parts) = view.service(name) else { return records };
    let of_others = parts.claims().into_keys().any(|(node, other)| node != own && **other != *APPLIED);
    let is_its = parts.definition().is_some_and(|(_, definition)| claim.is_of(definition));
    if is_last && !of_others && is_its {
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
    live.retain(|(node, file), _| ***file != *APPLIED && is_live(node));
    let mut said = live.values().map(|claim| (&claim.vip, claim.algorithm, claim.checking));
    let first = said.next()?;
    let files = || live.keys().map(|(node, file)| ((*node).clone(), (*file).clone())).collect();
    said.any(|other| other != first).then(|| Conflict { files: files() })
}

/// The file of a node's that defines a service which is another one now, or none.
pub fn overruled<'v>(parts: &'v Parts, own: &Name) -> Option<&'v Name> {
    let holds = |claim: &Claim| parts.definition().is_some_and(|(_, definition)| claim.is_of(definition));
    claims_of(parts, own).into_iter().find(|(_, claim)| !holds(claim)).map(|(file, _)| file)
}
