//! A look at services: the kernel holds those that are wanted, and every VIP has its route.

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use control::{
    observed::{Address, Link, Route},
    reconcile::{self, RouteOp, ServiceOp, Vips},
    service::{Book, Protocol, Service, Vip, ring},
};
use ipnet::Ipv4Net;

use super::{
    agent::Agent,
    keeping::Keeping,
    report::Topic,
    services_record::{Teller, Told},
    services_room::RefusedFlows,
};
use crate::{
    kernel::{
        bpf::{Datapath, ServiceWriter},
        lock::Lock,
        tasks::Faults,
    },
    node::{
        fan::Node,
        flows::{Keeper, Local},
        routes::{change_routes, device, held_by},
        taken::Taken,
    },
    sources::{
        applied::{FOLDER, Store, StoreError},
        config::DatapathConfig,
    },
};

/// How often rows of former backends are looked at, whether flows still remember them.
const SWEEP: Duration = Duration::from_secs(10);

/// The services that are wanted, and who brings them to the kernel.
pub(super) struct Services {
    pub(super) book: Book,
    /// What is kept of it; not here while it is being written.
    pub(super) store: Option<Store>,
    /// What is being written.
    pub(super) keeping: Option<Keeping>,
    pub(super) settings: DatapathConfig,
    pub(super) refused_flows: Option<RefusedFlows>,
    /// Of the present datapath.
    pub(super) writer: Option<ServiceWriter>,
    /// Of the present datapath.
    pub(super) keeper: Option<Keeper>,
    /// VIPs that are not served, because this host needs their addresses.
    pub(super) taken: BTreeSet<Ipv4Addr>,
    /// Addresses that no VIP may have.
    pub(super) reserved: Taken,
    /// VIPs that the kernel does not hold as they are wanted.
    pub(super) failed: Arc<HashSet<Vip>>,
    /// Services may be in the kernel that nobody knows: what was applied could not be read.
    pub(super) has_lost: bool,
    teller: Teller,
    faults: Faults,
    /// The record does not say what the latest requests changed.
    pub(super) is_untold: bool,
    /// The kernel may not hold what is wanted.
    pub(super) is_open: bool,
    next_sweep: Instant,
}

impl Services {
    /// Those that were applied before.
    ///
    /// # Errors
    /// The log of them can't be read.
    pub(super) fn open(now: Instant, faults: Faults) -> Result<Self, StoreError> {
        let (store, changes) = Store::open(Path::new(FOLDER))?;
        let mut book = Book::default();
        book.make(&changes);
        Ok(Self {
            book,
            store: Some(store),
            keeping: None,
            settings: DatapathConfig::default(),
            refused_flows: None,
            writer: None,
            keeper: None,
            taken: BTreeSet::new(),
            reserved: Taken::default(),
            failed: Arc::default(),
            has_lost: false,
            teller: Teller::new(faults.clone()),
            faults,
            is_untold: false,
            is_open: true,
            next_sweep: now + SWEEP,
        })
    }

    /// Uses these services of the file from now on, beside those that were applied.
    pub(super) fn want(&mut self, path: &Path, wanted: &[Service], settings: DatapathConfig) {
        let mut book = Book::default();
        book.set_absent(self.book.absent());
        book.set_file(path, wanted);
        book.make(&self.book.changes().collect::<Vec<_>>());
        let over = book.stale_marks();
        if !over.is_empty() {
            // Marks that stay in the log are found again at the next start.
            match self.store.as_mut().map(|store| store.append(&over)) {
                Some(Ok(())) => drop(book.make(&over)),
                Some(Err(error)) => tracing::warn!("drain marks of former backends are kept: {error}"),
                None => tracing::warn!("drain marks of former backends are kept: a change is being made"),
            }
        }
        self.book = book;
        self.settings = settings;
        self.is_open = true;
    }

    /// Services that can be served.
    fn served(&self) -> impl Iterator<Item = &Service> + Clone {
        self.wanted().filter(|service| !is_refused(service, &self.taken))
    }

    fn wanted(&self) -> impl Iterator<Item = &Service> + Clone {
        self.book.entries().values().map(|entry| &entry.wanted)
    }

    /// Services whose VIP this host needs itself.
    fn refused(&self) -> impl Iterator<Item = &Service> {
        self.wanted().filter(|service| is_refused(service, &self.taken))
    }

    /// Addresses that need a route: those of VIPs that are served, also of those that nobody knows any more.
    fn vips(&self) -> Vips {
        let held =
            self.writer.iter().filter(|_| self.has_lost).flat_map(|writer| writer.held().services.keys());
        let wanted = self.served().map(|service| &service.vip);
        let addresses = wanted.chain(held).filter_map(|vip| v4(*vip)).filter(|vip| !self.taken.contains(vip));
        let addresses: BTreeSet<Ipv4Addr> = addresses.collect();
        Vips { range: self.range().filter(|_| !addresses.is_empty()), addresses }
    }

    /// The network whose addresses are all routed here while there are services.
    pub(super) fn range(&self) -> Option<Ipv4Net> {
        self.settings.vip_range
    }

    /// The datapath is another.
    pub(super) fn forget(&mut self) {
        self.writer = None;
        self.keeper = None;
        self.is_open = true;
    }

    /// Makes the kernel hold what is wanted, where that may not be so; gives the services that it does not hold.
    fn apply(&mut self, datapath: &Datapath, reasons: &mut Vec<String>) -> Result<HashSet<Vip>> {
        let wanted = self.book.entries().values().map(|entry| &entry.wanted);
        let wanted: Vec<&Service> = wanted.filter(|service| !is_refused(service, &self.taken)).collect();
        let Some(writer) = &mut self.writer else { return Ok(HashSet::new()) };
        writer.set_own_addresses(self.reserved.own.keys().copied().collect());
        let mut failed = HashSet::new();
        if self.is_open {
            writer.recognise(wanted.iter().copied());
            let mut ops = reconcile::services(wanted.iter().copied(), writer.held());
            if self.has_lost {
                ops.retain(|op| !matches!(op, ServiceOp::Remove(vip) if !is_taken(*vip, &self.taken)));
            }
            // Before the first comes, and after the last has gone.
            datapath.config().set_services(wanted.len().max(writer.held().services.len()));
            apply_all(writer, &ops, &mut failed, reasons);
            tracing::debug!(changes = ops.len(), "services");
            self.is_open = !failed.is_empty();
            datapath.config().set_services(writer.held().services.len());
            writer.set_absent_addresses(self.book.absent());
            self.end_flows(datapath);
        }
        let Some(writer) = &mut self.writer else { return Ok(failed) };
        writer.settle();
        let now = Instant::now();
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            let freed = writer.sweep()?;
            tracing::debug!(freed, "rows of former backends");
        }
        Ok(failed)
    }
}

impl Services {
    /// Reads what the kernel holds, where that was not done yet.
    fn open_writer(&mut self, datapath: &Datapath) -> Result<()> {
        if self.writer.is_none() {
            self.writer = Some(datapath.services().writer(ring::build)?);
            self.keeper = Some(Keeper::start(datapath.services(), &self.faults)?);
        }
        Ok(())
    }

    /// Whether single changes can be made: the kernel's services were read.
    pub(super) fn has_writer(&self) -> bool {
        self.writer.is_some()
    }

    /// Makes the kernel hold the services of these names, and those of VIPs that are gone no more. Nothing is compared
    /// but what the changes are about.
    pub(super) fn apply_some(
        &mut self,
        datapath: &Datapath,
        gone: &[Vip],
        names: &BTreeSet<String>,
        reasons: &mut Vec<String>,
    ) {
        let Some(writer) = &mut self.writer else { return };
        let wanted = names.iter().filter_map(|name| self.book.get(name)).map(|entry| &entry.wanted);
        let ops = reconcile::some_services(gone, wanted, writer.held());
        let added = ops.iter().filter(|op| matches!(op, ServiceOp::Add(_))).count();
        datapath.config().set_services(writer.held().services.len() + added);
        apply_all(writer, &ops, &mut HashSet::new(), reasons);
        datapath.config().set_services(writer.held().services.len());
        writer.set_absent_addresses(self.book.absent());
        self.end_flows(datapath);
    }

    /// Has clients told of the backends that are gone.
    fn end_flows(&mut self, datapath: &Datapath) {
        let (Some(writer), Some(keeper)) = (&mut self.writer, &self.keeper) else { return };
        let gone = writer.take_gone();
        if !gone.is_empty() {
            keeper.end(
                gone,
                Local { fans: datapath.config().fans(), own: self.reserved.own.keys().copied().collect() },
            );
        }
    }

    /// Whether the kernel holds a service of this address.
    pub(super) fn holds(&self, address: Ipv4Addr) -> bool {
        let address = IpAddr::V4(address);
        let vip = |port, protocol| Vip { address, port, protocol };
        let all = vip(0, Protocol::Tcp)..=vip(u16::MAX, Protocol::Udp);
        self.writer.as_ref().is_some_and(|writer| writer.held().services.range(all).next().is_some())
    }
}

/// A backend's flows are ended only when no ring leads new ones to it.
fn apply_all(
    writer: &mut ServiceWriter,
    ops: &[ServiceOp],
    failed: &mut HashSet<Vip>,
    reasons: &mut Vec<String>,
) {
    for (op, error) in writer.apply_all(ops) {
        failed.extend(op.vip());
        let name = match op {
            ServiceOp::Change(service) | ServiceOp::Add(service) => service.name.clone(),
            ServiceOp::Remove(vip) => vip.to_string(),
            ServiceOp::Retire { row, .. } => format!("of row {row}"),
        };
        reasons.push(format!("service {name}: {error}"));
    }
}

impl Agent {
    /// Looks at services; says whether anything failed.
    pub(super) async fn look_at_services(&mut self, lock: &Lock) -> Result<bool> {
        let mut reasons = self.services.keep();
        let mut faults = Vec::new();
        let mut failed: HashSet<Vip> = self.services.wanted().map(|service| service.vip).collect();
        if let Some(datapath) = &self.datapath {
            let netlink = self.node.netlink();
            let links = netlink.links().await?;
            reasons.extend(self.services.lacks_room(datapath)?);
            let defaults = netlink.routes_near(Vec::new()).await?;
            reasons.extend(self.services.look_at_addresses(&netlink.addresses().await?, &links, &defaults));
            self.services.open_writer(datapath)?;
            faults.extend(self.services.look_at_ports(&self.node, lock, datapath));
            let vips = self.services.vips();
            let (helper, _) = datapath.config().helper();
            let routes = netlink.routes_to(vips.destinations()).await?;
            let plan = reconcile::vips(helper, &datapath.config().fans(), &vips, &routes);
            reasons.extend(plan.held.iter().map(|route| held_by(route, &links)));
            // Packets are led to a service when it is there, and no more before it goes.
            let (deleted, set): (Vec<_>, Vec<_>) =
                plan.ops.iter().partition(|op| matches!(op, RouteOp::Delete(_)));
            faults.extend(change_routes(netlink, deleted).await);
            failed = self.services.apply(datapath, &mut faults)?;
            faults.extend(change_routes(netlink, set).await);
            failed.extend(self.services.refused().map(|service| service.vip));
        } else if !self.services.book.entries().is_empty() {
            reasons.push("services: no fan is up, so that none is served; bring one up".to_owned());
        }
        self.serve();
        let has_failed = !faults.is_empty();
        reasons.extend(faults);
        self.services.failed = Arc::new(failed);
        self.report.set_flow_count(self.services.keeper.as_ref().and_then(Keeper::count));
        self.report.set(Topic::Services, reasons);
        if self.api.is_open() {
            self.services.tell();
        } else {
            self.services.tell_now().await;
        }
        Ok(has_failed)
    }

    /// What is left to do after single changes: waiting until nothing is read that they replaced, and the record.
    pub(super) fn finish_changes(&mut self) {
        if let Some(writer) = &mut self.services.writer {
            writer.settle();
        }
        self.services.tell();
        self.serve();
    }

    /// Says which services others must leave alone.
    fn serve(&self) {
        let served = self.services.served().filter(|_| self.datapath.is_some());
        self.shadows.serve(served);
    }
}

impl Services {
    /// Has the record say what there is.
    fn tell(&mut self) {
        let told = self.told();
        self.is_untold = !self.teller.tell(told);
    }

    /// The same, done when this returns.
    pub(super) async fn tell_now(&mut self) {
        let told = self.told();
        self.teller.tell_now(told).await;
        self.is_untold = false;
    }

    fn told(&self) -> Told {
        Told::new(self.book.entries().values().cloned(), &self.failed)
    }

    /// Tells the programs of the ports that a source is translated to, and keeps them from this host's sockets; says what
    /// failed.
    fn look_at_ports(&self, node: &Node, lock: &Lock, datapath: &Datapath) -> Option<String> {
        let ports = self.settings.nat_ports;
        datapath.config().set_nat_ports([ports.0, ports.1]);
        if self.book.entries().is_empty() {
            return None;
        }
        node.reserve_ports(lock, ports).err().map(|error| error.to_string())
    }

    /// Notes which VIPs this host needs itself, and says so.
    fn look_at_addresses(&mut self, addresses: &[Address], links: &[Link], routes: &[Route]) -> Vec<String> {
        let own = addresses.iter().map(|address| (address.address, device(links, Some(address.index))));
        self.reserved = Taken::new(own.collect(), routes);
        let why = self.reserved.among(self.wanted());
        let taken: BTreeSet<Ipv4Addr> = why.keys().copied().collect();
        if taken != self.taken {
            self.taken = taken;
            self.is_open = true;
        }
        let reason = |(vip, why)| format!("vip-address {vip}: it {why}; give the service another VIP");
        why.into_iter().map(reason).collect()
    }
}

pub(super) fn is_refused(service: &Service, taken: &BTreeSet<Ipv4Addr>) -> bool {
    is_taken(service.vip, taken)
}

fn is_taken(vip: Vip, taken: &BTreeSet<Ipv4Addr>) -> bool {
    v4(vip).is_some_and(|vip| taken.contains(&vip))
}

pub(super) fn v4(vip: Vip) -> Option<Ipv4Addr> {
    match vip.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
