//! What the kernel holds of services.

use std::{collections::BTreeMap, net::SocketAddrV4};

use crate::service::{Algorithm, Backend, Vip};

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
