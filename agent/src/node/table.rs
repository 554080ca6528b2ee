//! Brings the endpoint table and the endpoints' routes to what the kernel knows.

use std::net::Ipv4Addr;

use control::{
    model::VETH_MTU,
    observed::{FdbEntry, Link, Neighbour, NeighbourState, Route, Wired},
    reconcile::{self, EndpointOp, Learning, ObservedEndpoints, PortOp, RouteOp},
};
use dataplane_common::{
    abi::{EndpointRecord, FanRecord},
    outcome::Hook,
};

use crate::kernel::{
    bpf::{self, Attached, Datapath},
    netlink::{self, Netlink},
};

/// Why the table can't be brought to what is there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A netlink request failed.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The datapath refused.
    #[error(transparent)]
    Datapath(#[from] bpf::Error),
}

/// A snapshot of the kernel's side of endpoints: the table, and what decides about its entries.
#[derive(Clone, Debug)]
pub struct KernelEndpoints {
    /// The published fans.
    pub fans: Vec<FanRecord>,
    /// All interfaces.
    pub links: Vec<Link>,
    /// The endpoints among them that we wired.
    pub wired: Vec<Wired>,
    /// Neighbours of the fans' bridges and of routed endpoints.
    pub neighbours: Vec<Neighbour>,
    /// Forwarding entries of the fans' bridges.
    pub fdb: Vec<FdbEntry>,
    /// The endpoint table.
    pub held: Vec<(Ipv4Addr, EndpointRecord)>,
    /// Our routes of the main table.
    pub routes: Vec<Route>,
}

impl KernelEndpoints {
    /// Reads everything.
    ///
    /// # Errors
    /// The kernel refuses a request.
    pub async fn read(netlink: &Netlink, datapath: &Datapath) -> Result<Self, Error> {
        let fans = datapath.config().fans();
        let links = netlink.links().await?;
        let wired = Wired::among(&links);
        let is_bridge = |index: u32| fans.iter().any(|fan| fan.bridge == index);
        let mut neighbours = Vec::new();
        let mut fdb = Vec::new();
        for link in &links {
            let routed = wired.iter().any(|wired| wired.index == link.index && wired.record.routed);
            if is_bridge(link.index) {
                fdb.extend(netlink.fdb(link.index).await?);
            }
            if routed || is_bridge(link.index) {
                neighbours.extend(netlink.neighbours(link.index).await?);
            }
        }
        let held = datapath.endpoints().list()?;
        Ok(Self { fans, links, wired, neighbours, fdb, held, routes: netlink.own_routes().await? })
    }

    /// The part that decides what the endpoint table holds.
    pub fn observed(&self) -> ObservedEndpoints<'_> {
        ObservedEndpoints {
            fans: &self.fans,
            links: &self.links,
            neighbours: &self.neighbours,
            fdb: &self.fdb,
            held: &self.held,
        }
    }
}

/// Writes what differs between `snapshot` and what ought to be; says how much changed.
///
/// # Errors
/// The first failure, after all were tried.
pub async fn settle(
    snapshot: &KernelEndpoints,
    netlink: &Netlink,
    datapath: &Datapath,
    learning: Learning,
) -> Result<usize, Error> {
    let entries = reconcile::endpoints(&snapshot.observed(), learning);
    let routes =
        reconcile::routes(datapath.config().helper().0, &snapshot.fans, &snapshot.wired, &snapshot.routes);
    let strays = reconcile::strays(&snapshot.fans, &snapshot.wired);
    let small = reconcile::small(&snapshot.wired);
    let mut outcome = Ok(());
    for wired in &small {
        outcome = outcome.and(raise_mtu(netlink, wired).await);
    }
    for &(index, bridge) in &strays {
        outcome = outcome.and(netlink.set_master(index, Some(bridge)).await.map_err(Error::from));
    }
    for op in &entries {
        outcome = outcome.and(write(snapshot, netlink, datapath, *op).await);
    }
    for op in &routes {
        let done = match op {
            RouteOp::Set(route) => netlink.replace_route(route).await,
            RouteOp::Delete(route) => netlink.delete_route(route).await,
        };
        outcome = outcome.and(done.map_err(Error::from));
    }
    outcome.map(|()| small.len() + strays.len() + entries.len() + routes.len())
}

async fn write(
    snapshot: &KernelEndpoints,
    netlink: &Netlink,
    datapath: &Datapath,
    op: EndpointOp,
) -> Result<(), Error> {
    tracing::debug!(?op, "endpoint table");
    match op {
        EndpointOp::Insert(record) | EndpointOp::Update(record) => {
            datapath.endpoints().insert(record)?;
        }
        EndpointOp::Remove(address) => {
            datapath.endpoints().remove(address)?;
            // The kernel would believe a stale neighbour for minutes: with the next packet it asks again.
            let stale = |neighbour: &&Neighbour| {
                neighbour.address == address && neighbour.state != NeighbourState::Failed
            };
            for neighbour in snapshot.neighbours.iter().filter(stale) {
                netlink.delete_neighbour(neighbour.index, address).await?;
            }
        }
    }
    Ok(())
}

/// Brings table, routes and attachments to what is there now, without learning: what a command does when there may be
/// no agent. Ports that others made are left to the bridge's own program then. The names of endpoints that returned to
/// their bridge are the result.
///
/// # Errors
/// The kernel refuses.
pub async fn prune(netlink: &Netlink, datapath: &Datapath) -> Result<Vec<String>, Error> {
    let snapshot = KernelEndpoints::read(netlink, datapath).await?;
    datapath.prune()?;
    for op in reconcile::ports(&snapshot.fans, &snapshot.links, &attached(datapath)?) {
        match op {
            PortOp::Attach { ifindex, .. } if snapshot.wired.iter().all(|wired| wired.index != ifindex) => {}
            op => drop(change_port(datapath, &op)?),
        }
    }
    settle(&snapshot, netlink, datapath, Learning::Off).await?;
    let strays = reconcile::strays(&snapshot.fans, &snapshot.wired);
    let is_stray = |wired: &&Wired| strays.iter().any(|&(index, _)| index == wired.index);
    Ok(snapshot.wired.iter().filter(is_stray).map(|wired| wired.record.name.clone()).collect())
}

/// The devices that carry the endpoints' program.
///
/// # Errors
/// The kernel refuses.
pub fn attached(datapath: &Datapath) -> bpf::Result<Vec<u32>> {
    let attachments = datapath.attachments()?;
    let ports = attachments.iter().filter(|attachment| attachment.hook == Hook::EndpointIngress);
    Ok(ports.map(|attachment| attachment.ifindex).collect())
}

/// Attaches the endpoints' program to a port, or detaches it; says what attaching did.
///
/// # Errors
/// The kernel refuses.
pub fn change_port(datapath: &Datapath, op: &PortOp) -> bpf::Result<Option<Attached>> {
    match op {
        PortOp::Attach { ifindex, name } => datapath.attach(Hook::EndpointIngress, *ifindex, name).map(Some),
        PortOp::Detach { ifindex } => datapath.detach(Hook::EndpointIngress, *ifindex).map(|()| None),
    }
}

/// Raises the host's end of an endpoint that an older version made, after its MTU is noted as the one inside.
async fn raise_mtu(netlink: &Netlink, wired: &Wired) -> Result<(), Error> {
    let record = wired.record.clone().with_mtu(Some(wired.given_mtu()));
    if record != wired.record {
        // Without room in the record the host's end has to go on saying it.
        let Ok(alias) = record.to_alias() else { return Ok(()) };
        netlink.set_alias(wired.index, &alias).await?;
    }
    Ok(netlink.set_mtu(wired.index, VETH_MTU).await?)
}
