//! From a fan as asked for to the fan on this node: a pure function of what the host has.

use std::net::Ipv4Addr;

use dataplane_common::fan::{self, FanMap};
use ipnet::Ipv4Net;

use super::ResolveError;
use crate::{
    model::{
        Fan, FanSpec, HELPER, Origin, ROUTE_PROTOCOL, UnderlaySpec, Uplink, bridge_name, check_bridge_name,
    },
    observed::{Address, Link, ObservedHost, Route},
};

/// The smallest MTU that an uplink may have: an inner packet of 576 bytes must fit (RFC 791).
const SMALLEST_INNER_MTU: u32 = 576;

/// What this host has, as far as fans care.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Interfaces.
    pub links: Vec<Link>,
    /// IPv4 addresses.
    pub addresses: Vec<Address>,
    /// IPv4 routes of the main table.
    pub routes: Vec<Route>,
    /// The agent's `uplink` setting; empty: found by address and default route.
    pub uplinks: Vec<String>,
    /// Interfaces of ours: bridges of fans and the helper device. Their addresses and routes are no obstacle.
    pub own: Vec<u32>,
    /// Overlays of this node's fans.
    pub overlays: Vec<Ipv4Net>,
    /// By which address the fans that are up know this host: it stays the one as long as it is there.
    pub identities: Vec<(Ipv4Net, Ipv4Addr)>,
}

impl Host {
    /// What was observed, with the agent's `uplink` setting.
    pub fn of(observed: &ObservedHost, uplinks: &[String]) -> Self {
        let helper = observed.links.iter().filter(|link| HELPER.contains(&link.name.as_str()));
        let bridges = observed.standing.iter().filter_map(|standing| standing.bridge.as_ref());
        Self {
            links: observed.links.clone(),
            addresses: observed.addresses.clone(),
            routes: observed.routes.clone(),
            uplinks: uplinks.to_vec(),
            own: helper.chain(bridges).map(|link| link.index).collect(),
            overlays: observed.standing.iter().map(|standing| standing.mark.overlay()).collect(),
            identities: observed.current().map(|mark| (mark.overlay(), mark.address)).collect(),
        }
    }

    /// Resolves `spec` on this host.
    ///
    /// # Errors
    /// [`ResolveError`] says what contradicts what and what would be right.
    pub fn resolve(&self, spec: &FanSpec, origin: Origin) -> Result<Fan, ResolveError> {
        let holder = self.holder(spec)?;
        let underlay = holder.underlay;
        let map = FanMap::new(parts(spec.overlay), parts(underlay)).map_err(|error| ResolveError::NoFan {
            overlay: spec.overlay,
            underlay,
            error,
        })?;
        self.check_overlay(spec, underlay)?;
        let address = holder.address.address;
        let host_bits = address.to_bits() & !fan::mask(underlay.prefix_len());
        if host_bits == 0 || host_bits == !fan::mask(underlay.prefix_len()) {
            return Err(ResolveError::NoHostAddress { address, underlay });
        }
        let slice_base =
            map.slice_of(address.to_bits()).ok_or(ResolveError::NoHostAddress { address, underlay })?;
        let slice = Ipv4Net::new_assert(slice_base.into(), map.slice_len());
        check_reserve(spec, slice)?;
        let uplinks = self.uplinks(&holder)?;
        let Some((uplink, more_uplinks)) = uplinks.split_first() else {
            return Err(ResolveError::NoDefaultRoute);
        };
        let bridge = self.bridge(spec, slice)?;
        Ok(Fan {
            spec: spec.clone(),
            map,
            underlay,
            address,
            uplink: uplink.clone(),
            more_uplinks: more_uplinks.to_vec(),
            slice,
            gateway: (slice_base | 1).into(),
            bridge,
            mtu: inner_mtu(spec, &uplinks)?,
            origin,
        })
    }

    /// Devices by which tunnel packets may come in that a fan does not take them from, where nobody said which to use:
    /// others with an address in the underlay, and all of them where the host's address is on the loopback device.
    pub fn unwatched(&self, fan: &Fan) -> Vec<String> {
        if !self.uplinks.is_empty() {
            return Vec::new();
        }
        let on = |address: &Address| self.link_numbered(address.index).filter(|link| !link.loopback);
        let mut holders = self.addresses.iter().filter(|address| address.address == fan.address);
        let is_anywhere = holders.all(|address| on(address).is_none());
        let within = self.addresses.iter().filter(|it| is_anywhere || fan.underlay.contains(&it.address));
        let mut links: Vec<&Link> = within.filter_map(on).collect();
        links.sort_unstable_by_key(|link| link.index);
        links.dedup_by_key(|link| link.index);
        let is_other = |link: &&Link| {
            let is_taken = self.own.contains(&link.index) || fan.uplinks().any(|it| it.index == link.index);
            link.up && !link.is_bridge() && !is_taken
        };
        links.into_iter().filter(is_other).map(|link| link.name.clone()).collect()
    }

    /// The address that makes this host a member of the underlay.
    fn holder(&self, spec: &FanSpec) -> Result<Holder<'_>, ResolveError> {
        let own = self.identities.iter().find(|(overlay, _)| *overlay == spec.overlay).map(|&(_, own)| own);
        match &spec.underlay {
            UnderlaySpec::Default { len } => self.on_device(self.default_device()?, *len, own),
            UnderlaySpec::Device { name, len } => {
                let link = self.link_named(name)?;
                self.on_device(link, *len, own)
            }
            UnderlaySpec::Network(network) if *network == network.trunc() => self.in_network(*network, own),
            UnderlaySpec::Network(host) | UnderlaySpec::Host(host) => self.is_address(*host),
        }
    }

    fn link_named(&self, name: &str) -> Result<&Link, ResolveError> {
        let link = self.links.iter().find(|link| link.name == name);
        link.ok_or_else(|| ResolveError::NoDevice { name: name.to_owned() })
    }

    fn link_numbered(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The configured uplink, else the interface of the best default route.
    fn default_device(&self) -> Result<&Link, ResolveError> {
        if let Some(name) = self.uplinks.first() {
            return self.link_named(name);
        }
        let defaults =
            self.routes.iter().filter(|route| route.destination.prefix_len() == 0 && !route.rejects);
        let best = defaults.min_by_key(|route| route.metric).and_then(|route| route.oif);
        best.and_then(|index| self.link_numbered(index)).ok_or(ResolveError::NoDefaultRoute)
    }

    fn on_device<'h>(
        &'h self,
        link: &'h Link,
        len: Option<u8>,
        own: Option<Ipv4Addr>,
    ) -> Result<Holder<'h>, ResolveError> {
        let device = || link.name.clone();
        if link.loopback || self.own.contains(&link.index) {
            return Err(ResolveError::NoUplink { device: device() });
        }
        let all: Vec<_> = self.addresses.iter().filter(|address| address.index == link.index).collect();
        if all.is_empty() {
            return Err(ResolveError::NoAddress { device: device() });
        }
        if let Some(address) = all.iter().find(|address| Some(address.address) == own) {
            return Ok(Holder::new(Some(link), address, len.unwrap_or(address.prefix_len)));
        }
        // A /32 beside a real network is a virtual address; alone it is the host's, on a network of unknown size.
        let wide: Vec<_> = all.iter().copied().filter(|address| address.prefix_len < 32).collect();
        let candidates = if wide.is_empty() { all } else { wide };
        let holders: Vec<_> = candidates
            .into_iter()
            .map(|address| Holder::new(Some(link), address, len.unwrap_or(address.prefix_len)))
            .collect();
        let Some(&first) = holders.first() else { return Err(ResolveError::NoAddress { device: device() }) };
        if first.underlay.prefix_len() == 32 {
            return Err(ResolveError::SingleAddress { device: device(), address: first.address.address });
        }
        if holders.iter().any(|other| other.underlay != first.underlay) {
            let choices = holders.iter().map(|holder| holder.operand()).collect();
            return Err(ResolveError::SeveralNetworks { device: device(), choices });
        }
        // Several addresses of one network: the kernel lists the primary, its own choice of source, first.
        Ok(first)
    }

    fn in_network(&self, network: Ipv4Net, own: Option<Ipv4Addr>) -> Result<Holder<'_>, ResolveError> {
        let inside: Vec<_> = self
            .addresses
            .iter()
            .filter(|address| network.contains(&address.address))
            .filter_map(|address| Some((self.candidate(address.index)?, address)))
            .collect();
        if let Some(&(link, address)) = inside.iter().find(|(_, address)| Some(address.address) == own) {
            return Ok(Holder::new(Some(link), address, network.prefix_len()));
        }
        let usable = |&&(_, address): &&(&Link, &Address)| address.prefix_len < 32;
        let Some(chosen) = inside.iter().find(usable).or(inside.first()) else {
            return Err(ResolveError::NotInUnderlay { underlay: network, addresses: self.own_addresses() });
        };
        let elsewhere = |&&(link, address): &&(&Link, &Address)| {
            link.index != chosen.0.index && (address.prefix_len < 32 || chosen.1.prefix_len == 32)
        };
        if inside.iter().any(|pair| elsewhere(&pair)) {
            return self.preferred(network, &inside);
        }
        Ok(Holder::new(Some(chosen.0), chosen.1, network.prefix_len()))
    }

    /// Of several interfaces in the underlay the one that holds the default route.
    fn preferred<'h>(
        &'h self,
        network: Ipv4Net,
        inside: &[(&'h Link, &'h Address)],
    ) -> Result<Holder<'h>, ResolveError> {
        let default = self.default_device().ok().map(|link| link.index);
        match inside.iter().find(|(link, _)| Some(link.index) == default) {
            Some(&(link, address)) => Ok(Holder::new(Some(link), address, network.prefix_len())),
            None => {
                let operand = |&(_, address): &(&Link, &Address)| {
                    Ipv4Net::new_assert(address.address, network.prefix_len())
                };
                Err(ResolveError::SeveralAddresses {
                    underlay: network,
                    choices: inside.iter().map(operand).collect(),
                })
            }
        }
    }

    /// An interface that may be an uplink.
    fn candidate(&self, index: u32) -> Option<&Link> {
        let link = self.link_numbered(index)?;
        let chosen = self.uplinks.is_empty() || self.uplinks.contains(&link.name);
        (chosen && !link.loopback && !self.own.contains(&index)).then_some(link)
    }

    fn is_address(&self, host: Ipv4Net) -> Result<Holder<'_>, ResolveError> {
        let found = self.addresses.iter().find(|address| address.address == host.addr());
        let Some(address) = found else {
            return Err(ResolveError::HostBits { given: host, addresses: self.own_addresses() });
        };
        // A host address on the loopback interface (routed by BGP, say) is reached over any interface.
        let link = self.link_numbered(address.index).filter(|link| !link.loopback);
        Ok(Holder::new(link, address, host.prefix_len()))
    }

    /// This host's addresses as underlay operands, for error messages.
    fn own_addresses(&self) -> Vec<Ipv4Net> {
        let usable = self.addresses.iter().filter(|address| self.candidate(address.index).is_some());
        usable.map(|address| Ipv4Net::new_assert(address.address, address.prefix_len)).collect()
    }

    /// The interfaces that carry tunnel packets, the one with the address first.
    fn uplinks(&self, holder: &Holder<'_>) -> Result<Vec<Uplink>, ResolveError> {
        let first = match holder.link {
            Some(link) => link,
            None => self.default_device()?,
        };
        let mut links = vec![first];
        for name in &self.uplinks {
            let link = self.link_named(name)?;
            if link.index != first.index {
                links.push(link);
            }
        }
        if let Some(bare) = links.iter().find(|link| link.headerless) {
            return Err(ResolveError::NoEthernet { device: bare.name.clone() });
        }
        let on_first = holder.link.is_some();
        let uplink = |link: &Link| {
            let network = if on_first && link.index == first.index {
                holder.address.network()
            } else {
                let own = self.addresses.iter().find(|address| address.index == link.index);
                own.unwrap_or(holder.address).network()
            };
            Uplink { index: link.index, name: link.name.clone(), mtu: link.mtu, network }
        };
        Ok(links.into_iter().map(uplink).collect())
    }

    fn check_overlay(&self, spec: &FanSpec, underlay: Ipv4Net) -> Result<(), ResolveError> {
        let overlay = spec.overlay;
        if overlaps(overlay, underlay) {
            return Err(ResolveError::OverlayIsUnderlay { overlay, underlay });
        }
        if let Some(&other) =
            self.overlays.iter().find(|&&other| other != overlay && overlaps(overlay, other))
        {
            return Err(ResolveError::OtherFan { overlay, other });
        }
        // A fan that is up is not given up for what somebody added meanwhile.
        if self.overlays.contains(&overlay) {
            return Ok(());
        }
        let foreign = |index: u32| {
            let bridge = spec.bridge.as_deref();
            !self.own.contains(&index)
                && self.link_numbered(index).is_none_or(|link| Some(link.name.as_str()) != bridge)
        };
        let name = |index: u32| self.link_numbered(index).map_or("?", |link| link.name.as_str()).to_owned();
        let taken = |address: &&Address| foreign(address.index) && overlaps(overlay, address.network());
        if let Some(address) = self.addresses.iter().find(taken) {
            let network = Ipv4Net::new_assert(address.address, address.prefix_len);
            return Err(ResolveError::OverlayInUse { overlay, network, device: name(address.index) });
        }
        let leads_elsewhere = |route: &&Route| {
            route.protocol != ROUTE_PROTOCOL
                && overlay.contains(&route.destination)
                && route.oif.is_none_or(foreign)
        };
        if let Some(route) = self.routes.iter().find(leads_elsewhere) {
            let device = route.oif.map_or_else(|| "nowhere".to_owned(), name);
            return Err(ResolveError::OverlayRouted { overlay, network: route.destination, device });
        }
        Ok(())
    }

    fn bridge(&self, spec: &FanSpec, slice: Ipv4Net) -> Result<String, ResolveError> {
        let name = spec.bridge.clone().unwrap_or_else(|| bridge_name(slice));
        if let Err(reason) = check_bridge_name(&name) {
            return Err(ResolveError::BridgeName { name, reason });
        }
        match self.links.iter().find(|link| link.name == name) {
            Some(link) if !link.is_bridge() => {
                let kind = link.kind.clone().unwrap_or_else(|| "hardware".to_owned());
                Err(ResolveError::NotABridge { name, kind })
            }
            _ => Ok(name),
        }
    }
}

/// The address that makes this host a member of the underlay.
#[derive(Clone, Copy)]
struct Holder<'h> {
    /// `None`: the address is on the loopback interface.
    link: Option<&'h Link>,
    address: &'h Address,
    underlay: Ipv4Net,
}

impl<'h> Holder<'h> {
    fn new(link: Option<&'h Link>, address: &'h Address, len: u8) -> Self {
        Self { link, address, underlay: Ipv4Net::new_assert(address.address, len.min(32)).trunc() }
    }

    fn operand(&self) -> Ipv4Net {
        Ipv4Net::new_assert(self.address.address, self.underlay.prefix_len())
    }
}

fn inner_mtu(spec: &FanSpec, uplinks: &[Uplink]) -> Result<u32, ResolveError> {
    let overhead = spec.encapsulation.overhead();
    let mut smallest = u32::from(u16::MAX);
    for uplink in uplinks {
        if uplink.mtu < SMALLEST_INNER_MTU + overhead {
            return Err(ResolveError::UplinkTooSmall {
                device: uplink.name.clone(),
                mtu: uplink.mtu,
                least: SMALLEST_INNER_MTU + overhead,
            });
        }
        smallest = smallest.min(uplink.mtu);
    }
    Ok(smallest - overhead)
}

fn check_reserve(spec: &FanSpec, slice: Ipv4Net) -> Result<(), ResolveError> {
    // Without network and broadcast address, and one must be left for an endpoint.
    let most = (1u32 << (32 - slice.prefix_len())) - 3;
    if spec.host_reserve > most {
        return Err(ResolveError::Reserve { reserve: spec.host_reserve, slice, most });
    }
    Ok(())
}

fn parts(network: Ipv4Net) -> (Ipv4Addr, u8) {
    (network.addr(), network.prefix_len())
}

fn overlaps(a: Ipv4Net, b: Ipv4Net) -> bool {
    fan::overlaps((a.addr().to_bits(), a.prefix_len()), (b.addr().to_bits(), b.prefix_len()))
}

#[cfg(test)]
mod tests;
