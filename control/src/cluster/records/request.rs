//! What requests on any node ask for, as records of that node.

use std::{collections::BTreeSet, net::SocketAddr};

use thiserror::Error;

use super::{
    provenance::{APPLIED, contribute, offered},
    record::Record,
    service::Parts,
    value::{BackendRecord, Claim},
    view::View,
};
use crate::{
    cluster::log::{Logs, Name},
    model::quoted,
    service::{Backend, Declared, Definition},
};

/// Why a request makes no records.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// No service has the name.
    #[error("no service {}; see 'fanlight service list'", quoted(.0))]
    NoService(String),
    /// The service has no such backend.
    #[error("service {service} has no backend {backend}; see 'fanlight service show {service}'")]
    NoBackend {
        /// The service.
        service: String,
        /// What was asked for.
        backend: SocketAddr,
    },
    /// Other nodes contribute the backend.
    #[error("this node does not contribute {backend} to service {service}; remove it on {}", .nodes.join(", "))]
    OfOthers {
        /// The service.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// Who contributes it.
        nodes: Vec<String>,
    },
    /// A file of this node's contributes the backend.
    #[error("backend {backend} of service {service} is of {file}; change it there")]
    OfFile {
        /// The service.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// The file.
        file: Name,
    },
}

/// What was applied on this node before it was in the cluster: its part of one service.
#[derive(Clone, Copy, Debug)]
pub struct Former<'s> {
    /// What the service is, where that was applied, too.
    pub definition: Option<&'s Definition>,
    /// Backends.
    pub backends: &'s [Backend],
    /// Backends that take no new flows.
    pub drained: &'s BTreeSet<SocketAddr>,
}

fn service<'v>(view: &'v View, name: &str) -> Result<&'v Parts, RequestError> {
    let parts = view.service(name).filter(|parts| parts.definition().is_some());
    parts.ok_or_else(|| RequestError::NoService(name.to_owned()))
}

/// A service is to be so, with these backends of this node in place of all that it contributes; none where it is.
pub fn apply(view: &View, logs: &Logs, own: &Name, service: &Declared) -> Vec<Record> {
    let name = Name::from(service.name.as_str());
    let definition = view.service(&name).and_then(Parts::definition);
    let what = Definition::of(service);
    let is_so = definition.is_some_and(|(_, found)| found.is_of(&what));
    let define = || Record::Define { name: name.clone(), what };
    let mut records: Vec<Record> = (!is_so).then(define).into_iter().collect();
    records.extend(contribute(view, logs, own, &name, None, &service.backends));
    with_marks(view, own, records)
}

/// A service is to be no more, with what all nodes contribute to it.
///
/// # Errors
/// There is none.
pub fn remove(view: &View, name: &str) -> Result<Record, RequestError> {
    service(view, name).map(|_parts| Record::Undefine(name.into()))
}

/// A backend is to take no new flows, or to take them again; none where it is so.
///
/// # Errors
/// There is no such service or backend.
pub fn drain(
    view: &View,
    name: &str,
    backend: SocketAddr,
    drain: bool,
) -> Result<Option<Record>, RequestError> {
    let parts = service(view, name)?;
    if !parts.offers().any(|offer| offer.socket == backend) {
        return Err(RequestError::NoBackend { service: name.to_owned(), backend });
    }
    let is_so = parts.drained().any(|own| own == backend) == drain;
    Ok((!is_so).then(|| Record::Drain(name.into(), backend, drain)))
}

/// This node is to contribute a backend; none where it does. Gives the weight, too: without one it stays as it is, and is 1
/// of a new one.
///
/// # Errors
/// There is no such service, or a file of this node's contributes the backend with another weight.
pub fn offer(
    view: &View,
    logs: &Logs,
    own: &Name,
    name: &str,
    (socket, weight): (SocketAddr, Option<u32>),
) -> Result<(Option<Record>, u32), RequestError> {
    service(view, name)?;
    let name = Name::from(name);
    let former = offered(view, logs, own, &name).remove(&socket);
    let is_so = |former: &BackendRecord| weight.is_none_or(|weight| former.weight == weight);
    match former {
        Some(former) if is_so(&former) => Ok((None, former.weight)),
        Some(BackendRecord { file: Some(file), .. }) => {
            Err(RequestError::OfFile { service: name.to_string(), backend: socket, file })
        }
        _ => {
            let weight = weight.unwrap_or(1);
            Ok((Some(Record::Offer(name, socket, BackendRecord { weight, file: None })), weight))
        }
    }
}

/// This node is to contribute a backend no more. Gives the weight that it had, too.
///
/// # Errors
/// It does not, or a file of it does.
pub fn withdraw(
    view: &View,
    logs: &Logs,
    own: &Name,
    name: &str,
    backend: SocketAddr,
) -> Result<(Vec<Record>, u32), RequestError> {
    let parts = service(view, name)?;
    let former = offered(view, logs, own, &name.into()).remove(&backend);
    let service = name.to_owned();
    match former {
        None => {
            let nodes: Vec<String> =
                parts.contributors(backend).into_iter().map(ToString::to_string).collect();
            Err(match nodes.is_empty() {
                true => RequestError::NoBackend { service, backend },
                false => RequestError::OfOthers { service, backend, nodes },
            })
        }
        Some(BackendRecord { file: Some(file), .. }) => Err(RequestError::OfFile { service, backend, file }),
        Some(BackendRecord { weight, file: None }) => {
            Ok((with_marks(view, own, vec![Record::Withdraw(name.into(), backend)]), weight))
        }
    }
}

/// Records with the ends of marks whose backends nobody contributes any more.
fn with_marks(view: &View, own: &Name, mut records: Vec<Record>) -> Vec<Record> {
    let ended = |record: &Record| {
        let Record::Withdraw(name, socket) = record else { return None };
        let parts = view.service(name)?;
        let is_marked = parts.drained().any(|marked| marked == *socket);
        let is_last = parts.contributors(*socket).into_iter().all(|node| node == own);
        (is_marked && is_last).then(|| Record::Drain(name.clone(), *socket, false))
    };
    let marks: Vec<Record> = records.iter().filter_map(ended).collect();
    records.extend(marks);
    records
}

/// The records that take over what was applied before; none where that was done already. They do not say that it was done as
/// long as only backends and marks were applied: those are the same however often they are written.
pub fn adopt(view: &View, logs: &Logs, own: &Name, name: &Name, former: Former<'_>) -> Vec<Record> {
    let Former { definition, backends, drained } = former;
    let parts = view.service(name);
    let claim = definition.map(|definition| Claim::of(definition, backends));
    let file = Name::from(APPLIED);
    let said = |parts: &Parts| parts.claims().remove(&(own, &file)).cloned();
    if claim.is_some() && parts.and_then(said) == claim {
        return Vec::new();
    }
    let mut records = Vec::new();
    if let Some(definition) = definition {
        let found = parts.and_then(Parts::definition);
        if found.is_none_or(|(_, found)| !found.is_of(definition)) {
            records.push(Record::Define { name: name.clone(), what: definition.clone() });
        }
    }
    let known = offered(view, logs, own, name);
    let new = backends.iter().filter(|backend| !known.contains_key(&backend.socket()));
    records.extend(new.map(|backend| {
        let record = BackendRecord { weight: backend.weight, file: None };
        Record::Offer(name.clone(), backend.socket(), record)
    }));
    let marked: BTreeSet<SocketAddr> = parts.into_iter().flat_map(Parts::drained).collect();
    records.extend(drained.difference(&marked).map(|mark| Record::Drain(name.clone(), *mark, true)));
    records.extend(claim.map(|claim| Record::Claim(name.clone(), file, Some(claim))));
    records
}
