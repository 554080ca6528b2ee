//! `endpoint add`: a veth pair into a namespace, with address, route and MTU.

use std::net::Ipv4Addr;

use control::{
    model::{VETH_MTU, inlet_names},
    observed::{Link, NeighbourState, ObservedHost, Record, Wired},
};
use dataplane_common::{abi::FanRecord, outcome::Hook};
use ipnet::Ipv4Net;

use super::{
    Error, MAX_NAME,
    address::{self, Holder, Place, Taken},
    device_name, inside, lock,
};
use crate::{
    kernel::{
        arp,
        bpf::Datapath,
        dhcp,
        netlink::{Netlink, VethEnd, VethRequest},
        netns::Netns,
    },
    node::{
        fan::Node,
        table::{self, KernelEndpoints},
    },
};

/// An endpoint to wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Namespace: a name under `/run/netns`, a path, or `pid:N`.
    pub netns: String,
    /// Overlays of the fans to join; those of `addresses`, or else all, when empty.
    pub fans: Vec<Ipv4Net>,
    /// Addresses, at most one a fan; a free one is taken where none is given.
    pub addresses: Vec<Ipv4Addr>,
    /// Name; by the namespace's when absent.
    pub name: Option<String>,
    /// A route of its own instead of a bridge port.
    pub routed: bool,
}

/// What `add` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// The endpoint.
    pub wired: Wired,
    /// `false`: it was there already, as asked for.
    pub changed: bool,
}

/// Wires a namespace into fans. The same endpoint again is fine; with other options it is refused.
///
/// # Errors
/// [`Error`] says what is wrong; nothing has changed then.
pub async fn add(request: &Request) -> Result<Added, Error> {
    let netns = Netns::open(&request.netns)?;
    let name = name_of(request)?;
    if netns.identity().ok() == Netns::current()?.identity().ok() {
        return Err(Error::OwnNamespace { netns: request.netns.clone() });
    }
    let _lock = lock()?;
    let node = Node::open(Vec::new())?;
    let netlink = node.netlink().clone();
    // Without a datapath no fan is up: nothing must be loaded to find that out.
    if Datapath::open_existing()?.is_none_or(|datapath| datapath.config().fans().is_empty()) {
        return Err(Error::NoFan);
    }
    let datapath = Datapath::open()?;
    // First what died since the last command: its address is free again.
    table::prune(&netlink, &datapath).await?;
    let world = World { snapshot: KernelEndpoints::read(&netlink, &datapath).await?, netlink, datapath };
    let places = places(&world, &node.observe().await?);
    let inside = inside::device(&netns)?;
    if let Some(wired) = world.existing(request, &name, inside.as_ref())? {
        return Ok(Added { wired: same(wired, request, &places)?, changed: false });
    }
    if inside.is_some() {
        return Err(Error::DeviceExists { netns: request.netns.clone(), device: inside::DEVICE });
    }
    let chosen = world.choose(request, &places)?;
    let addresses = chosen.iter().map(|&(_, address)| address).collect();
    let mtu = chosen.iter().map(|(place, _)| place.fan.mtu).min();
    let record = Record::new(name, request.netns.clone(), request.routed, addresses).with_mtu(mtu);
    let wired = world.wire(&netns, record, &chosen).await?;
    Ok(Added { wired, changed: true })
}

fn name_of(request: &Request) -> Result<String, Error> {
    let by_netns = || request.netns.rsplit('/').next().unwrap_or_default().replace(':', "-");
    let name = request.name.clone().unwrap_or_else(by_netns);
    let usable = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'));
    if usable { Ok(name) } else { Err(Error::BadName { name }) }
}

/// The fans that are up, in order of their overlay.
fn places(world: &World, observed: &ObservedHost) -> Vec<Place> {
    let place = |fan: &FanRecord| {
        let mut place = Place { fan: *fan, host_reserve: 0 };
        if let Some(standing) = observed.fan(place.overlay()) {
            place.host_reserve = standing.mark.spec.host_reserve;
        }
        place
    };
    let mut places: Vec<Place> = world.snapshot.fans.iter().map(place).collect();
    places.sort_by_key(|place| place.fan.overlay);
    places
}

/// An endpoint that is there, if it is what the request describes.
fn same(wired: &Wired, request: &Request, places: &[Place]) -> Result<Wired, Error> {
    let record = &wired.record;
    let differs = |has: String, asked: String| Err(Error::Differs { name: record.name.clone(), has, asked });
    let way = |routed| if routed { "a route" } else { "a bridge port" }.to_owned();
    if record.routed != request.routed {
        return differs(way(record.routed), way(request.routed));
    }
    let list = |addresses: &[Ipv4Addr]| {
        let texts: Vec<_> = addresses.iter().map(Ipv4Addr::to_string).collect();
        format!("address {}", texts.join(", "))
    };
    if let Some(other) = request.addresses.iter().find(|address| !record.addresses.contains(address)) {
        return differs(list(&record.addresses), list(&[*other]));
    }
    let overlays = |addresses: &[Ipv4Addr]| -> Vec<Ipv4Net> {
        let is_in = |place: &&Place| addresses.iter().any(|address| place.slice().contains(address));
        places.iter().filter(is_in).map(Place::overlay).collect()
    };
    let mut asked = if request.fans.is_empty() { overlays(&request.addresses) } else { request.fans.clone() };
    asked.sort_unstable();
    let has = overlays(&record.addresses);
    if !asked.is_empty() && asked != has {
        let text =
            |fans: &[Ipv4Net]| fans.iter().map(|fan| format!("fan {fan}")).collect::<Vec<_>>().join(", ");
        return differs(text(&has), text(&asked));
    }
    Ok(wired.clone())
}

/// What `add` works on, under the lock.
struct World {
    snapshot: KernelEndpoints,
    netlink: Netlink,
    datapath: Datapath,
}

impl World {
    /// The endpoint of that name in that namespace, if it is there.
    fn existing(
        &self,
        request: &Request,
        name: &str,
        inside: Option<&Link>,
    ) -> Result<Option<&Wired>, Error> {
        let wired = &self.snapshot.wired;
        let here = wired.iter().find(|wired| inside.is_some_and(|inside| self.are_ends(wired, inside)));
        let named = wired.iter().find(|wired| wired.record.name == name);
        match (here, named) {
            (Some(here), _) if here.record.name == name => Ok(Some(here)),
            (Some(here), _) => {
                Err(Error::OtherName { netns: request.netns.clone(), name: here.record.name.clone() })
            }
            (None, Some(named)) => {
                Err(Error::NameTaken { name: name.to_owned(), netns: named.record.netns.clone() })
            }
            (None, None) => Ok(None),
        }
    }

    /// Whether two devices are the ends of one pair: indexes alone repeat from namespace to namespace.
    fn are_ends(&self, wired: &Wired, inside: &Link) -> bool {
        let outside = self.snapshot.links.iter().find(|link| link.index == wired.index);
        inside.peer == Some(wired.index) && outside.is_some_and(|outside| outside.peer == Some(inside.index))
    }

    /// Addresses for a new endpoint that nobody has, as far as the kernel, DHCP and everybody on the bridges say.
    fn choose(&self, request: &Request, places: &[Place]) -> Result<Vec<(Place, Ipv4Addr)>, Error> {
        let mut taken = self.taken(places)?;
        loop {
            let chosen = address::choose(places, &request.fans, &request.addresses, &taken)?;
            let mut answered = false;
            for &(place, address) in &chosen {
                if let Some(holder) = self.probe(&place, address)? {
                    taken.insert(address, holder);
                    answered = true;
                }
            }
            if !answered {
                return Ok(chosen);
            }
        }
    }

    /// Asks a fan's bridge for an address, where anything but our own endpoints is behind it.
    fn probe(&self, place: &Place, address: Ipv4Addr) -> Result<Option<Holder>, Error> {
        let KernelEndpoints { links, wired, .. } = &self.snapshot;
        let bridge = links.iter().find(|link| link.index == place.fan.bridge && link.up);
        let Some(bridge) = bridge else { return Ok(None) };
        let [inlet, _] = inlet_names(&bridge.name);
        let is_other = |link: &&Link| {
            link.master == Some(bridge.index)
                && link.name != inlet
                && wired.iter().all(|wired| wired.index != link.index)
        };
        if !links.iter().any(|link| is_other(&link)) {
            return Ok(None);
        }
        let name = &bridge.name;
        let found = arp::probe(bridge.index, bridge.mac, address).map_err(|source| Error::Probe {
            address,
            bridge: name.clone(),
            source,
        })?;
        let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        Ok(found.map(|mac| Holder::Answers(text(mac), name.clone())))
    }

    /// Addresses that an endpoint can't have, and by whom they are used.
    fn taken(&self, places: &[Place]) -> Result<Taken, Error> {
        let KernelEndpoints { neighbours, held, wired, links, .. } = &self.snapshot;
        let mut taken = Taken::new();
        let seen = neighbours.iter().filter(|neighbour| neighbour.state != NeighbourState::Failed);
        taken.extend(seen.map(|neighbour| (neighbour.address, Holder::Recent)));
        for (address, record) in held {
            // An entry whose device is gone is left over.
            if let Some(link) = links.iter().find(|link| link.index == record.ifindex) {
                taken.insert(*address, Holder::Port(link.name.clone()));
            }
        }
        for Wired { record, .. } in wired {
            taken.extend(record.addresses.iter().map(|&a| (a, Holder::Endpoint(record.name.clone()))));
        }
        let bridges = places.iter().map(|place| place.fan.bridge);
        for bridge in bridges.filter_map(|index| links.iter().find(|link| link.index == index)) {
            for lease in dhcp::leases(&bridge.name)? {
                taken.entry(lease.address).or_insert(Holder::Lease(lease.client));
            }
        }
        Ok(taken)
    }

    /// Creates the pair and everything around it; on failure takes all of it back.
    async fn wire(
        &self,
        netns: &Netns,
        record: Record,
        chosen: &[(Place, Ipv4Addr)],
    ) -> Result<Wired, Error> {
        let alias = record.to_alias()?;
        let link = self.create_pair(netns, &record, chosen).await?;
        let wired = Wired {
            index: link.index,
            device: link.name.clone(),
            master: chosen.first().filter(|_| !record.routed).map(|(place, _)| place.fan.bridge),
            mtu: link.mtu,
            record,
        };
        if let Err(error) = self.connect(netns, &wired, &alias, chosen).await {
            self.unwind(&wired).await;
            return Err(error);
        }
        Ok(wired)
    }

    /// A veth loses what its other end is too small for, unseen by any program: the end of the host takes all.
    async fn create_pair(
        &self,
        netns: &Netns,
        record: &Record,
        chosen: &[(Place, Ipv4Addr)],
    ) -> Result<Link, Error> {
        use std::os::fd::AsFd;
        let mtu = record.mtu.unwrap_or(VETH_MTU);
        let name = device_name(chosen.first().map_or(Ipv4Addr::UNSPECIFIED, |&(_, address)| address));
        let request = VethRequest {
            end: VethEnd { name: &name, mac: record.host_mac(), mtu: VETH_MTU },
            peer: VethEnd { name: inside::DEVICE, mac: record.mac(), mtu },
            peer_netns: Some(netns.as_fd()),
        };
        Ok(self.netlink.create_veth(request).await?)
    }

    /// The record first, so that the device is known as ours from then on; packets last.
    async fn connect(
        &self,
        netns: &Netns,
        wired: &Wired,
        alias: &str,
        chosen: &[(Place, Ipv4Addr)],
    ) -> Result<(), Error> {
        self.netlink.set_alias(wired.index, alias).await?;
        self.datapath.attach(Hook::EndpointIngress, wired.index, &wired.device)?;
        if let Some(bridge) = wired.master {
            self.netlink.set_master(wired.index, Some(bridge)).await?;
        }
        inside::configure(netns, chosen, wired.record.routed)?;
        // A former holder of an address is not asked for it any more.
        for &(_, address) in chosen {
            self.netlink.delete_neighbour(wired.master.unwrap_or(wired.index), address).await?;
        }
        table::prune(&self.netlink, &self.datapath).await?;
        Ok(())
    }

    async fn unwind(&self, wired: &Wired) {
        let deleted = self.netlink.delete_link(wired.index).await.map_err(table::Error::from);
        if let Err(error) = deleted.and(table::prune(&self.netlink, &self.datapath).await.map(drop)) {
            tracing::warn!("endpoint {}: taking back what was done: {error}", wired.record.name);
        }
    }
}

#[cfg(test)]
mod tests;
