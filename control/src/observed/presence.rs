//! Which endpoints of this node are there, and which are not.
//!
//! An address that never was an endpoint's is absent once it was asked for and nothing answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use crate::service::Down;

/// The endpoints that were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Devices of those that were there when they were looked at last.
    known: BTreeMap<Ipv4Addr, u32>,
    absent: BTreeMap<Ipv4Addr, Down>,
    /// Backends for which nothing answers.
    silent: BTreeSet<Ipv4Addr>,
}

impl Presence {
    /// With endpoints that are known to be absent.
    pub fn without(absent: BTreeMap<Ipv4Addr, Down>) -> Self {
        Self { absent, ..Self::default() }
    }

    /// Endpoints whose device has gone; says whether there are such.
    pub fn lose(&mut self, is_gone: impl Fn(u32) -> bool) -> bool {
        let before = self.absent.len();
        let lost = self.known.extract_if(.., |_, device| is_gone(*device));
        self.absent.extend(lost.map(|(address, _)| (address, Down::EndpointGone)));
        self.absent.len() != before
    }

    /// The endpoints that are there, with their devices; says whether one of them was absent.
    pub fn learn(&mut self, known: BTreeMap<Ipv4Addr, u32>) -> bool {
        let before = self.absent.len();
        self.absent.retain(|address, _| !known.contains_key(address));
        self.known = known;
        self.absent.len() != before
    }

    /// These backends, and no others, do not answer.
    pub fn hear(&mut self, silent: BTreeSet<Ipv4Addr>) {
        self.silent = silent;
    }

    /// Addresses of endpoints that are not there, and why.
    pub fn absent(&self) -> BTreeMap<Ipv4Addr, Down> {
        let silent = self.silent.iter().map(|&address| (address, Down::NoAnswer));
        silent.chain(self.absent.iter().map(|(&address, &why)| (address, why))).collect()
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
        let gone = BTreeMap::from([(address(2), Down::EndpointGone)]);
        let mut presence = Presence::default();
        assert!(!presence.learn(known(&[(2, 7), (3, 8)])));
        assert!(!presence.lose(|device| device == 9), "nobody's device");
        assert!(presence.lose(|device| device == 7));
        assert!(!presence.lose(|device| device == 7), "it is known to be gone");
        assert_eq!(presence.absent(), gone);
        assert!(!presence.learn(known(&[(3, 8)])), "it stays absent");
        assert_eq!(presence.absent(), gone);
        assert!(presence.learn(known(&[(2, 11), (3, 8)])));
        assert_eq!(presence.absent(), BTreeMap::new());
    }

    #[test]
    fn an_endpoint_that_leaves_the_table_while_its_device_stays_is_not_absent() {
        let mut presence = Presence::default();
        presence.learn(known(&[(2, 7)]));
        presence.learn(known(&[]));
        assert!(!presence.lose(|device| device == 7));
        assert_eq!(presence.absent(), BTreeMap::new());
    }

    #[test]
    fn what_is_silent_is_absent_until_it_answers_whatever_its_device() {
        let mut presence = Presence::default();
        presence.learn(known(&[(2, 7)]));
        presence.hear([address(2), address(9)].into());
        let silent = [address(2), address(9)].map(|address| (address, Down::NoAnswer));
        assert_eq!(presence.absent(), BTreeMap::from(silent));
        presence.lose(|device| device == 7);
        assert_eq!(presence.absent()[&address(2)], Down::EndpointGone);
        presence.learn(known(&[(2, 8)]));
        presence.hear(BTreeSet::new());
        assert_eq!(presence.absent(), BTreeMap::new());
    }
}
