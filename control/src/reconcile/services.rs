//! Services: what is wanted against what the kernel holds.

use std::net::SocketAddr;

use crate::{
    observed::{Held, HeldRow, HeldService},
    service::{Backend, Service, Vip},
};

/// A change of what the kernel holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceOp {
    /// A service goes, and with it its flows.
    Remove(Vip),
    /// The flows of a row are over.
    Retire {
        /// Its service; `None` when that is no more.
        vip: Option<Vip>,
        /// The row.
        row: u32,
    },
    /// A service's flows are chosen for otherwise.
    Change(Service),
    /// A new service.
    Add(Service),
}

impl ServiceOp {
    /// The VIP that it is about.
    pub fn vip(&self) -> Option<Vip> {
        match self {
            Self::Remove(vip) => Some(*vip),
            Self::Retire { vip, .. } => *vip,
            Self::Change(service) | Self::Add(service) => Some(service.vip),
        }
    }
}

/// The changes that make the kernel hold exactly what is wanted. What goes makes room, so it goes first.
pub fn plan<'s>(wanted: impl IntoIterator<Item = &'s Service>, held: &Held) -> Vec<ServiceOp> {
    let mut wanted: Vec<&Service> = wanted.into_iter().collect();
    wanted.sort_by_key(|service| service.vip);
    let mut rest = held.services.iter().peekable();
    let (mut ops, mut changes, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for service in wanted {
        while let Some((&vip, _)) = rest.next_if(|(vip, _)| **vip < service.vip) {
            ops.push(ServiceOp::Remove(vip));
        }
        match rest.next_if(|(vip, _)| **vip == service.vip) {
            Some((_, held)) => change(service, held, &mut changes),
            None => added.push(ServiceOp::Add(service.clone())),
        }
    }
    ops.extend(rest.map(|(&vip, _)| ServiceOp::Remove(vip)));
    ops.extend(alive(&held.orphans).map(|row| ServiceOp::Retire { vip: None, row: row.row }));
    ops.extend(changes.into_iter().chain(added));
    ops
}

/// The changes that take these VIPs away and make the kernel hold these services, whatever else it holds.
pub fn plan_some<'s>(
    gone: &[Vip],
    wanted: impl IntoIterator<Item = &'s Service>,
    held: &Held,
) -> Vec<ServiceOp> {
    let there = gone.iter().filter(|vip| held.services.contains_key(vip));
    let mut ops: Vec<ServiceOp> = there.map(|&vip| ServiceOp::Remove(vip)).collect();
    let mut added = Vec::new();
    for service in wanted {
        match held.services.get(&service.vip) {
            Some(held) => change(service, held, &mut ops),
            None => added.push(ServiceOp::Add(service.clone())),
        }
    }
    ops.extend(added);
    ops
}

/// What differs between a service and what the kernel holds of it: its ring, then backends whose flows are over.
fn change(service: &Service, held: &HeldService, ops: &mut Vec<ServiceOp>) {
    let is_as_wanted = is_as_wanted(held, service);
    if !is_as_wanted {
        ops.push(ServiceOp::Change(service.clone()));
    }
    // A ring that is as wanted names backends of the service only.
    let suspects = alive(&held.rows).filter(|row| !(is_as_wanted && row.is_named));
    let gone = suspects.filter(|row| !has(service, row));
    ops.extend(gone.map(|row| ServiceOp::Retire { vip: Some(service.vip), row: row.row }));
}

fn is_as_wanted(held: &HeldService, service: &Service) -> bool {
    held.algorithm == service.algorithm && held.usable.as_ref().is_some_and(|usable| is_same(usable, service))
}

/// Whether these, which are in order, are the backends that take new flows.
fn is_same(usable: &[Backend], service: &Service) -> bool {
    let mut wanted = service.backends.iter().filter(|backend| backend.weight > 0);
    wanted.clone().count() == usable.len() && wanted.all(|backend| usable.binary_search(backend).is_ok())
}

/// Whether a row's backend is in the service, with whatever weight: flows of one that takes no new ones go on.
fn has(service: &Service, row: &HeldRow) -> bool {
    service.backends.iter().any(|backend| backend.socket() == SocketAddr::V4(row.socket))
}

fn alive(rows: &[HeldRow]) -> impl Iterator<Item = &HeldRow> {
    rows.iter().filter(|row| !row.is_gone)
}

#[cfg(test)]
mod tests;
