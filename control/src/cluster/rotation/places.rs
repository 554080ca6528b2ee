//! Which member has an address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::cluster::{log::Name, records::Facts};

/// Which member has an address: as one of its own, or in a slice of its containers.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    facts: BTreeMap<Name, Vec<IpNet>>,
    /// Networks with their members; of two members that say so the one of the smaller name.
    networks: BTreeMap<IpNet, BTreeSet<Name>>,
    /// How many networks there are of a prefix length, longest first.
    lengths: BTreeMap<std::cmp::Reverse<u8>, usize>,
}

impl Places {
    /// Follows a member's facts; gives the networks that it has no more, and those that are new.
    pub(super) fn follow(&mut self, member: &Name, facts: Option<&Facts>) -> Vec<IpNet> {
        let mut networks: Vec<IpNet> = facts.into_iter().flat_map(networks).collect();
        networks.sort_unstable();
        networks.dedup();
        let former = match networks.is_empty() {
            true => self.facts.remove(member),
            false => self.facts.insert(member.clone(), networks.clone()),
        };
        let former = former.unwrap_or_default();
        let mut changed = Vec::new();
        for network in former.iter().filter(|network| !networks.contains(network)) {
            self.remove(*network, member);
            changed.push(*network);
        }
        for network in networks.into_iter().filter(|network| !former.contains(network)) {
            self.networks.entry(network).or_default().insert(member.clone());
            *self.lengths.entry(std::cmp::Reverse(network.prefix_len())).or_default() += 1;
            changed.push(network);
        }
        changed
    }

    fn remove(&mut self, network: IpNet, member: &Name) {
        let length = std::cmp::Reverse(network.prefix_len());
        if let Some(members) = self.networks.get_mut(&network) {
            members.remove(member);
            if members.is_empty() {
                self.networks.remove(&network);
            }
        }
        if let Some(count) = self.lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
    }

    /// The networks of a member.
    pub(super) fn networks(&self, member: &Name) -> &[IpNet] {
        self.facts.get(member).map_or(&[], Vec::as_slice)
    }

    /// The member that has an address; `None`: it is nobody's, it is external.
    pub(super) fn member(&self, address: IpAddr) -> Option<&Name> {
        let find = |length: u8| {
            let network = IpNet::new(address, length).ok()?.trunc();
            self.networks.get(&network)?.first()
        };
        self.lengths.keys().find_map(|length| find(length.0))
    }
}

/// A member's addresses and slices as networks.
fn networks(facts: &Facts) -> impl Iterator<Item = IpNet> {
    let addresses = facts.addresses.iter().map(|address| IpNet::from(*address));
    addresses.chain(facts.slices.iter().map(IpNet::trunc))
}
