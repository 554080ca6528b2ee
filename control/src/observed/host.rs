//! What the host has, and which fans stand on it.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::{Address, Adopted, Entry, Link, Mark, Route, Rule, Wired};
use crate::model::{HELPER, ROUTE_PROTOCOL, inlet_names};

/// A fan that was brought up and not taken down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is remembered of it.
    pub mark: Mark,
    /// Set when its bridge was there before it.
    pub adopted: Option<Adopted>,
    /// Its bridge, unless somebody deleted it.
    pub bridge: Option<Link>,
}

/// The parts of a host's state that fans depend on, and the fans that stand.
#[derive(Clone, Debug, Default)]
pub struct ObservedHost {
    /// Interfaces.
    pub links: Vec<Link>,
    /// IPv4 addresses.
    pub addresses: Vec<Address>,
    /// IPv4 routes of the main table: ours, default routes, and those that overlap overlays or uplinks' networks.
    pub routes: Vec<Route>,
    /// IPv4 policy rules.
    pub rules: Vec<Rule>,
    /// Fans.
    pub standing: Vec<Standing>,
}

impl ObservedHost {
    /// The fans under the host's present addresses.
    pub fn current(&self) -> impl Iterator<Item = &Mark> {
        self.standing.iter().map(|standing| &standing.mark).filter(|mark| !mark.stale)
    }

    /// What is left of all fans under this host's former addresses, a line each.
    pub fn all_renumbered(&self) -> Vec<String> {
        let mut overlays: Vec<Ipv4Net> =
            self.standing.iter().map(|standing| standing.mark.overlay()).collect();
        overlays.sort_unstable();
        overlays.dedup();
        overlays.into_iter().flat_map(|overlay| self.renumbered(overlay)).collect()
    }

    /// What is left of a fan under this host's former addresses, a line each.
    pub fn renumbered(&self, overlay: Ipv4Net) -> Vec<String> {
        let stale = self.standing.iter().map(|standing| &standing.mark);
        let stale = stale.filter(|mark| mark.stale && mark.overlay() == overlay);
        stale
            .map(|mark| {
                let (address, slice, bridge) = (mark.address, mark.slice(), mark.bridge());
                format!(
                    "renumbered: fan {overlay}: this host is not {address} any more; {bridge} keeps the containers \
                     of {slice}: move them to the new bridge, and {bridge} goes with the last"
                )
            })
            .collect()
    }

    /// The fan of an overlay, if it is up.
    pub fn fan(&self, overlay: Ipv4Net) -> Option<&Standing> {
        self.standing.iter().find(|standing| standing.mark.overlay() == overlay && !standing.mark.stale)
    }

    /// The interface of a name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Users of a fan: ports of its bridge, and routed endpoints with an address in its slice.
    pub fn users(&self, standing: &Standing) -> Vec<String> {
        let bridge = standing.bridge.as_ref().map(|bridge| bridge.index);
        let [inlet, _] = inlet_names(&standing.mark.bridge());
        let is_port = |link: &&Link| bridge.is_some() && link.master == bridge && link.name != inlet;
        let ports = self.links.iter().filter(is_port);
        let ports = ports.map(|link| (link.index, link.name.clone()));
        let slice = standing.mark.slice();
        let routed = |route: &&Route| {
            route.protocol == ROUTE_PROTOCOL && slice.contains(&route.destination) && route.oif != bridge
        };
        let routed = self.routes.iter().filter(routed).filter_map(|route| {
            let link = self.links.iter().find(|link| Some(link.index) == route.oif)?;
            (!HELPER.contains(&link.name.as_str())).then(|| (link.index, link.name.clone()))
        });
        let endpoints = Wired::among(&self.links);
        ports
            .chain(routed)
            .map(|(index, device)| match endpoints.iter().find(|wired| wired.index == index) {
                Some(wired) => format!("endpoint {}", wired.record.name),
                None => format!("port {device}"),
            })
            .collect()
    }
}

/// Where routes of others matter: overlays, and the networks of uplinks. `sought` are overlays that may have no fan yet;
/// then every device may be an uplink.
pub fn surroundings(standing: &[Standing], addresses: &[Address], sought: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let is_underlay = |address: &&Address| {
        !sought.is_empty()
            || standing.iter().any(|standing| standing.mark.underlay().contains(&address.address))
    };
    let uplinks = addresses.iter().filter(is_underlay).map(Address::network);
    let overlays = standing.iter().map(|standing| standing.mark.overlay());
    let networks: BTreeSet<Ipv4Net> = overlays.chain(sought.iter().copied()).chain(uplinks).collect();
    networks.into_iter().collect()
}

/// Fans by file and by alias; the alias is right where both know a bridge.
pub fn standing(links: &[Link], entries: &[Entry]) -> Vec<Standing> {
    let marked: Vec<(Mark, &Link)> = links
        .iter()
        .filter(|link| link.is_bridge())
        .filter_map(|link| Some((Mark::from_alias(link.alias.as_deref()?)?, link)))
        .collect();
    let known = entries.iter().map(|entry| {
        let name = entry.mark.bridge();
        let bridge = links.iter().find(|link| link.name == name && link.is_bridge());
        let mark = marked.iter().find(|(_, link)| link.name == name).map_or(&entry.mark, |(mark, _)| mark);
        let mut mark = mark.clone();
        // An alias has no room for them.
        mark.spec.dns.clone_from(&entry.mark.spec.dns);
        Standing { mark, adopted: entry.adopted, bridge: bridge.cloned() }
    });
    let unknown =
        marked.iter().filter(|(_, link)| entries.iter().all(|entry| entry.mark.bridge() != link.name));
    let unknown = unknown.map(|(mark, link)| Standing {
        mark: mark.clone(),
        adopted: None,
        bridge: Some((*link).clone()),
    });
    known.chain(unknown).collect()
}

#[cfg(test)]
mod tests;
