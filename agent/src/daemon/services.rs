//! A look at services: the kernel holds those of the file, and every VIP has its route.

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{agent::Agent, report::Topic};
use crate::{
    kernel::{
        bpf::{Datapath, FEWEST_FLOWS, ServiceOp, ServiceWriter, flows_held},
        netlink::{Address, Link, Netlink, Route},
    },
    reconcile::{self, RouteOp},
    service::{Service, Vip},
    status::ServiceState,
};

/// How often rows of former backends are looked at, whether flows still remember them.
const SWEEP: Duration = Duration::from_secs(10);

/// The services of the file, and who brings them to the kernel.
pub(super) struct Services {
    wanted: Vec<Service>,
    flows: Option<u32>,
    /// Of the present datapath.
    writer: Option<ServiceWriter>,
    /// VIPs that are not served, because they are addresses of this host.
    taken: BTreeSet<Ipv4Addr>,
    /// The kernel may not hold what is wanted.
    is_open: bool,
    next_sweep: Instant,
}

impl Services {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            wanted: Vec::new(),
            flows: None,
            writer: None,
            taken: BTreeSet::new(),
            is_open: true,
            next_sweep: now + SWEEP,
        }
    }

    /// Uses these services from now on.
    pub(super) fn want(&mut self, wanted: &[Service], flows: Option<u32>) {
        self.wanted = wanted.to_vec();
        self.flows = flows;
        self.is_open = true;
    }

    /// How many flows the datapath ought to hold; `None`: as the memory allows.
    pub(super) fn flows(&self) -> Option<u32> {
        self.flows.or_else(|| self.wanted.is_empty().then_some(FEWEST_FLOWS))
    }

    /// Services that can be served.
    fn served(&self) -> impl Iterator<Item = &Service> {
        self.wanted.iter().filter(|service| !is_refused(service, &self.taken))
    }

    /// Services whose VIP is an address of this host.
    fn refused(&self) -> impl Iterator<Item = &Service> {
        self.wanted.iter().filter(|service| is_refused(service, &self.taken))
    }

    /// The datapath is another.
    pub(super) fn forget(&mut self) {
        self.writer = None;
        self.is_open = true;
    }

    /// Makes the kernel hold what is wanted, where that may not be so; gives the services that it does not hold.
    fn apply(&mut self, datapath: &Datapath, reasons: &mut Vec<String>) -> Result<HashSet<Vip>> {
        let wanted: Vec<&Service> =
            self.wanted.iter().filter(|service| !is_refused(service, &self.taken)).collect();
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(datapath.services().writer()?),
        };
        let mut failed = HashSet::new();
        if self.is_open {
            writer.recognise(wanted.iter().copied());
            let ops = reconcile::services(wanted.iter().copied(), writer.held());
            // Before the first comes, and after the last has gone.
            datapath.config().set_services(wanted.len().max(writer.held().services.len()));
            for op in &ops {
                apply_one(writer, op, &mut failed, reasons);
            }
            tracing::debug!(changes = ops.len(), "services");
            self.is_open = !failed.is_empty();
            writer.settle();
            datapath.config().set_services(writer.held().services.len());
        }
        let now = Instant::now();
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            let freed = writer.sweep()?;
            tracing::debug!(freed, "rows of former backends");
        }
        Ok(failed)
    }
}

/// A backend's flows are ended only when no ring leads new ones to it.
fn apply_one(
    writer: &mut ServiceWriter,
    op: &ServiceOp,
    failed: &mut HashSet<Vip>,
    reasons: &mut Vec<String>,
) {
    let (vip, name) = match op {
        ServiceOp::Remove(vip) => (Some(*vip), vip.to_string()),
        ServiceOp::Retire { vip, .. } => (*vip, String::new()),
        ServiceOp::Change(service) | ServiceOp::Add(service) => (Some(service.vip), service.name.clone()),
    };
    if vip.is_some_and(|vip| failed.contains(&vip)) {
        return;
    }
    if let Err(error) = writer.apply(op) {
        failed.extend(vip);
        reasons.push(format!("service {name}: {error}"));
    }
}

impl Agent {
    /// Looks at services; says whether anything failed.
    pub(super) async fn look_at_services(&mut self) -> Result<bool> {
        let mut reasons = Vec::new();
        let mut faults = Vec::new();
        let mut failed: HashSet<Vip> = self.services.wanted.iter().map(|service| service.vip).collect();
        if let Some(datapath) = &self.datapath {
            let netlink = self.node.netlink();
            let links = netlink.links().await?;
            reasons.extend(size(self.services.flows, datapath.services().flow_capacity()?)?);
            reasons.extend(self.services.look_at_addresses(&netlink.addresses().await?, &links));
            let vips = self.services.served().filter_map(v4).collect();
            let (helper, _) = datapath.config().helper();
            let plan = reconcile::vips(helper, &datapath.config().fans(), &vips, &netlink.routes().await?);
            reasons.extend(plan.held.iter().map(|route| held_by(route, &links)));
            // Packets are led to a service when it is there, and no more before it goes.
            for op in plan.ops.iter().filter(|op| matches!(op, RouteOp::Delete(_))) {
                faults.extend(route(netlink, op).await);
            }
            failed = self.services.apply(datapath, &mut faults)?;
            for op in plan.ops.iter().filter(|op| matches!(op, RouteOp::Set(_))) {
                faults.extend(route(netlink, op).await);
            }
            failed.extend(self.services.refused().map(|service| service.vip));
        } else if !self.services.wanted.is_empty() {
            reasons.push("services: no fan is up, so that none is served; bring one up".to_owned());
        }
        let has_failed = !faults.is_empty();
        reasons.extend(faults);
        self.tell_services(&failed);
        self.report.set(Topic::Services, reasons);
        Ok(has_failed)
    }

    fn tell_services(&mut self, failed: &HashSet<Vip>) {
        let state = |service: &Service| ServiceState::new(service, !failed.contains(&service.vip));
        self.report.set_services(self.services.wanted.iter().map(state).collect());
    }
}

impl Services {
    /// Notes which VIPs are addresses of this host, and says so.
    fn look_at_addresses(&mut self, addresses: &[Address], links: &[Link]) -> Vec<String> {
        let own: HashSet<Ipv4Addr> = addresses.iter().map(|address| address.address).collect();
        let taken = self.wanted.iter().filter_map(|service| v4(service).filter(|vip| own.contains(vip)));
        let taken: BTreeSet<Ipv4Addr> = taken.collect();
        if taken != self.taken {
            self.taken = taken;
            self.is_open = true;
        }
        let reason = |vip: &Ipv4Addr| {
            let index = addresses.iter().find(|address| address.address == *vip).map(|address| address.index);
            let device = device(links, index);
            format!(
                "vip-address {vip}: it is an address of {device}; give the service another VIP, or take that away"
            )
        };
        self.taken.iter().map(reason).collect()
    }
}

/// What there is to say of the flow table's size.
fn size(configured: Option<u32>, held: u32) -> Result<Option<String>> {
    let Some(configured) = configured else { return Ok(None) };
    let least = flows_held(Some(configured))?;
    Ok(if least != configured {
        Some(format!(
            "config-invalid: datapath.flows: {configured} is fewer than 1,024 for each possible CPU; use at least {least}"
        ))
    } else if held != configured {
        Some(format!(
            "flow-table: it holds {held} flows, and {configured} are configured; another size comes when the last \
             fan was taken down"
        ))
    } else {
        None
    })
}

/// Makes one change of routes.
async fn route(netlink: &Netlink, op: &RouteOp) -> Option<String> {
    let outcome = match op {
        RouteOp::Set(route) => netlink.replace_route(route).await,
        RouteOp::Delete(route) => netlink.delete_route(route).await,
    };
    outcome.err().map(|error| error.to_string())
}

fn held_by(route: &Route, links: &[Link]) -> String {
    let Route { destination, protocol, .. } = route;
    let target = if route.rejects { "nowhere".to_owned() } else { device(links, route.oif) };
    let vip = destination.addr();
    format!(
        "vip-route {vip}: held by a route to {target} (protocol {protocol}); delete it, or use another VIP"
    )
}

fn device(links: &[Link], index: Option<u32>) -> String {
    let link = links.iter().find(|link| Some(link.index) == index);
    link.map_or_else(|| "an unknown device".to_owned(), |link| link.name.clone())
}

fn is_refused(service: &Service, taken: &BTreeSet<Ipv4Addr>) -> bool {
    v4(service).is_some_and(|vip| taken.contains(&vip))
}

fn v4(service: &Service) -> Option<Ipv4Addr> {
    match service.vip.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
