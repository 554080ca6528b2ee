//! `endpoint remove` and `endpoint list`.

use std::net::Ipv4Addr;

use control::{model::network, observed::Wired, reconcile::fan_of_endpoint};
use ipnet::Ipv4Net;
use serde::Serialize;

use super::{Error, lock};
use crate::{
    kernel::{bpf::Datapath, netlink::Netlink},
    node::table,
};

/// One address of an endpoint; an endpoint in several fans has several rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The endpoint.
    pub name: String,
    /// Its namespace, as it was given.
    pub netns: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its host-side device.
    pub device: String,
    /// The fan's overlay; `None` while the fan is down.
    pub fan: Option<Ipv4Net>,
    /// Whether it has a route of its own instead of being a bridge port.
    pub routed: bool,
}

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

/// The endpoints, in order of their name.
///
/// # Errors
/// The kernel refuses.
pub async fn list() -> Result<Vec<Row>, Error> {
    let netlink = Netlink::open()?;
    let links = netlink.links().await?;
    let fans = match Datapath::open_existing()? {
        Some(datapath) => datapath.config().fans(),
        None => Vec::new(),
    };
    let mut rows = Vec::new();
    for wired in Wired::among(&links) {
        for &address in &wired.record.addresses {
            let fan = fan_of_endpoint(&fans, address);
            rows.push(Row {
                name: wired.record.name.clone(),
                netns: wired.record.netns.clone(),
                address,
                device: wired.device.clone(),
                fan: fan.map(|fan| network(fan.overlay, fan.overlay_mask)),
                routed: wired.record.routed,
            });
        }
    }
    rows.sort_by(|a, b| (&a.name, a.address).cmp(&(&b.name, b.address)));
    Ok(rows)
}
