//! Routes of announcements in tables for another speaker: read first, then changed where they differ.

use std::sync::Arc;

use control::announce::{TableOp, Tables, table_ops};
use tokio::sync::watch;

use crate::kernel::netlink::Netlink;

/// What tables are to have; none while nobody knows, when what is there stays.
pub(crate) type Wanted = watch::Receiver<Option<Arc<Tables>>>;

/// Waits until tables are to have something else; for ever, once nobody says so any more.
pub(super) async fn changed(wanted: &mut Wanted) {
    if wanted.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Brings the tables to what is wanted; gives what failed.
pub(super) async fn reconcile(netlink: &Netlink, wanted: &mut Wanted) -> Vec<String> {
    let Some(wanted) = wanted.borrow_and_update().clone() else { return Vec::new() };
    let held = match netlink.announced_routes().await {
        Ok(held) => held,
        Err(error) => return vec![error.to_string()],
    };
    let mut faults = Vec::new();
    for op in table_ops(&wanted, &held) {
        let outcome = match op {
            TableOp::Set(route) => netlink.announce_route(&route).await,
            TableOp::Delete(route) => netlink.withdraw_route(&route).await,
        };
        faults.extend(outcome.err().map(|error| error.to_string()));
    }
    faults
}
