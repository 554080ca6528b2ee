//! The routes that matter, kept as the kernel changes them: a host beside a router has a million others, and reading
//! them all takes seconds.
//!
//! The kernel tells of a change before it answers whoever made it: what is read here is never older than an answer
//! that came before. It does not tell of routes that go with their device or source address; then ours are asked for
//! alone, which the kernel does without writing the others down. All are read at first, when changes were lost, and now
//! and then; the longer that takes, the more rarely.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    net::Ipv4Addr,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use control::{
    model::ROUTE_PROTOCOL,
    observed::{Address, Link, Route},
};
use ipnet::Ipv4Net;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkFlags, LinkMessage},
    route::RouteMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;

use super::{
    messages::{Message, messages, unreadable},
    route_filter::{self, Interest, MAIN, NETWORKS, Others},
    route_queries::{Found, RouteQueries, hops, read},
    values::FromMessage as _,
    watch::{RECEIVE_BUFFER, groups},
};

/// `NLM_F_REPLACE` of a notice: what had its place is gone.
const REPLACED: u16 = 0x100;
/// Destinations that are asked for one by one; more are found by reading all routes.
const LOOKUPS: usize = 1000;

/// How often ours, and all, are read though nothing was told: at most this part of the time goes into it.
const OWN: Rhythm = Rhythm { rest: Duration::from_secs(5), share: 500 };
const ALL: Rhythm = Rhythm { rest: Duration::from_secs(60), share: 1000 };
/// Rest between two readings of all routes because changes were lost.
const LOST: Rhythm = Rhythm { rest: Duration::from_millis(500), share: 100 };

struct Rhythm {
    rest: Duration,
    share: u32,
}

/// The last reading of a list.
#[derive(Clone, Copy, Debug)]
struct Reading {
    begun: Instant,
    took: Duration,
}

impl Reading {
    fn since(begun: Instant) -> Self {
        Self { begun, took: begun.elapsed() }
    }

    fn is_due(self, now: Instant, rhythm: &Rhythm) -> bool {
        now >= self.begun + rhythm.rest.max(self.took * rhythm.share)
    }
}

/// IPv4 routes of the main table of the opening thread's network namespace.
#[derive(Debug)]
pub(super) struct RouteTable {
    changes: Socket,
    queries: RouteQueries,
    interest: Interest,
    /// What the kernel's filter lets through.
    networks: BTreeSet<Ipv4Net>,
    routes: HashMap<Ipv4Net, Vec<Route>>,
    /// Devices of routes with several next hops.
    hops: HashSet<u32>,
    /// `None` before the first.
    all: Option<Reading>,
    own: Option<Reading>,
    /// Some changes are not known.
    has_lost: bool,
    /// Ours may have changed without a notice.
    is_own_open: bool,
}

impl RouteTable {
    const GROUPS: [MulticastGroup; 3] =
        [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route];

    /// Begins to follow changes; nothing is read yet.
    pub(super) fn open() -> io::Result<Self> {
        let mut changes = Socket::new(NETLINK_ROUTE)?;
        changes.set_non_blocking(true)?;
        // Without the capability the usual size must do: what does not fit is read anew.
        let _kept = setsockopt(&changes.as_fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER);
        route_filter::attach(&changes, &BTreeSet::new(), Others::Losses)?;
        changes.bind(&SocketAddr::new(0, groups(&Self::GROUPS)))?;
        Ok(Self {
            changes,
            queries: RouteQueries::open()?,
            interest: Interest::default(),
            networks: BTreeSet::new(),
            routes: HashMap::new(),
            hops: HashSet::new(),
            all: None,
            own: None,
            has_lost: false,
            is_own_open: false,
        })
    }

    /// Our routes.
    pub(super) fn own(&mut self) -> io::Result<Vec<Route>> {
        self.follow()?;
        if self.all.is_none() && self.own.is_none() {
            self.read_own()?;
        }
        Ok(self.each().filter(|route| route.protocol == ROUTE_PROTOCOL).cloned().collect())
    }

    /// Our routes, default routes, and those that overlap these networks.
    pub(super) fn near(&mut self, networks: &[Ipv4Net]) -> io::Result<Vec<Route>> {
        let fresh: Vec<Ipv4Net> =
            networks.iter().copied().filter(|network| !self.interest.near.contains(network)).collect();
        if !fresh.is_empty() || self.all.is_none() {
            // What was asked for long ago is asked for again where it still matters.
            if self.interest.near.len() + fresh.len() > NETWORKS {
                self.interest.near = networks.to_vec();
            } else {
                self.interest.near.extend(fresh);
            }
            self.filter()?;
            self.read_all()?;
        }
        self.follow()?;
        let wanted = Interest { near: networks.to_vec(), exact: BTreeSet::new() };
        Ok(self.each().filter(|route| wanted.has(route.destination, route.protocol)).cloned().collect())
    }

    /// Our routes and all to exactly these destinations, which alone are followed from now on.
    pub(super) fn only_to(&mut self, destinations: &BTreeSet<Ipv4Net>) -> io::Result<Vec<Route>> {
        let fresh: Vec<Ipv4Net> = destinations.difference(&self.interest.exact).copied().collect();
        if destinations.len() < self.interest.exact.len() + fresh.len() {
            self.interest.exact.retain(|destination| destinations.contains(destination));
            let interest = &self.interest;
            self.routes.retain(|&destination, routes| {
                routes.retain(|route| interest.has(destination, route.protocol));
                !routes.is_empty()
            });
        }
        self.follow_more(&fresh)?;
        let wanted = Interest { near: Vec::new(), exact: destinations.clone() };
        Ok(self.each().filter(|route| wanted.has(route.destination, route.protocol)).cloned().collect())
    }

    /// All routes to exactly these destinations, which are followed from now on, too.
    pub(super) fn also_to(&mut self, destinations: &BTreeSet<Ipv4Net>) -> io::Result<Vec<Route>> {
        let fresh: Vec<Ipv4Net> = destinations.difference(&self.interest.exact).copied().collect();
        self.follow_more(&fresh)?;
        let there = destinations.iter().filter_map(|destination| self.routes.get(destination));
        Ok(there.flatten().cloned().collect())
    }

    fn follow_more(&mut self, fresh: &[Ipv4Net]) -> io::Result<()> {
        self.interest.exact.extend(fresh);
        if fresh.iter().any(|fresh| !self.networks.iter().any(|network| network.contains(fresh))) {
            self.filter()?;
        }
        self.follow()?;
        if self.all.is_none() { self.read_all() } else { self.find(fresh) }
    }

    fn each(&self) -> impl Iterator<Item = &Route> {
        self.routes.values().flatten()
    }

    fn filter(&mut self) -> io::Result<()> {
        self.networks = self.interest.networks();
        route_filter::attach(&self.changes, &self.networks, Others::Losses)
    }

    /// Takes in what has changed, and reads anew what may be wrong.
    fn follow(&mut self) -> io::Result<()> {
        self.take_changes()?;
        let now = Instant::now();
        if let Some(all) = self.all
            && all.is_due(now, if self.has_lost { &LOST } else { &ALL })
        {
            return self.read_all();
        }
        if let Some(own) = self.own
            && (self.is_own_open || self.has_lost || own.is_due(now, &OWN))
        {
            return self.read_own();
        }
        Ok(())
    }

    fn take_changes(&mut self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(1 << 16);
        loop {
            buffer.clear();
            match self.changes.recv(&mut buffer, libc::MSG_TRUNC) {
                Ok(length) if length > buffer.len() => self.has_lost = true,
                Ok(_) => {
                    for message in messages(&buffer) {
                        let taken = message.map_err(unreadable).and_then(|message| self.take(message));
                        self.has_lost |= taken.is_err();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.has_lost = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes one change in.
    fn take(&mut self, message: Message<'_>) -> io::Result<()> {
        match read(message)? {
            Some(RouteNetlinkMessage::NewRoute(route)) => self.came(&route, message.is(REPLACED)),
            Some(RouteNetlinkMessage::DelRoute(route)) => self.went(&route),
            Some(RouteNetlinkMessage::DelLink(link)) => self.lost_device(&link),
            Some(RouteNetlinkMessage::NewLink(link)) if !link.header.flags.contains(LinkFlags::Up) => {
                self.lost_device(&link);
            }
            Some(RouteNetlinkMessage::DelAddress(address)) => {
                if let Some(address) = Address::from_message(&address) {
                    self.lost_address(address.address);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn came(&mut self, message: &RouteMessage, has_replaced: bool) {
        let Some(route) = self.relevant(message) else { return };
        self.hops.extend(hops(message));
        let there = self.routes.entry(route.destination).or_default();
        if has_replaced && let Some(old) = there.iter_mut().find(|old| old.metric == route.metric) {
            *old = route;
        } else if !there.contains(&route) {
            there.push(route);
        }
    }

    fn went(&mut self, message: &RouteMessage) {
        let Some(route) = self.relevant(message) else { return };
        let there = self.routes.entry(route.destination).or_default();
        match there.iter().position(|held| *held == route) {
            Some(place) => drop(there.remove(place)),
            // Told in other words than when it came.
            None => self.has_lost |= !there.is_empty(),
        }
        if there.is_empty() {
            self.routes.remove(&route.destination);
        }
    }

    /// The routes of a device that is down are gone, but for those that have further next hops.
    fn lost_device(&mut self, message: &LinkMessage) {
        let Some(link) = Link::from_message(message) else { return };
        self.has_lost |= self.hops.contains(&link.index);
        for routes in self.routes.values_mut() {
            routes.retain(|route| route.multipath || route.oif != Some(link.index));
        }
    }

    /// Routes with a source address that is no more are gone, unless another device has it too.
    fn lost_address(&mut self, address: Ipv4Addr) {
        for route in self.routes.values().flatten().filter(|route| route.prefsrc == Some(address)) {
            if route.protocol == ROUTE_PROTOCOL {
                self.is_own_open = true;
            } else {
                self.has_lost = true;
            }
        }
    }

    /// A message's route, if it matters.
    fn relevant(&self, message: &RouteMessage) -> Option<Route> {
        let route = Route::from_message(message)?;
        let matters =
            u32::from(message.header.table) == MAIN && self.interest.has(route.destination, route.protocol);
        matters.then_some(route)
    }

    fn read_all(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        self.take_changes()?;
        let interest = &self.interest;
        let (routes, hops) =
            self.queries.list(0, |destination, protocol| interest.has(destination, protocol))?;
        self.routes.clear();
        self.hold(routes);
        self.hops = hops;
        self.all = Some(Reading::since(begun));
        self.own = self.all;
        (self.has_lost, self.is_own_open) = (false, false);
        tracing::debug!(took = ?begun.elapsed(), "all routes read");
        // What came while they were read.
        self.take_changes()
    }

    fn read_own(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        let (routes, _) = self.queries.list(ROUTE_PROTOCOL, |_, protocol| protocol == ROUTE_PROTOCOL)?;
        for held in self.routes.values_mut() {
            held.retain(|route| route.protocol != ROUTE_PROTOCOL);
        }
        self.routes.retain(|_, held| !held.is_empty());
        self.hold(routes);
        self.own = Some(Reading::since(begun));
        self.is_own_open = false;
        self.take_changes()
    }

    fn hold(&mut self, routes: Vec<Route>) {
        for route in routes {
            self.routes.entry(route.destination).or_default().push(route);
        }
    }

    /// Finds the routes to destinations that were not followed before.
    fn find(&mut self, fresh: &[Ipv4Net]) -> io::Result<()> {
        let is_host = |network: &Ipv4Net| network.prefix_len() == 32;
        if fresh.len() > LOOKUPS || !fresh.iter().all(is_host) {
            return self.read_all();
        }
        for &destination in fresh {
            match self.queries.look_up(destination)? {
                Found::Route(route) => {
                    let there = self.routes.entry(destination).or_default();
                    if !there.contains(&route) {
                        there.push(route);
                    }
                }
                Found::Nothing => {}
                // The kernel would have to be asked for another table: what is there is found with all others.
                Found::Hidden => self.has_lost = true,
            }
        }
        if self.has_lost { self.follow() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
