//! Answers; the field names are the stable keys of the JSON.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    vec,
};

use control::{
    desired::{Entry, Provenance},
    service::{
        Algorithm, Backend, BackendLife, BackendState, Down, Forward, Service, ServiceLife, ServiceState,
    },
};
use dataplane_common::{abi::FanRecord, fan::host_of};
use serde::{Deserialize, Serialize};

use super::{
    View,
    checks::CheckRow,
    counts::{Counts, Flows},
};
use crate::{
    cluster::{OtherBackend, OwnOffer},
    health::Results,
    kernel::bpf,
};

/// Services that are written at once, in a fraction of a millisecond.
const PART: usize = 64;

/// What `service apply` and `service remove` did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Services that are new or were changed.
    pub applied: usize,
    /// Services that were so already.
    pub unchanged: usize,
    /// Services that went.
    pub removed: usize,
    /// Milliseconds from the request to the last service in the kernel.
    pub ms: f64,
    /// Backends of the services that other nodes contribute: they stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherBackend>,
}

/// What `service drain` and `service undrain` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// The service's name.
    pub service: String,
    /// The backend.
    pub backend: SocketAddr,
    /// What it is now.
    pub state: BackendLife,
    /// Whether it was something else before.
    pub changed: bool,
}

impl Drained {
    /// Before it is known whether that was a change.
    pub(crate) fn new(service: String, backend: SocketAddr, drain: bool) -> Self {
        let state = if drain { BackendLife::Drained } else { BackendLife::Up };
        Self { service, backend, state, changed: false }
    }
}

/// What `backend add` and `backend remove` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contributed {
    /// The service's name.
    pub service: String,
    /// `ADDR:PORT`
    pub address: SocketAddr,
    /// Its share of new flows; of one that was removed, the former.
    pub weight: u32,
    /// Whether it was something else before.
    pub changed: bool,
}

impl Contributed {
    /// Before its weight is known, and whether that was a change.
    pub(crate) fn new(service: String, address: SocketAddr) -> Self {
        Self { service, address, weight: 0, changed: false }
    }
}

/// A backend that this node contributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnBackend {
    /// The service's name.
    pub service: String,
    /// `ADDR:PORT`
    pub address: SocketAddr,
    /// Its share of new flows.
    pub weight: u32,
}

impl From<OwnOffer> for OwnBackend {
    fn from((service, address, weight): OwnOffer) -> Self {
        Self { service, address, weight }
    }
}

/// What `maintenance on` and `maintenance off` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintained {
    /// This node's name.
    pub node: String,
    /// Whether it is in maintenance.
    pub maintenance: bool,
    /// Whether it was something else before.
    pub changed: bool,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Whether the files say anything else than before.
    pub changed: bool,
    /// Fans that they ask for.
    pub fans: usize,
    /// Services that they define.
    pub services: usize,
}

/// Whether a client's flows stay together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// Each flow has a backend of its own.
    #[default]
    None,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    pub name: String,
    /// `ADDR:PORT/PROTO`
    pub vip: String,
    /// The address that the VIP's name hashes to, where that is another's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashed: Option<Ipv4Addr>,
    /// How packets reach the backend.
    pub forward: Forward,
    /// How a flow's backend is chosen.
    pub algorithm: Algorithm,
    /// Whether a client's flows stay together.
    pub affinity: Affinity,
    /// How its backends are checked, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// Whether it works.
    pub state: ServiceLife,
    /// Its backends.
    pub backends: Vec<BackendRow>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendRow {
    /// `ADDR:PORT`
    pub address: SocketAddr,
    /// Its share of new flows.
    pub weight: u32,
    /// Whether it takes new flows.
    pub state: BackendLife,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Down>,
    /// It is down and takes new flows all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// The node that it is on. In a cluster the member that has its address; else this node's name, or another's address in
    /// the underlay, and none outside the fans.
    pub node: Option<String>,
    /// The members that contribute it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contributors: Vec<String>,
    /// What this node's checks have found of it, where it is shown alone and this node checks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckRow>,
    /// Established flows of this node's clients, where they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<u64>,
}

impl View {
    /// All services with their state.
    pub fn states(&self) -> impl Iterator<Item = ServiceState> {
        self.desired.entries().map(|entry| entry.state(self.is_held(entry)))
    }

    fn is_held(&self, entry: &Entry) -> bool {
        self.map.is_some() && !self.failed.contains(&entry.wanted.vip)
    }

    /// All services, with their flows where they are to be counted.
    pub(super) fn list(&self, counts: Option<&Counts>) -> bpf::Result<List> {
        let flows = counts.map(|counts| self.flows(counts)).transpose()?;
        let entries: Vec<_> = self.desired.entries().cloned().collect();
        Ok(List { view: self.clone(), flows, entries: entries.into_iter(), opening: Some(b'[') })
    }

    /// The service of a name, with its flows.
    pub(super) fn named(
        &self,
        name: &str,
        counts: &Counts,
        checks: &Results,
    ) -> bpf::Result<Option<ServiceRow>> {
        let Some(entry) = self.desired.get(name) else { return Ok(None) };
        let flows = self.flows(counts)?;
        let mut row = self.row(entry, Some(&flows));
        for backend in &mut row.backends {
            backend.check = checks.of(name, backend.address).map(CheckRow::from);
        }
        Ok(Some(row))
    }

    /// The backends that this node contributes, as JSON; `None` where there is no service of that name. Of a
    /// node without a cluster these are all.
    pub(super) fn own_backends(&self, service: Option<&str>) -> serde_json::Result<Option<Vec<u8>>> {
        let entries: Vec<&Arc<Entry>> = match service {
            None => self.desired.entries().collect(),
            Some(name) => match self.desired.get(name) {
                Some(entry) => vec![entry],
                None => return Ok(None),
            },
        };
        let of = |entry: &Arc<Entry>| {
            let Service { name, backends, .. } = &entry.defined;
            let own = |backend: &Backend| OwnBackend {
                service: name.clone(),
                address: backend.socket(),
                weight: backend.weight,
            };
            backends.iter().map(own).collect::<Vec<_>>()
        };
        let rows: Vec<OwnBackend> = entries.into_iter().flat_map(of).collect();
        serde_json::to_vec(&rows).map(Some)
    }

    fn flows(&self, counts: &Counts) -> bpf::Result<Arc<Flows>> {
        self.map.as_ref().map_or_else(|| Ok(Arc::default()), |map| counts.of(map))
    }

    fn row(&self, entry: &Entry, flows: Option<&Flows>) -> ServiceRow {
        let vip = entry.wanted.vip;
        let ServiceState { name, forward, algorithm, state, backends, .. } = entry.state(self.is_held(entry));
        let backends = backends.into_iter().map(|backend| self.backend(entry, backend, flows)).collect();
        let affinity = Affinity::default();
        let (vip, hashed) = (vip.to_string(), entry.hashed);
        let check = entry.defined.checking.as_ref().map(|checking| checking.check.probe.to_string());
        ServiceRow { name, vip, hashed, forward, algorithm, affinity, check, state, backends }
    }

    fn backend(&self, entry: &Entry, backend: BackendState, flows: Option<&Flows>) -> BackendRow {
        let BackendState { address, weight, state, reason, kept } = backend;
        let counted = |flows: &Flows| match address {
            SocketAddr::V4(address) => flows.get(&(entry.wanted.vip, address)).copied().unwrap_or_default(),
            SocketAddr::V6(_) => 0,
        };
        let (node, contributors) = match entry.provenance(address) {
            Some(Provenance { node, contributors, .. }) => (
                node.as_ref().map(ToString::to_string),
                contributors.iter().map(ToString::to_string).collect(),
            ),
            None => (node_of(&self.fans, address.ip(), &self.node), Vec::new()),
        };
        let flows = flows.map(counted);
        BackendRow { address, weight, state, reason, kept, node, contributors, check: None, flows }
    }
}

/// A list of services, written part by part: all of ten thousand at once would be megabytes, and a while.
#[derive(Debug)]
pub(super) struct List {
    view: View,
    flows: Option<Arc<Flows>>,
    entries: vec::IntoIter<Arc<Entry>>,
    /// What the next part begins with; `None` after the last.
    opening: Option<u8>,
}

impl List {
    /// The next part of the JSON array; empty after the last.
    pub(super) fn part(&mut self) -> serde_json::Result<Vec<u8>> {
        let Some(opening) = self.opening.take() else { return Ok(Vec::new()) };
        let mut text = vec![opening];
        for (place, entry) in self.entries.by_ref().take(PART).enumerate() {
            if place > 0 {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, &self.view.row(&entry, self.flows.as_deref()))?;
        }
        match self.entries.len() {
            0 => text.push(b']'),
            _ => self.opening = Some(b','),
        }
        Ok(text)
    }
}

/// Where an address lives: `own` is this node's name.
fn node_of(fans: &[FanRecord], address: IpAddr, own: &str) -> Option<String> {
    let IpAddr::V4(address) = address else { return None };
    let address = address.to_bits();
    let fan = fans.iter().find(|fan| fan.in_use() && address & fan.overlay_mask == fan.overlay)?;
    if address & fan.slice_mask == fan.slice {
        return Some(own.to_owned());
    }
    let host = host_of(address, fan.overlay_mask, fan.underlay, fan.shift);
    Some(Ipv4Addr::from_bits(host).to_string())
}

#[cfg(test)]
mod tests;
