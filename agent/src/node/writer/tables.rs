//! What announcements need of the kernel: routes in tables for another speaker, and addresses on `lo`. Both are read first,
//! then changed where they differ.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use control::announce::{Placement, TableOp, table_ops};
use tokio::sync::watch;

use crate::kernel::netlink::{self, Netlink};

/// What is wanted; none while nobody knows, when what is there stays.
pub(crate) type Wanted = watch::Receiver<Option<Arc<Placement>>>;

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// Those of the wanted addresses that are on `lo`.
    pub(super) loopback: BTreeSet<IpAddr>,
    /// What failed.
    pub(super) faults: Vec<String>,
}

/// Waits until something else is wanted; for ever, once nobody says so any more.
pub(super) async fn changed(wanted: &mut Wanted) {
    if wanted.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Brings the kernel to what is wanted.
pub(super) async fn reconcile(netlink: &Netlink, wanted: &mut Wanted) -> Placed {
    let mut placed = Placed::default();
    let Some(wanted) = wanted.borrow_and_update().clone() else { return placed };
    match bring_addresses(netlink, &wanted.loopback, &mut placed.faults).await {
        Ok(there) => placed.loopback = there,
        Err(error) => placed.faults.push(error.to_string()),
    }
    if let Err(error) = bring_routes(netlink, &wanted, &mut placed.faults).await {
        placed.faults.push(error.to_string());
    }
    placed
}

async fn bring_addresses(
    netlink: &Netlink,
    wanted: &BTreeSet<IpAddr>,
    faults: &mut Vec<String>,
) -> netlink::Result<BTreeSet<IpAddr>> {
    let held = netlink.loopback().await?;
    let mut there: BTreeSet<IpAddr> = held.iter().map(|held| held.address).collect();
    for own in held.iter().filter(|held| held.is_own && !wanted.contains(&held.address)) {
        faults.extend(netlink.delete_loopback(own.address).await.err().map(|error| error.to_string()));
    }
    for address in wanted.iter().filter(|address| !there.contains(address)).copied().collect::<Vec<_>>() {
        match netlink.add_loopback(address).await {
            Ok(()) => drop(there.replace(address)),
            Err(error) => faults.push(error.to_string()),
        }
    }
    there.retain(|address| wanted.contains(address));
    Ok(there)
}

async fn bring_routes(
    netlink: &Netlink,
    wanted: &Placement,
    faults: &mut Vec<String>,
) -> netlink::Result<()> {
    for op in table_ops(&wanted.tables, &netlink.announced_routes().await?) {
        let outcome = match op {
            TableOp::Set(route) => netlink.announce_route(&route).await,
            TableOp::Delete(route) => netlink.withdraw_route(&route).await,
        };
        faults.extend(outcome.err().map(|error| error.to_string()));
    }
    Ok(())
}
