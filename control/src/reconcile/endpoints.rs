//! The endpoint table: which address lives behind which device, with which MAC address.
//!
//! An address is known from the record of an endpoint that we wired, or from the kernel: a neighbour of a fan's bridge
//! (address → MAC) joined with the bridge's forwarding table (MAC → port). The forwarding table alone removes
//! nothing: redirected frames never pass the bridge, so that its entries age although the endpoint is alive.

mod inquiry;

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use dataplane_common::abi::{EndpointRecord, FanRecord};
pub use inquiry::{Findings, Inquiry, Question};

use super::{endpoint_address, fan_of_endpoint};
use crate::observed::{FdbEntry, Link, Neighbour, NeighbourState, Wired};

/// What decides about the entries of the endpoint table, and the entries that it has.
#[derive(Clone, Copy, Debug)]
pub struct ObservedEndpoints<'a> {
    /// The published fans.
    pub fans: &'a [FanRecord],
    /// All interfaces.
    pub links: &'a [Link],
    /// Neighbours of the fans' bridges and of the endpoints' devices.
    pub neighbours: &'a [Neighbour],
    /// Forwarding entries of the fans' bridges.
    pub fdb: &'a [FdbEntry],
    /// The endpoint table.
    pub held: &'a [(Ipv4Addr, EndpointRecord)],
}

/// Whether addresses are learnt from the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learning {
    /// Yes: an agent keeps watching, so that what is learnt is also forgotten.
    On,
    /// No: the table gets the endpoints that we wired, whose entries die with their device.
    Off,
}

/// A change of the endpoint table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointOp {
    /// The address is new.
    Insert(EndpointRecord),
    /// The address has another device or MAC address.
    Update(EndpointRecord),
    /// The address is gone.
    Remove(Ipv4Addr),
}

impl EndpointOp {
    /// The address that it concerns.
    pub fn address(&self) -> Ipv4Addr {
        match *self {
            Self::Insert(record) | Self::Update(record) => record.address.into(),
            Self::Remove(address) => address,
        }
    }
}

/// The changes that bring the table to what is known: removals first, since they make room.
pub fn plan(observed: &ObservedEndpoints<'_>, learning: Learning) -> Vec<EndpointOp> {
    let known = View::new(observed).desired(learning);
    let held: BTreeMap<_, _> = observed.held.iter().copied().collect();
    let removed =
        held.keys().filter(|address| !known.contains_key(address)).map(|&gone| EndpointOp::Remove(gone));
    let written = known.iter().filter_map(|(&address, &record)| match held.get(&address) {
        None => Some(EndpointOp::Insert(record)),
        Some(&old) if old != record => Some(EndpointOp::Update(record)),
        Some(_) => None,
    });
    removed.chain(written).collect()
}

/// The devices of the endpoints that are there: those of the table, and those that we wired, also while they do not
/// answer.
pub fn devices(observed: &ObservedEndpoints<'_>) -> BTreeMap<Ipv4Addr, u32> {
    let view = View::new(observed);
    let known = view.desired(Learning::On).into_iter().map(|(address, record)| (address, record.ifindex));
    let wired = view.wired.iter();
    let wired = wired.flat_map(|one| one.record.addresses.iter().map(|&address| (address, one.index)));
    known.chain(wired).collect()
}

/// Addresses whose neighbour entry should be probed, by device: those in the table, because delivery past the stack
/// never confirms them, and those whose port is not known, because the answer shows it.
pub fn suspects(observed: &ObservedEndpoints<'_>) -> Vec<(u32, Ipv4Addr)> {
    let view = View::new(observed);
    let held = observed
        .held
        .iter()
        .filter_map(|&(address, record)| Some((view.side_of(address, &record)?, address)));
    let unplaced = observed.neighbours.iter().filter(|neighbour| {
        neighbour.state == NeighbourState::Known
            && view.fan_at(neighbour).is_some()
            && !observed.held.iter().any(|&(address, _)| address == neighbour.address)
    });
    held.chain(unplaced.map(|neighbour| (neighbour.index, neighbour.address))).collect()
}

/// [`ObservedEndpoints`] with indexes over it.
struct View<'a> {
    fans: &'a [FanRecord],
    links: HashMap<u32, &'a Link>,
    neighbours: HashMap<(u32, Ipv4Addr), &'a Neighbour>,
    ports: HashMap<(u32, [u8; 6]), u32>,
    wired: Vec<Wired>,
    held: &'a [(Ipv4Addr, EndpointRecord)],
}

impl<'a> View<'a> {
    fn new(observed: &ObservedEndpoints<'a>) -> Self {
        let links: HashMap<_, _> = observed.links.iter().map(|link| (link.index, link)).collect();
        let is_port = |port, bridge| links.get(&port).is_some_and(|link| link.master == Some(bridge));
        let learnt = observed.fdb.iter().filter(|entry| !entry.local && is_port(entry.port, entry.bridge));
        Self {
            fans: observed.fans,
            neighbours: observed
                .neighbours
                .iter()
                .map(|entry| ((entry.index, entry.address), entry))
                .collect(),
            ports: learnt.map(|entry| ((entry.bridge, entry.mac), entry.port)).collect(),
            wired: Wired::among(observed.links),
            held: observed.held,
            links,
        }
    }

    fn desired(&self, learning: Learning) -> BTreeMap<Ipv4Addr, EndpointRecord> {
        let mut table = BTreeMap::new();
        for &(address, record) in self.held {
            if let Some(record) = self.still(address, record) {
                table.insert(address, record);
            }
        }
        if learning == Learning::On {
            table.extend(self.neighbours.values().filter_map(|neighbour| self.learnt(neighbour)));
        }
        for wired in &self.wired {
            for &address in &wired.record.addresses {
                match self.wired_entry(wired, address) {
                    Some(record) => table.insert(address, record),
                    None => table.remove(&address),
                };
            }
        }
        table
    }

    /// What a held entry has become, unless it is over.
    fn still(&self, address: Ipv4Addr, record: EndpointRecord) -> Option<EndpointRecord> {
        let fan = fan_of_endpoint(self.fans, address)?;
        let link = self.links.get(&record.ifindex).filter(|link| link.master == Some(fan.bridge))?;
        let unchanged = EndpointRecord { flags: flags(link), ..record };
        match self.neighbours.get(&(fan.bridge, address)) {
            Some(Neighbour { state: NeighbourState::Failed, .. }) => None,
            Some(Neighbour { mac: Some(mac), .. }) if *mac != record.mac => None,
            _ => match self.ports.get(&(fan.bridge, record.mac)) {
                Some(&port) => self.entry(address, port, record.mac),
                None => Some(unchanged),
            },
        }
    }

    /// The entry that a neighbour of a bridge makes, once its port is known.
    fn learnt(&self, neighbour: &Neighbour) -> Option<(Ipv4Addr, EndpointRecord)> {
        let fan = self.fan_at(neighbour)?;
        let mac = neighbour.mac.filter(|mac| neighbour.state == NeighbourState::Known && is_unicast(*mac))?;
        let port = *self.ports.get(&(fan.bridge, mac))?;
        Some((neighbour.address, self.entry(neighbour.address, port, mac)?))
    }

    /// The entry of an endpoint that we wired. Its device is never another's, whatever the network says; its
    /// MAC address follows what the kernel sees on that device.
    fn wired_entry(&self, wired: &Wired, address: Ipv4Addr) -> Option<EndpointRecord> {
        fan_of_endpoint(self.fans, address)?;
        let side = wired.master.unwrap_or(wired.index);
        let mac = match self.neighbours.get(&(side, address)) {
            Some(Neighbour { state: NeighbourState::Failed, .. }) => return None,
            // Asked for again after a failure: it returns when it answers.
            Some(Neighbour { state: NeighbourState::Incomplete, .. }) if !self.is_held(address) => {
                return None;
            }
            Some(Neighbour { mac: Some(mac), .. }) if self.is_behind(wired, address, *mac) => *mac,
            _ => wired.record.mac(),
        };
        self.entry(address, wired.index, mac)
    }

    fn is_behind(&self, wired: &Wired, address: Ipv4Addr, mac: [u8; 6]) -> bool {
        let Some(bridge) = wired.master else { return true };
        match self.ports.get(&(bridge, mac)) {
            Some(&port) => port == wired.index,
            None => self
                .held
                .iter()
                .any(|(held, record)| *held == address && record.ifindex == wired.index && record.mac == mac),
        }
    }

    fn is_held(&self, address: Ipv4Addr) -> bool {
        self.held.iter().any(|(held, _)| *held == address)
    }

    fn entry(&self, address: Ipv4Addr, port: u32, mac: [u8; 6]) -> Option<EndpointRecord> {
        let link = self.links.get(&port)?;
        Some(EndpointRecord { address: address.to_bits(), ifindex: port, mac, flags: flags(link) })
    }

    /// The fan for which a neighbour may speak: an address of its slice, on its bridge.
    fn fan_at(&self, neighbour: &Neighbour) -> Option<&FanRecord> {
        self.fans.iter().find(|fan| fan.bridge == neighbour.index && endpoint_address(fan, neighbour.address))
    }

    /// The device on which the kernel keeps the neighbour entry of a table entry.
    fn side_of(&self, address: Ipv4Addr, record: &EndpointRecord) -> Option<u32> {
        fan_of_endpoint(self.fans, address)?;
        let link = self.links.get(&record.ifindex)?;
        Some(link.master.unwrap_or(link.index))
    }
}

fn flags(link: &Link) -> u16 {
    // bpf_redirect_peer loses every packet on a device without a peer elsewhere, and reports nothing.
    if link.kind.as_deref() == Some("veth") && link.peer_netns { EndpointRecord::PEER } else { 0 }
}

fn is_unicast(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

#[cfg(test)]
mod tests;
