//! Services: the kernel holds those that are desired, and every VIP has its route.

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use control::{
    desired::{Desired, Name},
    observed::{Address, Link, Route},
    reconcile::{self, RouteOp, ServiceOp, Surroundings, Vips},
    service::{Protocol, Service, Vip, ring},
};

use super::{beyond, orders::Fault, programs::Programs, room::Room, vip_routes};
use crate::{
    kernel::{
        bpf::{Datapath, FlowCount, ServiceWriter},
        lock::Lock,
        netlink::Netlink,
    },
    node::{
        fan::Node,
        flows::{Keeper, Local},
        routes::{change_routes, device, held_by},
        taken::Taken,
    },
};

/// How often rows of former backends are swept, where no flow remembers them.
const SWEEP: Duration = Duration::from_secs(10);

/// What a pass is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'s> {
    /// All that the kernel holds and is to hold; and the names of the fans' uplinks.
    All(&'s Lock, &'s [String]),
    /// The services of some names, which were so in `former`.
    Some { former: &'s Desired, names: &'s BTreeSet<Name> },
}

/// What a pass found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What failed.
    pub(super) faults: Vec<Fault>,
    /// What an operator has to do.
    pub(super) notes: Vec<String>,
    /// There is more to say, which a pass over everything finds.
    pub(super) needs_all: bool,
}

impl Found {
    fn fail(&mut self, faults: impl IntoIterator<Item = String>) {
        self.faults.extend(faults.into_iter().map(|why| Fault { service: None, why }));
    }
}

/// What the kernel holds of services, and what changes it.
struct Opened {
    /// The datapath that it is of.
    number: u64,
    writer: ServiceWriter,
    keeper: Keeper,
}

/// The services in the kernel.
pub(super) struct Services {
    opened: Option<Opened>,
    /// Addresses that no VIP may have, as they were seen last.
    pub(super) taken: Arc<Taken>,
    /// VIPs' addresses that are not served, because this host needs them.
    refused: BTreeSet<Ipv4Addr>,
    /// Where backends beyond the overlays were reached.
    around: Surroundings,
    /// VIPs that the kernel does not hold as they are wanted.
    pub(super) failed: Arc<HashSet<Vip>>,
    /// The kernel may not hold what is desired.
    is_open: bool,
    next_sweep: Instant,
    room: Room,
}

impl Services {
    pub(super) fn new(failed: Arc<HashSet<Vip>>) -> Self {
        Self {
            opened: None,
            taken: Arc::default(),
            refused: BTreeSet::new(),
            around: Surroundings::default(),
            failed,
            is_open: true,
            next_sweep: Instant::now() + SWEEP,
            room: Room::default(),
        }
    }

    /// Makes the next pass compare everything.
    pub(super) fn reopen(&mut self) {
        self.is_open = true;
    }

    /// Whether single services can be changed: what the present datapath holds was read.
    pub(super) fn is_opened(&self, programs: &Programs) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.number == programs.number())
    }

    /// What the flow tables hold.
    pub(super) fn flow_count(&self) -> Option<FlowCount> {
        self.opened.as_ref().and_then(|opened| opened.keeper.count())
    }

    /// Waits until nothing is read that changes replaced.
    pub(super) fn settle(&mut self) {
        if let Some(opened) = &mut self.opened {
            opened.writer.settle();
        }
    }

    /// Brings the kernel to what is desired.
    pub(super) async fn reconcile(
        &mut self,
        node: &Node,
        programs: &Programs,
        desired: &Desired,
        scope: Scope<'_>,
    ) -> Result<Found> {
        let Some(datapath) = programs.datapath() else {
            self.opened = None;
            self.is_open = true;
            self.failed = Arc::new(desired.entries().map(|entry| entry.wanted.vip).collect());
            let note = "services: no fan is up, so that none is served; bring one up".to_owned();
            let notes = if desired.is_empty() { Vec::new() } else { vec![note] };
            return Ok(Found { notes, ..Found::default() });
        };
        let found = match scope {
            Scope::All(lock, uplinks) => self.all(node, (lock, uplinks), programs, datapath, desired).await?,
            Scope::Some { former, names } => {
                self.some(node.netlink(), datapath, desired, former, names).await
            }
        };
        self.is_open |= !found.faults.is_empty();
        Ok(found)
    }

    async fn all(
        &mut self,
        node: &Node,
        (lock, uplinks): (&Lock, &[String]),
        programs: &Programs,
        datapath: &Datapath,
        desired: &Desired,
    ) -> Result<Found> {
        let mut found = Found::default();
        let netlink = node.netlink();
        let links = netlink.links().await?;
        found.notes.extend(programs.lacks_room(desired)?);
        let defaults = netlink.routes_near(Vec::new()).await?;
        let addresses = netlink.addresses().await?;
        found.notes.extend(self.follow_addresses(&addresses, &links, &defaults, desired));
        let (uplinks, fans) = (beyond::indices(uplinks, &links), datapath.config().fans());
        self.around = Surroundings::new(uplinks, &fans, &addresses, &defaults);
        found.notes.extend(beyond::strays(netlink, desired, &self.around, &links).await);
        self.open(programs, datapath)?;
        found.fail(reserve_ports(node, lock, datapath, desired));
        let vips = self.vips(desired);
        let (helper, _) = datapath.config().helper();
        let routes = netlink.routes_to(vips.destinations()).await?;
        let plan = reconcile::vips(helper, &datapath.config().fans(), &vips, &routes);
        found.notes.extend(plan.held.iter().map(|route| held_by(route, &links)));
        // Packets are led to a service when it is there, and no more before it goes.
        let (deleted, set): (Vec<_>, Vec<_>) =
            plan.ops.iter().partition(|op| matches!(op, RouteOp::Delete(_)));
        found.fail(change_routes(netlink, deleted).await);
        let mut failed = self.compare(datapath, desired, &mut found)?;
        found.fail(change_routes(netlink, set).await);
        let wanted = desired.entries().map(|entry| entry.wanted.vip);
        failed.extend(wanted.filter(|vip| self.is_refused(*vip)));
        self.failed = Arc::new(failed);
        let count = self.flow_count();
        found.notes.extend(self.room.reasons(datapath, desired.settings.nat_ports, count, Instant::now())?);
        Ok(found)
    }

    /// Reads what the kernel holds, where that was not done yet.
    fn open(&mut self, programs: &Programs, datapath: &Datapath) -> Result<()> {
        if !self.is_opened(programs) {
            self.opened = None;
            let services = datapath.services();
            let (writer, keeper) =
                (services.writer(ring::build)?, Keeper::start(services, programs.faults())?);
            self.opened = Some(Opened { number: programs.number(), writer, keeper });
            self.is_open = true;
        }
        Ok(())
    }

    /// Makes the kernel hold what is desired, where that may not be so; gives the services that it does not hold.
    fn compare(&mut self, datapath: &Datapath, desired: &Desired, found: &mut Found) -> Result<HashSet<Vip>> {
        let wanted: Vec<&Service> = desired.entries().map(|entry| &entry.wanted).collect();
        let wanted: Vec<&Service> =
            wanted.into_iter().filter(|service| !self.is_refused(service.vip)).collect();
        let mut failed = HashSet::new();
        let refused = &self.refused;
        let Some(Opened { writer, .. }) = &mut self.opened else { return Ok(failed) };
        writer.set_own_addresses(self.taken.own.keys().copied().collect());
        if self.is_open {
            writer.recognise(wanted.iter().copied());
            let mut ops = reconcile::services(wanted.iter().copied(), writer.held());
            if desired.settings.keeps_unknown {
                ops.retain(|op| !matches!(op, ServiceOp::Remove(vip) if !is_among(*vip, refused)));
            }
            // Before the first comes, and after the last has gone.
            datapath.config().set_services(wanted.len().max(writer.held().services.len()));
            apply_all(writer, &ops, &mut failed, &mut found.faults);
            tracing::debug!(changes = ops.len(), "services");
            self.is_open = !failed.is_empty();
            datapath.config().set_services(writer.held().services.len());
            self.end_flows(datapath, desired);
        }
        let Some(Opened { writer, .. }) = &mut self.opened else { return Ok(failed) };
        writer.settle();
        let now = Instant::now();
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            let freed = writer.sweep()?;
            tracing::debug!(freed, "rows of former backends");
        }
        Ok(failed)
    }

    /// Makes the kernel hold the services of some names, and those that they were no more. Nothing else is compared.
    async fn some(
        &mut self,
        netlink: &Netlink,
        datapath: &Datapath,
        desired: &Desired,
        former: &Desired,
        names: &BTreeSet<Name>,
    ) -> Found {
        let mut found = Found::default();
        let was: BTreeSet<Vip> = vips_of(former, names);
        let is: BTreeSet<Vip> = vips_of(desired, names);
        let gone: Vec<Vip> = was.iter().copied().filter(|&vip| desired.at(vip).is_none()).collect();
        let served: BTreeSet<Vip> = is.iter().copied().filter(|vip| !self.is_refused(*vip)).collect();
        let mut failed = HashSet::new();
        if let Some(Opened { writer, .. }) = &mut self.opened {
            let entries = served.iter().filter_map(|&vip| desired.at(vip));
            let ops = reconcile::some_services(&gone, entries.map(|entry| &entry.wanted), writer.held());
            let added = ops.iter().filter(|op| matches!(op, ServiceOp::Add(_))).count();
            datapath.config().set_services(writer.held().services.len() + added);
            apply_all(writer, &ops, &mut failed, &mut found.faults);
            datapath.config().set_services(writer.held().services.len());
            self.end_flows(datapath, desired);
        }
        // A route that is set again is an event, after which everything would be compared.
        let set = &addresses(&served) - &addresses(&was);
        let mut deleted = addresses(&gone.iter().copied().collect());
        let range = desired.settings.vip_range;
        deleted
            .retain(|&address| !self.holds(address) && !range.is_some_and(|range| range.contains(&address)));
        let routes = vip_routes::change(netlink, datapath, desired.settings.vip_range, &set, &deleted).await;
        let may_stray = |desired| beyond::may_stray(desired, names, &self.around);
        found.needs_all = routes.is_held || may_stray(former) || may_stray(desired);
        found.fail(routes.faults);
        failed.extend(is.iter().copied().filter(|vip| self.is_refused(*vip)));
        self.note_failed(gone.iter().chain(&is), failed);
        found
    }

    fn note_failed<'v>(&mut self, seen: impl Iterator<Item = &'v Vip> + Clone, failed: HashSet<Vip>) {
        if failed.is_empty() && !seen.clone().any(|vip| self.failed.contains(vip)) {
            return;
        }
        let all = Arc::make_mut(&mut self.failed);
        for vip in seen {
            all.remove(vip);
        }
        all.extend(failed);
    }

    /// Has flows of backends that are gone ended, and clients told: only when no ring leads new ones there.
    fn end_flows(&mut self, datapath: &Datapath, desired: &Desired) {
        let Some(Opened { writer, keeper, .. }) = &mut self.opened else { return };
        let absent: BTreeSet<Ipv4Addr> = desired.down.keys().copied().filter_map(v4).collect();
        writer.set_absent_addresses(&absent);
        let gone = writer.take_gone();
        if !gone.is_empty() {
            let own = self.taken.own.keys().copied().collect();
            keeper.end(gone, Local { fans: datapath.config().fans(), own });
        }
    }

    /// Notes which VIPs this host needs itself, and says so.
    fn follow_addresses(
        &mut self,
        addresses: &[Address],
        links: &[Link],
        routes: &[Route],
        desired: &Desired,
    ) -> Vec<String> {
        let own = addresses.iter().map(|address| (address.address, device(links, Some(address.index))));
        let taken = Taken::new(own.collect(), routes);
        if *self.taken != taken {
            self.taken = Arc::new(taken);
        }
        let wanted: Vec<&Service> = desired.entries().map(|entry| &entry.wanted).collect();
        let why = self.taken.among(wanted.iter().copied());
        let refused: BTreeSet<Ipv4Addr> = why.keys().copied().collect();
        if refused != self.refused {
            self.refused = refused;
            self.is_open = true;
        }
        let reason = |(vip, why)| format!("vip-address {vip}: it {why}; give the service another VIP");
        why.into_iter().map(reason).collect()
    }

    /// Addresses that need a route: those of VIPs that are served, also of those that no source names any more.
    fn vips(&self, desired: &Desired) -> Vips {
        let keeps = desired.settings.keeps_unknown;
        let opened = self.opened.iter().filter(|_| keeps);
        let held = opened.flat_map(|opened| opened.writer.held().services.keys().copied());
        let wanted = desired.entries().map(|entry| entry.wanted.vip);
        let all = wanted.chain(held).filter(|vip| !self.is_refused(*vip));
        let addresses: BTreeSet<Ipv4Addr> = all.filter_map(|vip| v4(vip.address)).collect();
        Vips { range: desired.settings.vip_range.filter(|_| !addresses.is_empty()), addresses }
    }

    fn is_refused(&self, vip: Vip) -> bool {
        is_among(vip, &self.refused)
    }

    /// Whether the kernel holds a service of this address.
    fn holds(&self, address: Ipv4Addr) -> bool {
        let address = IpAddr::V4(address);
        let vip = |port, protocol| Vip { address, port, protocol };
        let all = vip(0, Protocol::Tcp)..=vip(u16::MAX, Protocol::Udp);
        self.opened.as_ref().is_some_and(|opened| opened.writer.held().services.range(all).next().is_some())
    }
}

fn apply_all(
    writer: &mut ServiceWriter,
    ops: &[ServiceOp],
    failed: &mut HashSet<Vip>,
    faults: &mut Vec<Fault>,
) {
    for (op, error) in writer.apply_all(ops) {
        failed.extend(op.vip());
        let (service, name) = match op {
            ServiceOp::Change(service) | ServiceOp::Add(service) => {
                (Some(service.name.clone()), service.name.clone())
            }
            ServiceOp::Remove(vip) => (None, vip.to_string()),
            ServiceOp::Retire { row, .. } => (None, format!("of row {row}")),
        };
        faults.push(Fault { service, why: format!("service {name}: {error}") });
    }
}

/// Tells the programs of the ports that a source is translated to, and keeps them from this host's sockets; says what
/// failed.
fn reserve_ports(node: &Node, lock: &Lock, datapath: &Datapath, desired: &Desired) -> Option<String> {
    let ports = desired.settings.nat_ports;
    datapath.config().set_nat_ports([ports.0, ports.1]);
    if desired.is_empty() {
        return None;
    }
    node.reserve_ports(lock, ports).err().map(|error| error.to_string())
}

fn vips_of(desired: &Desired, names: &BTreeSet<Name>) -> BTreeSet<Vip> {
    names.iter().filter_map(|name| desired.get(name)).map(|entry| entry.wanted.vip).collect()
}

fn addresses(vips: &BTreeSet<Vip>) -> BTreeSet<Ipv4Addr> {
    vips.iter().filter_map(|vip| v4(vip.address)).collect()
}

fn is_among(vip: Vip, addresses: &BTreeSet<Ipv4Addr>) -> bool {
    v4(vip.address).is_some_and(|address| addresses.contains(&address))
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
