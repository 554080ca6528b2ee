//! Local backends whose endpoint is not there: an address that was an endpoint's and whose device has gone.
//!
//! An address that never was one stays in rotation: a container that has not spoken yet is not known either.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use control::service::{BackendLife, ServiceState};

/// Which endpoints are there, and which are no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// Devices of the endpoints that were there at the last look.
    known: BTreeMap<Ipv4Addr, u32>,
    absent: BTreeSet<Ipv4Addr>,
}

impl Presence {
    /// As an agent left it that had these services.
    pub(crate) fn after(services: &[ServiceState]) -> Self {
        let backends = services.iter().flat_map(|one| &one.backends);
        let down = backends.filter(|backend| backend.state == BackendLife::Down);
        let absent = down.filter_map(|backend| match backend.address.ip() {
            std::net::IpAddr::V4(address) => Some(address),
            std::net::IpAddr::V6(_) => None,
        });
        Self { known: BTreeMap::new(), absent: absent.collect() }
    }

    /// Endpoints whose device has gone; says whether there are such.
    pub(crate) fn lose(&mut self, is_gone: impl Fn(u32) -> bool) -> bool {
        let before = self.absent.len();
        let lost = self.known.extract_if(.., |_, device| is_gone(*device));
        self.absent.extend(lost.map(|(address, _)| address));
        self.absent.len() != before
    }

    /// The endpoints that are there; says whether one of them was absent.
    pub(crate) fn learn(&mut self, known: BTreeMap<Ipv4Addr, u32>) -> bool {
        let before = self.absent.len();
        self.absent.retain(|address| !known.contains_key(address));
        self.known = known;
        self.absent.len() != before
    }

    /// Addresses of endpoints that are no more.
    pub(crate) fn absent(&self) -> &BTreeSet<Ipv4Addr> {
        &self.absent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(250, 0, 28, last)
    }

    fn known(endpoints: &[(u8, u32)]) -> BTreeMap<Ipv4Addr, u32> {
        endpoints.iter().map(|&(last, device)| (address(last), device)).collect()
    }

    #[test]
    fn an_endpoint_is_absent_from_when_its_device_goes_until_it_is_known_again() {
        let mut presence = Presence::default();
        assert!(!presence.learn(known(&[(2, 7), (3, 8)])));
        assert!(!presence.lose(|device| device == 9), "nobody's device");
        assert!(presence.lose(|device| device == 7));
        assert!(!presence.lose(|device| device == 7), "it is known to be gone");
        assert_eq!(presence.absent(), &[address(2)].into());
        assert!(!presence.learn(known(&[(3, 8)])), "it stays absent");
        assert_eq!(presence.absent(), &[address(2)].into());
        assert!(presence.learn(known(&[(2, 11), (3, 8)])));
        assert_eq!(presence.absent(), &BTreeSet::new());
    }

    #[test]
    fn an_endpoint_that_leaves_the_table_while_its_device_stays_is_not_absent() {
        let mut presence = Presence::default();
        presence.learn(known(&[(2, 7)]));
        presence.learn(known(&[]));
        assert!(!presence.lose(|device| device == 7));
        assert_eq!(presence.absent(), &BTreeSet::new());
    }
}
