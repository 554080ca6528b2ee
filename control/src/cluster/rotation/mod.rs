//! What this node is to serve of the cluster's services: a function of what all logs say and how the members stand.
//!
//! 1. Where a backend's address is decides, not who contributed it. On a member or in its slice, the backend is down while
//!    that member is gone and drained while it is in maintenance; any other one is external and stays.
//! 2. A network fault must not empty a service. Where fewer than half of the backends that could serve would be left, those
//!    of gone members are kept; where none would be left, all are. Both are shown.
//! 3. Of a ring, deaths take at most half within a second, whatever else changes: what goes beyond that goes a second later.
//! 4. A node that reaches no majority of the members does not believe deaths, nor those of the last seconds before: the
//!    others went one after the other. It serves what it last knew.
//! 5. A member of which nothing has been heard yet counts as alive.
//! 6. What members find by checking a backend is brought together here ([`judged`]), and follows none of these rules: a check
//!    that fails is no death.
//!
//! One change costs what it touches.

mod checked;
mod places;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

pub use self::service::{Deaths, Placed, PlacedBackend, Rotation, Standing};
use self::{checked::judged, places::Places, service::Shrunk};
use super::{
    log::Name,
    records::{self, Parts, Touched, View, conflict},
};
use crate::service::Definition;

/// How long a ring that deaths have shrunk does not shrink below half of what it was.
const WINDOW: Duration = Duration::from_secs(1);

/// How far apart two members beyond a partition may go, one after the other. A death takes one second to be known; a node with much to
/// do trusts its own clock less and waits longer (Lifeguard): on loaded processors up to five seconds lay between two.
const APART: Duration = Duration::from_secs(15);

/// What this node is to serve of the cluster's services.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// How members stand, as far as that is believed.
    standings: BTreeMap<Name, Standing>,
    /// Members that are gone: since when, and how they stood before.
    gone: BTreeMap<Name, (Duration, Standing)>,
    /// Whether this node reaches a minority of the members alone.
    is_minority: bool,
    places: Places,
    services: BTreeMap<Name, Arc<Placed>>,
    /// Services by their backends' addresses.
    addresses: BTreeSet<(u128, Name)>,
    /// Members whose files contradict each other about a service, by service, and as pairs of member and service.
    claimants: BTreeMap<Name, BTreeSet<Name>>,
    claimed: BTreeSet<(Name, Name)>,
    /// Rings that have shrunk: until when, and the size that they had.
    shrunk: BTreeMap<Name, (Duration, usize)>,
}

impl Serving {
    /// The services, by their names.
    pub fn services(&self) -> impl Iterator<Item = (&Name, &Arc<Placed>)> {
        self.services.iter()
    }

    /// A service.
    pub fn get(&self, name: &str) -> Option<&Arc<Placed>> {
        self.services.get(name)
    }

    /// Whether this node reaches no majority of the members.
    pub fn is_minority(&self) -> bool {
        self.is_minority
    }

    /// When [`Self::elapse`] has something to do, as the monotonic time.
    pub fn deadline(&self) -> Option<Duration> {
        self.shrunk.values().map(|(until, _)| *until).min()
    }

    /// Follows the view; gives the services that are others now. `now` is the monotonic time.
    pub fn follow(&mut self, view: &View, touched: &Touched, now: Duration) -> BTreeSet<Name> {
        let mut names = touched.services.clone();
        for node in &touched.nodes {
            let facts = view.facts_of(node);
            for network in self.places.follow(node, facts) {
                names.extend(self.in_network(network));
            }
            // What a node says of itself holds until the members know.
            names.extend(self.on_member(node));
        }
        self.place(view, names, now)
    }

    /// Follows how members stand; gives the services that are others now.
    ///
    /// `is_minority`: this node reaches no more than half of the members that it knows.
    pub fn stand(
        &mut self,
        view: &View,
        standings: impl IntoIterator<Item = (Name, Standing)>,
        is_minority: bool,
        now: Duration,
    ) -> BTreeSet<Name> {
        let is_cut_off = is_minority && !self.is_minority;
        self.is_minority = is_minority;
        let mut next: BTreeMap<Name, Standing> = standings.into_iter().collect();
        self.gone.retain(|name, _| next.get(name).is_some_and(|standing| standing.is_gone()));
        for (name, _) in next.iter().filter(|(_, standing)| standing.is_gone()) {
            let believed = self.standings.get(name).copied().unwrap_or(Standing::Alive);
            self.gone.entry(name.clone()).or_insert((now, believed));
        }
        let first = if is_cut_off { self.first_of_the_cut(now) } else { Duration::MAX };
        for (name, standing) in next.iter_mut().filter(|(_, standing)| standing.is_gone()) {
            match self.gone.get(name) {
                Some((since, before)) if *since >= first => *standing = *before,
                _ if is_minority => *standing = self.standings.get(name).copied().unwrap_or(Standing::Alive),
                _ => {}
            }
        }
        let former = std::mem::replace(&mut self.standings, next);
        let changed = former.keys().chain(self.standings.keys());
        let changed = changed.filter(|name| former.get(*name) != self.standings.get(*name));
        let concerned = |name| {
            self.on_member(name).into_iter().chain(self.of_files(name)).chain(self.contributed_by(name))
        };
        let mut names: BTreeSet<Name> = changed.clone().flat_map(concerned).collect();
        if changed.count() > 0 {
            names.extend(self.checked_by_any().cloned());
        }
        self.place(view, names, now)
    }

    /// When the first went of those whose going left a minority: from one to the next, and to now, it was at most [`APART`].
    fn first_of_the_cut(&self, now: Duration) -> Duration {
        let mut times: Vec<Duration> = self.gone.values().map(|(since, _)| *since).collect();
        times.sort_unstable_by(|one, other| other.cmp(one));
        times.into_iter().fold(now, |first, since| if first <= since + APART { since } else { first })
    }

    /// Lets deaths count that were put off; gives the services that are others now.
    pub fn elapse(&mut self, view: &View, now: Duration) -> BTreeSet<Name> {
        let over = self.shrunk.extract_if(.., |_, (until, _)| *until <= now).map(|(name, _)| name).collect();
        self.place(view, over, now)
    }

    /// Services with a backend in a network.
    fn in_network(&self, network: IpNet) -> Vec<Name> {
        let (first, last) = (number(network.network()), number(network.broadcast()));
        let within = self.addresses.range((first, Name::from(""))..);
        let within = within.take_while(|(address, _)| *address <= last);
        within.map(|(_, name)| name.clone()).collect()
    }

    /// Services with a backend on a member.
    fn on_member(&self, member: &Name) -> Vec<Name> {
        self.places.networks(member).iter().flat_map(|network| self.in_network(*network)).collect()
    }

    /// Services that are checked, with a backend that a member contributes: its checks count while it lives.
    fn contributed_by(&self, member: &Name) -> Vec<Name> {
        let has = |placed: &Placed| placed.backends.iter().any(|own| own.contributors.contains(member));
        let checked = self.services.iter().filter(|(_, placed)| placed.definition.checking.is_some());
        checked.filter(|(_, placed)| has(placed)).map(|(name, _)| name.clone()).collect()
    }

    /// Services with a backend that no member has, and which members check.
    fn checked_by_any(&self) -> impl Iterator<Item = &Name> {
        let has_any = |placed: &Placed| placed.backends.iter().any(|backend| backend.node.is_none());
        let checked = self
            .services
            .iter()
            .filter(move |(_, placed)| placed.definition.checking.is_some() && has_any(placed));
        checked.map(|(name, _)| name)
    }

    /// Services about which a member's files contradict others.
    fn of_files(&self, member: &Name) -> Vec<Name> {
        let own = self.claimed.range((member.clone(), Name::from(""))..);
        own.take_while(|(other, _)| other == member).map(|(_, name)| name.clone()).collect()
    }

    /// Notes whose files contradict each other about a service, of members that are gone, too.
    fn note_claims(&mut self, name: &Name, parts: Option<&Parts>) {
        let files = parts.and_then(|parts| conflict(parts, |_| true)).map(|conflict| conflict.files);
        let nodes: BTreeSet<Name> = files.into_iter().flatten().map(|(node, _)| node).collect();
        let former = match nodes.is_empty() {
            true => self.claimants.remove(name),
            false => self.claimants.insert(name.clone(), nodes.clone()),
        };
        for node in former.unwrap_or_default().difference(&nodes) {
            self.claimed.remove(&(node.clone(), name.clone()));
        }
        self.claimed.extend(nodes.into_iter().map(|node| (node, name.clone())));
    }

    fn place(&mut self, view: &View, names: BTreeSet<Name>, now: Duration) -> BTreeSet<Name> {
        let mut changed = BTreeSet::new();
        for name in names {
            let former = self.services.get(&name).cloned();
            self.note_claims(&name, view.service(&name));
            let placed = view.service(&name).and_then(|parts| self.placed(view, &name, parts, now));
            if former.as_deref() == placed.as_ref() {
                continue;
            }
            let addresses = |placed: Option<&Placed>| -> BTreeSet<u128> {
                let backends = placed.into_iter().flat_map(|own| &own.backends);
                backends.map(|backend| number(backend.socket.ip())).collect()
            };
            let (before, after) = (addresses(former.as_deref()), addresses(placed.as_ref()));
            for address in before.difference(&after) {
                self.addresses.remove(&(*address, name.clone()));
            }
            self.addresses.extend(after.difference(&before).map(|address| (*address, name.clone())));
            self.shrink(&name, former.as_deref(), placed.as_ref(), now);
            match placed {
                Some(placed) => self.services.insert(name.clone(), Arc::new(placed)),
                None => self.services.remove(&name),
            };
            changed.insert(name);
        }
        changed
    }

    fn placed(&self, view: &View, name: &Name, parts: &Parts, now: Duration) -> Option<Placed> {
        let (_, definition) = parts.definition()?;
        let age = definition.created.number();
        let records::Definition { vip, algorithm, checking, .. } = definition.clone();
        let clash = view.holder(&vip, name).cloned();
        let is_live = |node: &str| self.standings.get(node).is_none_or(|standing| !standing.is_gone());
        let conflict = conflict(parts, is_live);
        let window = self.shrunk.get(name).filter(|(until, _)| *until > now);
        let shrunk = window.zip(self.services.get(name));
        let shrunk = shrunk.map(|((_, size), former)| Shrunk { at_least: size.div_ceil(2), former });
        let where_is = |socket: std::net::SocketAddr| {
            let member = self.places.member(socket.ip());
            (member, member.map_or(Standing::Alive, |member| self.standing(view, member)))
        };
        let (mut backends, deaths) = service::backends(parts, where_is, shrunk);
        if checking.is_some() {
            let live: Vec<&Name> = self
                .standings
                .iter()
                .filter(|(_, standing)| !standing.is_gone())
                .map(|(name, _)| name)
                .collect();
            for backend in &mut backends {
                backend.is_checked_up = judged(parts, backend, &live);
            }
        }
        let definition = Definition { vip, algorithm, checking };
        Some(Placed { definition, age, clash, conflict, backends, deaths })
    }

    fn standing(&self, view: &View, member: &Name) -> Standing {
        let known = self.standings.get(member).copied().unwrap_or(Standing::Alive);
        let is_in_maintenance = || view.facts_of(member).is_some_and(|facts| facts.is_in_maintenance);
        if known == Standing::Alive && is_in_maintenance() { Standing::Maintenance } else { known }
    }

    /// Remembers the size of a ring that deaths have shrunk, until a second is over.
    fn shrink(&mut self, name: &Name, former: Option<&Placed>, placed: Option<&Placed>, now: Duration) {
        let Some(placed) = placed else {
            self.shrunk.remove(name);
            return;
        };
        let (before, after) = (former.map_or(0, Placed::in_rotation), placed.in_rotation());
        let has_down = placed.backends.iter().any(|backend| backend.rotation == Rotation::Down);
        if after < before && has_down {
            self.shrunk.entry(name.clone()).or_insert((now + WINDOW, before));
        }
    }
}

/// An address as a number, in the order of addresses: IPv4 as IPv4-mapped IPv6 (RFC 4291, section 2.5.5.2).
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests;
