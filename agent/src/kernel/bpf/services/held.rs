//! What the kernel holds of services, as plain values.

use std::{
    collections::{BTreeMap, HashSet},
    iter,
    net::SocketAddrV4,
};

use crate::service::{Algorithm, Backend, Service, Vip};

/// How many operations are prepared at once: all processors have enough to do, and little is reserved in advance.
const BATCH: usize = 256;

/// All that the kernel holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Services by their VIP.
    pub services: BTreeMap<Vip, HeldService>,
    /// Rows of services that are no more.
    pub orphans: Vec<HeldRow>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldService {
    /// Its place in the table.
    pub index: u32,
    /// How a flow's backend is chosen.
    pub algorithm: Algorithm,
    /// What its ring was computed from; `None` when that is not known.
    pub usable: Option<Vec<Backend>>,
    /// Its backends: those that take new flows, and those that flows may remember.
    pub rows: Vec<HeldRow>,
}

/// A backend's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRow {
    /// Its place in the table.
    pub row: u32,
    /// Address and port.
    pub socket: SocketAddrV4,
    /// Its flows are over.
    pub is_gone: bool,
    /// New flows come here.
    pub is_named: bool,
}

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

/// Cuts operations into batches in which none changes what an earlier one was about.
pub(super) fn batches(mut ops: &[ServiceOp]) -> impl Iterator<Item = &[ServiceOp]> {
    iter::from_fn(move || {
        let mut vips = HashSet::new();
        let mut is_new = |op: &ServiceOp| op.vip().is_none_or(|vip| vips.insert(vip));
        let joins = |op: &&ServiceOp| is_new(op) || matches!(op, ServiceOp::Retire { .. });
        let (batch, rest) = ops.split_at(ops.iter().take(BATCH).take_while(joins).count());
        ops = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(port: u16) -> ServiceOp {
        let vip = Vip { port, ..vip() };
        let name = port.to_string();
        ServiceOp::Add(Service { name, vip, algorithm: Algorithm::Maglev, backends: Vec::new() })
    }

    fn vip() -> Vip {
        "10.96.0.10:80/tcp".parse().unwrap()
    }

    #[test]
    fn a_batch_ends_before_what_changes_a_vip_again() {
        let retire = ServiceOp::Retire { vip: Some(vip()), row: 0 };
        let ops = [ServiceOp::Remove(vip()), add(1), add(80), retire.clone(), retire, add(2), add(80)];
        let lengths: Vec<usize> = batches(&ops).map(<[ServiceOp]>::len).collect();
        assert_eq!(lengths, [2, 4, 1]);
        assert_eq!(batches(&ops).flatten().cloned().collect::<Vec<_>>(), ops);
    }

    #[test]
    fn a_batch_is_no_longer_than_its_limit() {
        let ops: Vec<ServiceOp> = (0..BATCH as u16 + 1).map(add).collect();
        assert_eq!(batches(&ops).map(<[ServiceOp]>::len).collect::<Vec<_>>(), [BATCH, 1]);
    }
}
