//! VIPs that other software translates for the processes of this host, before their packets meet our programs.
//!
//! Only processes are concerned: packets of containers and of the uplink meet ours before any of these. Everything here
//! is pure; [`kernel`](crate::kernel) reads what is told to it.

pub mod ipvs;
mod reasons;

use std::{collections::HashMap, net::IpAddr};

use control::{
    filter::{Packet, Packets},
    service::{Protocol, Vip},
};

pub use self::reasons::Reasons;

/// A service whose VIP something else may translate.
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
    packets: Packets,
}

impl<'a> Vips<'a> {
    /// Those of services; IPv6 ones are left out.
    pub fn new(services: &'a [Served]) -> Self {
        let mut ports: HashMap<(IpAddr, Protocol), Vec<u16>> = HashMap::new();
        for Served { vip, .. } in services.iter().filter(|service| service.vip.port != 0) {
            ports.entry((vip.address, vip.protocol)).or_default().push(vip.port);
        }
        let packet = |Served { vip, .. }: &Served| {
            let address = match vip.address {
                IpAddr::V4(address) => address.to_bits(),
                IpAddr::V6(_) => 0,
            };
            let beside = ports.get(&(vip.address, vip.protocol)).filter(|_| vip.port == 0);
            let taken = beside.cloned().unwrap_or_default();
            Packet { taken, ..Packet::to((address, address), vip.protocol.number(), vip.port) }
        };
        Self { services, packets: Packets::new(services.iter().map(packet).collect()) }
    }

    /// First packets to them, in the services' order.
    pub fn packets(&self) -> &Packets {
        &self.packets
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
}
