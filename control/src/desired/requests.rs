//! What is asked for, as changes of what was applied; or why it can't be.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use dataplane_common::abi::{MAX_SERVICE_BACKENDS, MAX_SERVICES};

use super::{Change, Desired, Inputs, changes::OWN, clash::NO_RANGE};
use crate::{
    model::quoted,
    service::{Backend, Declared, Vip, VipSpec},
};

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
    /// An earlier source contributes it.
    #[error("backend {backend} of service {service} is of {label}; change it there")]
    BackendOfSource {
        /// The service.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// Where the source's services are changed.
        label: String,
    },
    /// What was applied of that name is hidden, and with it what it contributes.
    #[error(
        "service {name} is of {label}, which hides the applied one; remove that by 'fanlight service remove {name}'"
    )]
    Hidden {
        /// The service.
        name: String,
        /// Where the service is changed.
        label: String,
    },
    /// The backend's address is a VIP's.
    #[error("{address} is the VIP of service {other}; name its backends")]
    BackendIsVip {
        /// The address.
        address: IpAddr,
        /// The service that has it.
        other: String,
    },
    /// The service is full.
    #[error("service {0} has {MAX_SERVICE_BACKENDS} backends, and can have no more; remove some")]
    TooManyBackends(String),
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
    /// The range has no address left for its VIP's name.
    #[error("{0}: no address of vip-range is free; give it a larger one in [datapath]")]
    RangeFull(VipSpec),
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
    let own = inputs.own();
    let applied =
        |service: &Declared| inputs.get(own, &service.name).and_then(|own| own.service(&service.name));
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
    if let Some(source) = inputs.file_of(&service.name) {
        let label = inputs.place(source, &service.name).to_owned();
        return Some(ChangeError::OfSource { name: service.name.clone(), label });
    }
    if service.vip.at().is_none() && inputs.settings().vip_range.is_none() {
        return Some(ChangeError::NoRange(service.vip.clone()));
    }
    let Some(vip) = inputs.resolve(&service.vip) else {
        return inputs.index.named().is_full().then(|| ChangeError::RangeFull(service.vip.clone()));
    };
    if let (VipSpec::At(vip), Some(name)) = (&service.vip, inputs.named_at(vip.address))
        && desired.at(*vip).is_none()
        && !inputs.services_named(name).all(|service| named.contains(&**service))
    {
        return Some(ChangeError::Named { vip: *vip, name: name.to_string() });
    }
    let entry = desired.at(vip)?;
    let other = &entry.defined.name;
    let label = (entry.origin < inputs.own()).then(|| inputs.place(entry.origin, other).to_owned());
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
    Err(match inputs.file_of(name) {
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

/// The change that contributes a backend to a service, and the backend as it is then; no change where it is there already.
/// Without a weight a backend keeps the one that it has, and a new one has 1.
///
/// # Errors
/// There is no such service, or the backend can't be one of it.
pub fn offer(
    inputs: &Inputs,
    desired: &Desired,
    name: &str,
    socket: SocketAddr,
    weight: Option<u32>,
) -> Result<(Option<Change>, Backend), ChangeError> {
    let entry = desired.get(name).ok_or_else(|| ChangeError::NoService(name.to_owned()))?;
    let wanted = Backend { address: socket.ip(), port: socket.port(), weight: weight.unwrap_or(1) };
    let is_as_asked = |own: &Backend| weight.is_none_or(|weight| own.weight == weight);
    if let Some((source, own)) = inputs.contributed_before(OWN, entry, socket) {
        let label = || inputs.place(source, name).to_owned();
        let refused =
            || ChangeError::BackendOfSource { service: name.to_owned(), backend: socket, label: label() };
        return if is_as_asked(&own) { Ok((None, own)) } else { Err(refused()) };
    }
    let own = inputs.get(OWN, name);
    if entry.origin != OWN && own.is_some_and(|own| own.definition.is_some()) {
        let label = inputs.place(entry.origin, name).to_owned();
        return Err(ChangeError::Hidden { name: name.to_owned(), label });
    }
    if let Some(own) = own.and_then(|own| own.backends.iter().find(|own| own.socket() == socket)) {
        let change = (!is_as_asked(own)).then(|| Change::Offer(name.to_owned(), wanted));
        return Ok((change.clone(), if change.is_some() { wanted } else { *own }));
    }
    may_offer(inputs, desired, name, socket)?;
    Ok((Some(Change::Offer(name.to_owned(), wanted)), wanted))
}

/// Whether an address can be another backend of a service.
///
/// # Errors
/// It can't, or there is no such service.
pub fn may_offer(
    inputs: &Inputs,
    desired: &Desired,
    name: &str,
    socket: SocketAddr,
) -> Result<(), ChangeError> {
    let entry = desired.get(name).ok_or_else(|| ChangeError::NoService(name.to_owned()))?;
    if let Some(other) = inputs.with_vip_address(desired, socket.ip()).next() {
        return Err(ChangeError::BackendIsVip { address: socket.ip(), other: other.name.clone() });
    }
    if entry.defined.backends.len() >= MAX_SERVICE_BACKENDS as usize && !entry.defined.has(socket) {
        return Err(ChangeError::TooManyBackends(name.to_owned()));
    }
    Ok(())
}

/// The change that ends a contribution of a backend, and the backend.
///
/// # Errors
/// There is no such service or backend, or an earlier source contributes it.
pub fn withdraw(
    inputs: &Inputs,
    desired: &Desired,
    name: &str,
    socket: SocketAddr,
) -> Result<(Change, Backend), ChangeError> {
    if let Some(own) =
        inputs.get(OWN, name).and_then(|own| own.backends.iter().find(|own| own.socket() == socket))
    {
        return Ok((Change::Withdraw(name.to_owned(), socket), *own));
    }
    let entry = desired.get(name).ok_or_else(|| ChangeError::NoService(name.to_owned()))?;
    if let Some((source, _)) = inputs.contributed_before(OWN, entry, socket) {
        let label = inputs.place(source, name).to_owned();
        return Err(ChangeError::BackendOfSource { service: name.to_owned(), backend: socket, label });
    }
    let has = entry.defined.backends.iter().map(Backend::socket).collect();
    Err(ChangeError::NoBackend { service: name.to_owned(), backend: socket, has })
}
