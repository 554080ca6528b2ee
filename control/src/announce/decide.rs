//! From an announcement and what it stands for to its prefixes, and from all of them to what a peer or a table is to have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use serde::Serialize;

use super::{
    spec::{Announcement, Fallback, Look, What, When},
    table::Tables,
    takeover::Taken,
};
use crate::bgp::{Community, Route, Routes};

/// A service, as far as its VIP's announcement goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFact {
    pub name: String,
    pub vip: IpAddr,
    /// Whether a backend takes new flows; one that is down and kept does not count.
    pub has_backend: bool,
    /// Whether such a one is on this node.
    pub has_local: bool,
}

/// What this node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// By name.
    pub services: Vec<ServiceFact>,
    pub slices: BTreeSet<IpNet>,
    pub endpoints: BTreeSet<IpAddr>,
    /// Addresses on `lo`, of those that are to be there.
    pub loopback: BTreeSet<IpAddr>,
    /// What it has taken over in groups, by the announcement.
    pub taken: BTreeMap<Arc<str>, Vec<Taken>>,
}

impl Facts {
    /// What is served now and goes on being so: services that are about to lose their backends, or to go, have none.
    #[must_use]
    pub fn meet(&self, soon: &[ServiceFact]) -> Self {
        let later: BTreeMap<_, _> =
            soon.iter().map(|service| ((&service.name, service.vip), service)).collect();
        let both = |service: &ServiceFact| {
            let later = later.get(&(&service.name, service.vip))?;
            Some(ServiceFact {
                has_backend: service.has_backend && later.has_backend,
                has_local: service.has_local && later.has_local,
                ..service.clone()
            })
        };
        Self { services: self.services.iter().filter_map(both).collect(), ..self.clone() }
    }
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing yet.
    Unknown,
    Up,
    Down,
}

/// How an announcement is, beside what it stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// None without a check.
    pub check: Option<Health>,
    pub is_disabled: bool,
    /// The node is in maintenance.
    pub is_maintained: bool,
    /// Its group is: nothing of it is announced.
    pub is_group_maintained: bool,
}

impl Condition {
    /// The state that follows.
    pub fn life(self) -> Life {
        match self {
            Self { is_maintained: true, .. } | Self { is_group_maintained: true, .. } => Life::Maintenance,
            Self { is_disabled: true, .. } => Life::Disabled,
            Self { check: Some(Health::Unknown), .. } => Life::Init,
            Self { check: Some(Health::Down), .. } => Life::Down,
            Self { check: Some(Health::Up) | None, .. } => Life::Up,
        }
    }
}

/// An announcement's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Life {
    Init,
    Up,
    Down,
    Disabled,
    Maintenance,
}

impl Life {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Up => "up",
            Self::Down => "down",
            Self::Disabled => "disabled",
            Self::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One of an announcement's prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    pub prefix: IpNet,
    /// The member of the group that it is taken over from.
    pub owner: Option<Arc<str>>,
    /// None while it is not announced.
    pub route: Option<Arc<Route>>,
}

/// What becomes of an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub life: Life,
    /// In the order of the list, from its start.
    pub prefixes: Vec<Decided>,
    /// Addresses that are to be on `lo`; what needs them is announced once they are.
    pub loopback: BTreeSet<IpAddr>,
}

/// Decides what becomes of an announcement. Maintenance keeps routes until the sessions go: the caller ends these.
pub fn decide(announcement: &Announcement, facts: &Facts, condition: Condition) -> Decision {
    let life = condition.life();
    let shown = match life {
        Life::Maintenance if condition.is_disabled => Life::Disabled,
        Life::Maintenance => match condition.check {
            Some(Health::Unknown) => Life::Init,
            Some(Health::Down) => Life::Down,
            Some(Health::Up) | None => Life::Up,
        },
        other => other,
    };
    let first = first_med(announcement, shown).filter(|_| !condition.is_group_maintained);
    let look = look(announcement, shown);
    let mut list = listed(&announcement.what, facts);
    let start = usize::try_from(announcement.start).unwrap_or(0).checked_rem(list.len()).unwrap_or(0);
    list.rotate_left(start);
    let decided = |(place, (prefix, is_served)): (u32, (IpNet, bool))| {
        let med = first.filter(|_| is_served);
        let med = med.map(|med| med.saturating_add(announcement.med_step.saturating_mul(place)));
        Decided { prefix, owner: None, route: med.map(|med| Arc::new(route(announcement, &look, med))) }
    };
    let mut prefixes: Vec<Decided> = (0..).zip(list).map(decided).collect();
    if let Some(first) = first {
        let taken = facts.taken.get(&announcement.name).into_iter().flatten();
        prefixes.extend(taken.map(|Taken { prefix, owner, more }| Decided {
            prefix: *prefix,
            owner: Some(Arc::clone(owner)),
            route: Some(Arc::new(route(announcement, &look, first.saturating_add(*more)))),
        }));
    }
    let loopback = place(announcement, &mut prefixes, facts);
    Decision { life, prefixes, loopback }
}

/// The MED of the first prefix; none while nothing is announced. A group's prefixes are taken over instead of announced as worse.
fn first_med(announcement: &Announcement, life: Life) -> Option<u32> {
    let is_own = matches!(announcement.what, What::Own(..));
    match life {
        Life::Up | Life::Maintenance => Some(announcement.med),
        Life::Init => None,
        Life::Down | Life::Disabled if is_own => None,
        Life::Down => of(announcement.on_down),
        Life::Disabled => of(announcement.on_disabled),
    }
}

/// Which addresses have to be on `lo`; prefixes of those that are not yet wait.
fn place(announcement: &Announcement, prefixes: &mut [Decided], facts: &Facts) -> BTreeSet<IpAddr> {
    let mut loopback = BTreeSet::new();
    if announcement.loopback.is_none() {
        return loopback;
    }
    for Decided { prefix, route, .. } in prefixes {
        let is_host = prefix.prefix_len() == prefix.max_prefix_len();
        if is_host && route.is_some() {
            loopback.insert(prefix.addr());
            if !facts.loopback.contains(&prefix.addr()) {
                *route = None;
            }
        }
    }
    loopback
}

const fn of(fallback: Fallback) -> Option<u32> {
    match fallback {
        Fallback::Withdraw => None,
        Fallback::Med(med) => Some(med),
    }
}

fn look(announcement: &Announcement, life: Life) -> Look {
    let mut look = announcement.up.clone();
    match life {
        Life::Down => {
            if let Some(path) = &announcement.down_as_path {
                look.as_path = Arc::clone(path);
            }
        }
        Life::Disabled => {
            if let Some(path) = &announcement.disabled_as_path {
                look.as_path = Arc::clone(path);
            }
            if let Some(communities) = &announcement.disabled_communities {
                look.communities.clone_from(communities);
            }
        }
        Life::Init | Life::Up | Life::Maintenance => {}
    }
    look
}

fn route(announcement: &Announcement, look: &Look, med: u32) -> Route {
    Route {
        next_hop: announcement.next_hop,
        med,
        local_preference: announcement.local_preference,
        as_path: Arc::clone(&look.as_path),
        communities: look.communities.clone(),
        large_communities: announcement.large_communities.clone(),
        extended_communities: announcement.extended_communities.clone(),
    }
}

/// The list of prefixes, each with whether it is served now: those that are not keep their positions.
fn listed(what: &What, facts: &Facts) -> Vec<(IpNet, bool)> {
    match what {
        What::Prefixes(prefixes) | What::Own(prefixes, _) => {
            prefixes.iter().map(|prefix| (*prefix, true)).collect()
        }
        What::Slices => facts.slices.iter().map(|slice| (*slice, true)).collect(),
        What::Endpoints => facts.endpoints.iter().map(|address| (IpNet::from(*address), true)).collect(),
        What::Services(names, when) => {
            let all = || facts.services.iter().collect::<Vec<_>>();
            let named = |name: &String| facts.services.iter().find(|service| service.name == *name);
            let services = if names.is_empty() { all() } else { names.iter().filter_map(named).collect() };
            vips(&services, *when)
        }
    }
}

/// Services may share an address: it is served while one of them is.
fn vips(services: &[&ServiceFact], when: When) -> Vec<(IpNet, bool)> {
    let mut list: Vec<(IpNet, bool)> = Vec::new();
    let mut places: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for service in services {
        let is_served = match when {
            When::Local => service.has_local,
            When::Any => service.has_backend,
            When::Always => true,
        };
        let place = *places.entry(service.vip).or_insert_with(|| {
            list.push((IpNet::from(service.vip), false));
            list.len() - 1
        });
        list[place].1 |= is_served;
    }
    list
}

/// What a peer is to have; of two announcements of one prefix the one of the lower MED.
pub fn routes<'d>(
    decisions: impl IntoIterator<Item = (&'d Announcement, &'d Decision)>,
    peer: IpAddr,
) -> Routes {
    let mut routes = Routes::new();
    for (announcement, decision) in decisions {
        let is_meant = announcement.peers.is_empty() || announcement.peers.contains(&peer);
        if !announcement.via.bgp || !is_meant {
            continue;
        }
        for Decided { prefix, route, .. } in &decision.prefixes {
            let Some(route) = route else { continue };
            if routes.get(prefix).is_none_or(|other| route.med < other.med) {
                routes.insert(*prefix, Arc::clone(route));
            }
        }
    }
    routes
}

/// The same routes while they are about to go (RFC 8326).
pub fn graceful(routes: &Routes) -> Routes {
    let shut_down = |route: &Arc<Route>| {
        let mut route = Route::clone(route);
        route.communities.insert(Community::GRACEFUL_SHUTDOWN);
        route.local_preference = 0;
        Arc::new(route)
    };
    routes.iter().map(|(prefix, route)| (*prefix, shut_down(route))).collect()
}

/// What the kernel's tables are to have, with their metrics: the MEDs.
pub fn table<'d>(decisions: impl IntoIterator<Item = (&'d Announcement, &'d Decision)>) -> Tables {
    let mut wanted = Tables::new();
    for (announcement, decision) in decisions {
        let Some(table) = announcement.via.table else { continue };
        for Decided { prefix, route, .. } in &decision.prefixes {
            let Some(route) = route else { continue };
            let metric = wanted.entry((table, *prefix)).or_insert(route.med);
            *metric = route.med.min(*metric);
        }
    }
    wanted
}
