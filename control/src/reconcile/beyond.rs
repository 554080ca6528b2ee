//! Backends beyond the overlays: their answers are translated back by the uplinks' program, and by no other device's.

use std::{collections::BTreeSet, net::Ipv4Addr};

use dataplane_common::abi::FanRecord;
use ipnet::Ipv4Net;

use crate::observed::{Address, Route};

/// Where packets to addresses beyond the overlays are likely to leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    uplinks: BTreeSet<u32>,
    overlays: Vec<(u32, u32)>,
    networks: Vec<(Ipv4Net, u32)>,
    default: Option<u32>,
}

impl Surroundings {
    /// Of a host with these devices as uplinks.
    pub fn new(uplinks: BTreeSet<u32>, fans: &[FanRecord], addresses: &[Address], routes: &[Route]) -> Self {
        let defaults = routes.iter().filter(|route| route.destination.prefix_len() == 0 && !route.rejects);
        Self {
            uplinks,
            overlays: fans.iter().map(|fan| (fan.overlay, fan.overlay_mask)).collect(),
            networks: addresses.iter().map(|address| (address.network(), address.index)).collect(),
            default: defaults.min_by_key(|route| route.metric).and_then(|route| route.oif),
        }
    }

    /// Whether packets to a backend may leave by a device that is no uplink: then the kernel has to be asked. It is cheap, so
    /// that only few are asked for.
    pub fn may_stray(&self, backend: Ipv4Addr) -> bool {
        if self.overlays.iter().any(|&(overlay, mask)| backend.to_bits() & mask == overlay) {
            return false;
        }
        let near = self.networks.iter().filter(|(network, _)| network.contains(&backend));
        let nearest = near.max_by_key(|(network, _)| network.prefix_len()).map(|&(_, device)| device);
        nearest.or(self.default).is_some_and(|device| !self.is_uplink(device))
    }

    /// Whether a device has the uplinks' program.
    pub fn is_uplink(&self, device: u32) -> bool {
        self.uplinks.contains(&device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::fan;

    fn address(text: &str, index: u32) -> Address {
        let network: Ipv4Net = text.parse().unwrap();
        Address { index, address: network.addr(), prefix_len: network.prefix_len() }
    }

    #[test]
    fn a_backend_behind_another_device_than_an_uplink_may_stray() {
        let addresses =
            [address("172.30.0.28/16", 1), address("172.17.0.1/16", 5), address("250.0.28.1/24", 2)];
        let default = |oif, metric| Route { oif: Some(oif), metric, ..Route::default() };
        let by = |oif| Surroundings::new([1].into(), &[fan()], &addresses, &[default(oif, 1), default(9, 7)]);
        let strays = |by: &Surroundings, backend: &str| by.may_stray(backend.parse().unwrap());
        assert!(strays(&by(1), "172.17.0.2"));
        for fine in ["172.30.0.99", "192.0.2.1", "250.0.27.9", "250.0.28.9"] {
            assert!(!strays(&by(1), fine), "{fine}");
        }
        assert!(strays(&by(5), "192.0.2.1"));
        let nowhere = Surroundings::new([1].into(), &[fan()], &addresses, &[]);
        assert!(!strays(&nowhere, "192.0.2.1"));
    }
}
