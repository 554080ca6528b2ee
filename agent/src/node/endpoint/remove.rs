//! `endpoint remove`.

use control::observed::Wired;

use super::{Error, lock};
use crate::{
    kernel::{bpf::Datapath, netlink::Netlink},
    node::table,
};

/// Removes an endpoint and everything that `add` made for it.
///
/// # Errors
/// There is none of that name, or the kernel refuses.
pub async fn remove(name: &str) -> Result<Wired, Error> {
    let _lock = lock()?;
    let netlink = Netlink::open()?;
    let wired = Wired::among(&netlink.links().await?);
    let found = wired.into_iter().find(|wired| wired.record.name == name);
    if let Some(wired) = &found {
        netlink.delete_link(wired.index).await?;
    }
    // Also what a namespace's sudden death left behind: its endpoint is no more to be found by its name.
    if let Some(datapath) = Datapath::open_existing()? {
        table::prune(&netlink, &datapath).await?;
    }
    found.ok_or_else(|| Error::NoEndpoint { name: name.to_owned() })
}
