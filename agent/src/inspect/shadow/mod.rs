//! Which VIPs somebody else translates for the processes of this host, before their packets meet our programs.
//!
//! Only processes are concerned: packets of containers and of the uplink meet ours before any of these. Everything here
//! is pure; [`kernel`](crate::kernel) reads what is told to it.

pub mod ipvs;
mod reasons;
pub mod save;
mod walk;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use control::{observed::filter::Subject, service::Vip};

pub use self::{
    reasons::Reasons,
    walk::{Table, walk},
};

/// A service as somebody else may stand in its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub name: String,
    /// Its VIP.
    pub vip: Vip,
}

/// The VIPs of this node's services, found by address.
#[derive(Debug)]
pub struct Vips<'a> {
    services: &'a [Served],
    subjects: Vec<Subject>,
    by_address: HashMap<u32, Vec<usize>>,
}

impl<'a> Vips<'a> {
    /// Those of services; IPv6 ones are nobody's matter yet.
    pub fn new(services: &'a [Served]) -> Self {
        let exact: HashSet<Vip> = services.iter().map(|service| service.vip).collect();
        let mut by_address: HashMap<u32, Vec<usize>> = HashMap::new();
        let mut subjects = Vec::with_capacity(services.len());
        for (number, Served { vip, .. }) in services.iter().enumerate() {
            let address = match vip.address {
                IpAddr::V4(address) => address.to_bits(),
                IpAddr::V6(_) => 0,
            };
            by_address.entry(address).or_default().push(number);
            subjects.push(Subject {
                address,
                protocol: vip.protocol.number(),
                port: vip.port,
                taken: Vec::new(),
            });
        }
        for (number, subject) in subjects.iter_mut().enumerate().filter(|(_, subject)| subject.port == 0) {
            let Served { vip, .. } = &services[number];
            let beside =
                by_address.get(&subject.address).into_iter().flatten().map(|&other| services[other].vip);
            let ports = beside.filter(|other| other.protocol == vip.protocol && other.port != 0);
            subject.taken = ports.filter(|other| exact.contains(other)).map(|other| other.port).collect();
        }
        Self { services, subjects, by_address }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The services' VIPs.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Vip)> + '_ {
        self.services.iter().map(|service| service.vip).enumerate()
    }

    fn at(&self, address: u32) -> &[usize] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;
