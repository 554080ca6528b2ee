//! `endpoint list`.

use std::{collections::HashSet, net::Ipv4Addr};

use control::{
    model::network,
    observed::{Link, Wired},
    reconcile::{self, fan_of_endpoint},
};
use dataplane_common::abi::FanRecord;
use ipnet::Ipv4Net;
use serde::Serialize;

use super::{Error, forget_dead};
use crate::{
    kernel::{bpf::Datapath, netlink::Netlink},
    node::table::KernelEndpoints,
};

/// Whence an endpoint is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// `endpoint add` wired it.
    Added,
    /// It was seen behind a port of a fan's bridge.
    Learnt,
}

/// One address of an endpoint; an endpoint in several fans has several rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The endpoint; `None` where it is learnt.
    pub name: Option<String>,
    /// Its namespace, as it was given; `None` where it is learnt.
    pub netns: Option<String>,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its host-side device.
    pub device: String,
    /// The fan's overlay; `None` while the fan is down.
    pub fan: Option<Ipv4Net>,
    /// Whether it has a route of its own instead of being a bridge port.
    pub routed: bool,
    /// Whence it is known.
    pub source: Source,
}

/// The endpoints: those that were added, in order of their name, then those that are learnt, in order of their address.
/// What died since the last look is taken away first.
///
/// # Errors
/// The kernel refuses.
pub async fn list() -> Result<Vec<Row>, Error> {
    let netlink = Netlink::open()?;
    let Some(datapath) = Datapath::open_existing()? else {
        return Ok(sorted(added(&Wired::among(&netlink.links().await?), &[])));
    };
    forget_dead(&netlink).await;
    let snapshot = KernelEndpoints::read(&netlink, &datapath).await?;
    let devices = reconcile::devices(&snapshot.observed());
    let mut rows = added(&snapshot.wired, &snapshot.fans);
    let known: HashSet<Ipv4Addr> = rows.iter().map(|row| row.address).collect();
    let others = devices.into_iter().filter(|(address, _)| !known.contains(address));
    rows.extend(
        others.filter_map(|(address, index)| learnt(address, index, &snapshot.links, &snapshot.fans)),
    );
    Ok(sorted(rows))
}

fn added(wired: &[Wired], fans: &[FanRecord]) -> Vec<Row> {
    let row = |wired: &Wired, address| Row {
        name: Some(wired.record.name.clone()),
        netns: Some(wired.record.netns.clone()),
        address,
        device: wired.device.clone(),
        fan: overlay(fans, address),
        routed: wired.record.routed,
        source: Source::Added,
    };
    let rows = wired.iter().flat_map(|wired| wired.record.addresses.iter().map(move |&it| row(wired, it)));
    rows.collect()
}

/// `None` for what has no device any more.
fn learnt(address: Ipv4Addr, index: u32, links: &[Link], fans: &[FanRecord]) -> Option<Row> {
    let link = links.iter().find(|link| link.index == index)?;
    Some(Row {
        name: None,
        netns: None,
        address,
        device: link.name.clone(),
        fan: overlay(fans, address),
        routed: false,
        source: Source::Learnt,
    })
}

fn overlay(fans: &[FanRecord], address: Ipv4Addr) -> Option<Ipv4Net> {
    fan_of_endpoint(fans, address).map(|fan| network(fan.overlay, fan.overlay_mask))
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by(|a, b| (a.source, &a.name, a.address).cmp(&(b.source, &b.name, b.address)));
    rows
}
