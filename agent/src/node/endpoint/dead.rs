//! What endpoints leave behind that died while no agent watched: an entry of the table swallows every packet to its
//! address, also after somebody else has got it. Commands that only read take it away, too.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use control::reconcile::{self, EndpointOp, Learning, RouteOp};

use super::Error;
use crate::{
    kernel::{bpf::Datapath, lock::Lock, netlink::Netlink},
    node::{
        fan,
        table::{self, KernelEndpoints},
    },
};

/// How long a command that only reads waits for the lock.
const PATIENCE: Duration = Duration::from_millis(300);
/// Pause between two attempts.
const RETRY: Duration = Duration::from_millis(10);

/// Takes away what the dead left behind. What stands in the way is left to the next command: a command that only reads is
/// not held up.
pub async fn forget_dead(netlink: &Netlink) {
    match forget(netlink).await {
        Ok(true) => {}
        Ok(false) => tracing::debug!("lock {}: held, what died is left to its holder", fan::LOCK),
        Err(error) => tracing::warn!("endpoints that died: {error}"),
    }
}

/// Says whether nothing is left.
async fn forget(netlink: &Netlink) -> Result<bool, Error> {
    let Some(datapath) = Datapath::open_existing()? else { return Ok(true) };
    if !has_dead(&KernelEndpoints::read(netlink, &datapath).await?, &datapath) {
        return Ok(true);
    }
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(_lock) = Lock::attempt(Path::new(fan::LOCK))? {
            table::prune(netlink, &datapath).await?;
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether entries or routes are over. What is merely missing is put back by commands that change something.
fn has_dead(snapshot: &KernelEndpoints, datapath: &Datapath) -> bool {
    let entries = reconcile::endpoints(&snapshot.observed(), Learning::Off);
    let helper = datapath.config().helper().0;
    let routes = reconcile::routes(helper, &snapshot.fans, &snapshot.wired, &snapshot.routes);
    entries.iter().any(|op| matches!(op, EndpointOp::Remove(_)))
        || routes.iter().any(|op| matches!(op, RouteOp::Delete(_)))
}
