//! The endpoint's own end: what its namespace gets.

use std::net::Ipv4Addr;

use control::observed::{Address, Link, Route, Wired};
use ipnet::Ipv4Net;

use super::{Error, address::Place};
use crate::kernel::{
    netlink::{self, Netlink},
    netns::Netns,
};

/// Name of the device inside.
pub(super) const DEVICE: &str = "eth0";

/// The device inside a namespace, if it has one of that name.
pub(super) fn device(netns: &Netns) -> Result<Option<Link>, Error> {
    Ok(netns.run_async(|| async { Netlink::open()?.link_by_name(DEVICE).await })??)
}

/// Gives the device inside its addresses and routes. `first` is the place of the default route; `routed` tells whether
/// the slice lies behind the gateway instead of on the link.
pub(super) fn configure(netns: &Netns, chosen: &[(Place, Ipv4Addr)], routed: bool) -> Result<(), Error> {
    Ok(netns.run_async(|| configure_here(chosen, routed))??)
}

async fn configure_here(chosen: &[(Place, Ipv4Addr)], routed: bool) -> netlink::Result<()> {
    let netlink = Netlink::open()?;
    let link = netlink.link(DEVICE).await?;
    for (number, (place, address)) in chosen.iter().enumerate() {
        let on_link = number == 0 && !routed;
        let prefix_len = if on_link { place.slice().prefix_len() } else { 32 };
        netlink.add_address(Address { index: link.index, address: *address, prefix_len }).await?;
    }
    netlink.set_up(link.index, true).await?;
    // A new namespace's loopback device is down, and programs expect 127.0.0.1.
    let links = netlink.links().await?;
    if let Some(loopback) = links.iter().find(|link| link.loopback && !link.up) {
        netlink.set_up(loopback.index, true).await?;
    }
    for (number, (place, address)) in chosen.iter().enumerate() {
        netlink.replace_route(&route(link.index, place, *address, number == 0)).await?;
    }
    Ok(())
}

/// The first fan's gateway is the way to everywhere, a further one's the way to its overlay.
fn route(device: u32, place: &Place, address: Ipv4Addr, everywhere: bool) -> Route {
    Route {
        destination: if everywhere { Ipv4Net::default() } else { place.overlay() },
        gateway: Some(place.gateway()),
        oif: Some(device),
        protocol: libc::RTPROT_STATIC,
        prefsrc: Some(address),
        onlink: true,
        ..Route::default()
    }
}

/// Gives the device inside another MTU, and remembers it.
///
/// # Errors
/// The kernel refuses, or the namespace is not to be found under its name any more.
pub async fn follow_mtu(netlink: &Netlink, wired: &Wired, mtu: u32) -> Result<(), Error> {
    let netns = Netns::open(&wired.record.netns)?;
    let inside = device(&netns)?.filter(|inside| inside.peer == Some(wired.index) && inside.mtu != mtu);
    if let Some(inside) = inside {
        netns.run_async(|| async move { Netlink::open()?.set_mtu(inside.index, mtu).await })??;
    }
    match wired.record.clone().with_mtu(Some(mtu)).to_alias() {
        Ok(alias) => netlink.set_alias(wired.index, &alias).await?,
        // Without room in the record the host's end says it.
        Err(_too_long) => netlink.set_mtu(wired.index, mtu).await?,
    }
    Ok(())
}
