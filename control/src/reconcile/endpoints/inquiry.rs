//! Whether the backends of this node's slices are there, asked actively where the kernel does not tell.
//!
//! A backend that only listens is never seen by itself: after a restart nothing in the kernel's tables shows that it is
//! there again. So it is asked for (ARP) when a port joins or changes, since that may be the one, and now and then while
//! it is not known.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use super::{ObservedEndpoints, View, devices};
use crate::{
    observed::{Link, NeighbourState},
    reconcile::fan_of_endpoint,
};

/// How long after a question an address that is not known is asked for again. The kernel itself asks three times, a
/// second apart.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long after a question an address is not asked for again, whatever joins.
const PAUSE: Duration = Duration::from_millis(200);

/// An address to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The device to ask on: the fan's bridge, or that of a routed endpoint.
    pub device: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// The kernel's entry is about what was there before: it has to be forgotten first. Otherwise the kernel asks the
    /// MAC address of before, alone, and gives up after eight seconds.
    pub anew: bool,
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Whom to ask for now.
    pub ask: Vec<Question>,
    /// Backends that are not there: without device or carrier, or silent when asked. One that was not asked yet is not
    /// among them.
    pub down: BTreeSet<Ipv4Addr>,
    /// When to look again, if nothing happens before.
    pub next: Option<Duration>,
}

/// What is remembered from look to look.
#[derive(Clone, Debug, Default)]
pub struct Inquiry {
    ports: BTreeMap<u32, Port>,
    backends: BTreeMap<Ipv4Addr, Known>,
}

/// A device that endpoints may be behind, by everything that changes when another one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Port {
    side: u32,
    mac: [u8; 6],
    carrier: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    device: Option<u32>,
    asked: Option<Duration>,
    /// Something came that may be it, and it has not been asked for since.
    has_news: bool,
    down: bool,
}

impl Known {
    fn note(&mut self, state: State, device: Option<u32>) {
        match state {
            State::There => self.down = false,
            State::Down => self.down = true,
            State::Unknown => {}
        }
        self.device = device.or(self.device);
    }

    /// When it is to be asked for again; at once where it never was.
    fn due(&self, state: State) -> Option<Duration> {
        let pause = match state {
            _ if self.has_news => PAUSE,
            State::There => return None,
            State::Down | State::Unknown => INTERVAL,
        };
        self.asked.map(|asked| asked + pause)
    }
}

/// What the kernel says of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is behind its device.
    There,
    /// It is not.
    Down,
    /// Nothing is known but what was known before.
    Unknown,
}

impl Inquiry {
    /// Looks at `backends`, of which those in this node's slices matter.
    /// `now` counts from any moment that stays the same.
    pub fn look(
        &mut self,
        observed: &ObservedEndpoints<'_>,
        backends: &BTreeSet<Ipv4Addr>,
        now: Duration,
    ) -> Findings {
        let view = View::new(observed);
        let devices = devices(observed);
        let ports = ports(&view);
        let changed: BTreeSet<u32> = ports
            .iter()
            .filter(|(index, port)| self.ports.get(index) != Some(port))
            .map(|(&it, _)| it)
            .collect();
        let moved: BTreeSet<u32> = changed.iter().map(|index| ports[index].side).collect();
        self.ports = ports;
        self.backends.retain(|address, _| backends.contains(address));
        let mut findings = Findings::default();
        for &address in backends.iter().filter(|&&address| fan_of_endpoint(view.fans, address).is_some()) {
            let Some(side) = view.side(address) else { continue };
            let known = self.backends.entry(address).or_default();
            let device = devices.get(&address).copied();
            let is_other = known.device.is_some() && device.is_some_and(|device| changed.contains(&device));
            let state = view.state(address, side, device, known, is_other);
            known.note(state, device);
            known.has_news |= if state == State::There { is_other } else { moved.contains(&side) };
            let due = known.due(state);
            let is_due = (known.has_news || state != State::There) && due.is_none_or(|due| now >= due);
            if is_due {
                let is_stale = known.has_news || view.neighbour(side, address) == Some(NeighbourState::Known);
                let anew = is_stale && !view.is_static(side, address);
                findings.ask.push(Question { device: side, address, anew });
                (known.asked, known.has_news) = (Some(now), false);
            }
            if known.down {
                findings.down.insert(address);
            }
            findings.next = [findings.next, known.due(state)].into_iter().flatten().min();
        }
        findings
    }
}

/// The ports of the fans' bridges and the devices of routed endpoints.
fn ports(view: &View<'_>) -> BTreeMap<u32, Port> {
    let is_bridge = |index: u32| view.fans.iter().any(|fan| fan.in_use() && fan.bridge == index);
    let side = |link: &Link| match link.master {
        Some(bridge) if is_bridge(bridge) => Some(bridge),
        _ => view.wired.iter().any(|wired| wired.index == link.index).then_some(link.index),
    };
    let port = |link: &&Link| {
        let port = Port { side: side(link)?, mac: link.mac, carrier: link.carrier };
        Some((link.index, port))
    };
    view.links.values().filter_map(port).collect()
}

impl View<'_> {
    /// The device on which an address is asked for.
    fn side(&self, address: Ipv4Addr) -> Option<u32> {
        let wired = self.wired.iter().find(|wired| wired.record.addresses.contains(&address));
        let bridge = || fan_of_endpoint(self.fans, address).map(|fan| fan.bridge);
        wired.map(|wired| wired.master.unwrap_or(wired.index)).or_else(bridge)
    }

    fn neighbour(&self, side: u32, address: Ipv4Addr) -> Option<NeighbourState> {
        self.neighbours.get(&(side, address)).map(|neighbour| neighbour.state)
    }

    fn is_static(&self, side: u32, address: Ipv4Addr) -> bool {
        self.neighbours.get(&(side, address)).is_some_and(|neighbour| neighbour.is_static)
    }

    /// `is_other` tells that the device is not what it was at the last look. What was down is so until it answers: neither
    /// a question under way clears it, nor an entry of the time before its device changed.
    fn state(
        &self,
        address: Ipv4Addr,
        side: u32,
        device: Option<u32>,
        known: &Known,
        is_other: bool,
    ) -> State {
        let link = device.and_then(|device| self.links.get(&device));
        match (link, self.neighbour(side, address)) {
            (Some(link), _) if !link.carrier => State::Down,
            (_, Some(NeighbourState::Failed)) => State::Down,
            (Some(_), Some(NeighbourState::Known)) if !known.down || !is_other => State::There,
            (Some(_), _) if !known.down => State::There,
            (None, _) if known.device.is_some() || self.is_held(address) => State::Down,
            _ => State::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
