//! What the peer is to have, brought to it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use netgauze_bgp_pkt::{iana::RouteRefreshSubcode, route_refresh::BgpRouteRefreshMessage};

use super::{Link, Session};
use crate::bgp::{
    connection::Phase,
    open::address_type,
    rib::Advertised,
    route::{Attributes, Family, NextHop, Route},
    update,
};

/// Bytes that may wait for the system before further routes are made into messages: a peer that does not read is then sent
/// what is wanted when it reads again, and nothing in between.
const WAITING: usize = 64 * 1024;
/// Prefixes made into messages at a time.
const BATCH: usize = 512;

impl Session {
    /// Decides the attributes of everything that is wanted, for the session that is established.
    pub(super) fn resolve(&mut self) {
        let (Some((link, _)), Some(wanted)) = (self.established(), self.wanted.clone()) else { return };
        let Some(open) = self.links.get(&link) else { return };
        let Phase::Established(agreed) = &open.phase else { return };
        let end = open.end;
        let mut resolved = Advertised::new();
        let mut without_hop = Vec::new();
        for (prefix, route) in wanted.iter() {
            let family = Family::of(prefix);
            if !agreed.families.contains(&family) {
                continue;
            }
            match self.next_hop(route, family, end) {
                Some(hop) => drop(resolved.insert(*prefix, Arc::new(self.attributes(route, hop)))),
                None => without_hop.push(*prefix),
            }
        }
        self.without_hop = without_hop;
        self.rib.want(resolved);
    }

    fn next_hop(&self, route: &Route, family: Family, end: IpAddr) -> Option<IpAddr> {
        let hop = match route.next_hop {
            NextHop::Address(address) => address,
            NextHop::SelfAddress if Family::of_address(end) == family => end,
            NextHop::SelfAddress => *self.uplink.get(&family)?,
        };
        (Family::of_address(hop) == family).then_some(hop)
    }

    fn attributes(&self, route: &Route, next_hop: IpAddr) -> Attributes {
        let is_internal = self.peer.is_internal(&self.local);
        let own = (!is_internal).then_some(self.local.asn);
        Attributes {
            next_hop,
            med: route.med,
            local_preference: is_internal.then_some(route.local_preference),
            as_path: own.into_iter().chain(route.as_path.iter().copied()).collect(),
            communities: route.communities.clone(),
            large_communities: route.large_communities.clone(),
            extended_communities: route.extended_communities.clone(),
        }
    }

    /// Sends what is due: withdrawals at once, then as much else as may wait for the peer.
    pub(super) fn flush(&mut self, now: Duration) {
        let Some((link, agreed)) = self.established() else { return };
        let (asn4, families) = (agreed.asn4, agreed.families.clone());
        if self.wanted.is_none() {
            return;
        }
        let gone = self.rib.take_gone();
        if !gone.is_empty() {
            self.withdraw(link, &gone, now);
        }
        while !self.rib.is_sent() && self.links.get(&link).is_some_and(|open| open.unsent < WAITING) {
            for (attributes, prefixes) in self.rib.take_due(BATCH) {
                self.counts.sent += prefixes.len() as u64;
                let messages = update::announce(&attributes, &prefixes, asn4);
                self.send_updates(link, messages, now);
            }
        }
        if self.owes_end && self.rib.is_sent() {
            self.owes_end = false;
            for family in families {
                if let Ok(bytes) = update::end_of_rib(family) {
                    self.send(link, bytes, now);
                }
            }
        }
    }

    fn withdraw(&mut self, link: Link, gone: &BTreeSet<IpNet>, now: Duration) {
        self.counts.withdrawn += gone.len() as u64;
        let messages = update::withdraw(gone);
        self.send_updates(link, messages, now);
    }

    fn send_updates(
        &mut self,
        link: Link,
        messages: Result<Vec<Vec<u8>>, impl std::fmt::Display>,
        now: Duration,
    ) {
        match messages {
            Ok(messages) => {
                self.counts.updates += messages.len() as u64;
                for bytes in messages {
                    self.send(link, bytes, now);
                }
            }
            // The configuration refuses what can't be written.
            Err(why) => self.last_error = Some(format!("an UPDATE can't be written: {why}")),
        }
        let share = self.share();
        if let Some(open) = self.links.get_mut(&link) {
            open.speak(now, share);
        }
    }

    pub(super) fn refresh(&mut self, asked: &BgpRouteRefreshMessage) {
        let family = Family::ALL.into_iter().find(|family| address_type(*family) == asked.address_type());
        if let (Some(family), RouteRefreshSubcode::NormalRequest) = (family, asked.operation_type()) {
            self.rib.refresh(family);
        }
    }
}
