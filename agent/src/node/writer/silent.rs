//! Hosts of the underlay that do not answer their neighbours, and uplinks that carry nothing: who speaks to one is told at once.
//!
//! The kernel says so of neighbours that a packet asked for. While the programs answer in their place no packet asks again, so
//! that this does, and the kernel then asks once a second: a host that comes up is reached within that time.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use control::{
    model::Fan,
    observed::{Link, Neighbour, NeighbourState},
};
use dataplane_common::abi::{FanRecord, SEEN_SHIFT};

use crate::kernel::{
    bpf::{Datapath, coarse_now},
    netlink::{Event, Netlink},
};

/// How long the programs believe it without hearing more: three failures of the kernel's, or three periodic passes.
const LIFE: Duration = Duration::from_secs(15);
/// How long a host is asked for. Then the next packet to it asks, and is lost if that is in vain.
const ASKED: Duration = Duration::from_secs(300);
/// Hosts that are asked for at a time; the kernel's table of neighbours has room for as many.
const MOST: usize = 1_024;

/// The hosts that do not answer, and since when, by the uplink's index and their address.
#[derive(Debug, Default)]
pub(super) struct Silent(BTreeMap<(u32, Ipv4Addr), Instant>);

impl Silent {
    /// Notes what the kernel tells of a host behind one of these uplinks.
    pub(super) async fn note(
        &mut self,
        event: &Event,
        (fans, uplinks): (&[FanRecord], &[u32]),
        datapath: Option<&Datapath>,
        netlink: &Netlink,
    ) {
        let Some(datapath) = datapath else { return self.0.clear() };
        let (Event::Neighbour(neighbour) | Event::NeighbourGone(neighbour)) = event else { return };
        if !uplinks.contains(&neighbour.index) || !is_host(fans, neighbour.address) {
            return;
        }
        let is_gone = matches!(event, Event::NeighbourGone(_));
        if let Err(error) = self.follow(neighbour, is_gone, datapath, netlink).await {
            tracing::warn!("{}: {error:#}", neighbour.address);
        }
    }

    async fn follow(
        &mut self,
        neighbour: &Neighbour,
        is_gone: bool,
        datapath: &Datapath,
        netlink: &Netlink,
    ) -> anyhow::Result<()> {
        let &Neighbour { index, address, state, .. } = neighbour;
        let host = (index, address);
        match state {
            _ if is_gone => drop(self.0.remove(&host)),
            NeighbourState::Incomplete => {}
            NeighbourState::Known if self.0.remove(&host).is_some() => {
                tracing::debug!("{address} answers");
                datapath.paths().remove(address)?;
                datapath.refresh_paths()?;
            }
            NeighbourState::Known => {}
            NeighbourState::Failed => {
                if self.asks(host, Instant::now()) {
                    datapath.paths().set_silent(address, LIFE)?;
                    datapath.refresh_paths()?;
                    netlink.probe_neighbour(index, address).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether a host that has not answered is asked again. One that was asked for long enough begins anew with the next
    /// failure, which a packet has caused.
    fn asks(&mut self, host: (u32, Ipv4Addr), now: Instant) -> bool {
        let is_new = !self.0.contains_key(&host);
        if is_new && self.0.len() >= MOST {
            return false;
        }
        let since = *self.0.entry(host).or_insert(now);
        let is_asked = now.saturating_duration_since(since) < ASKED;
        if !is_asked {
            self.0.remove(&host);
        }
        is_asked
    }
}

/// Whether an address lies in a fan's underlay, and is not this host's own.
fn is_host(fans: &[FanRecord], address: Ipv4Addr) -> bool {
    let address = address.to_bits();
    fans.iter().any(|fan| address & fan.underlay_mask == fan.underlay && address != fan.address)
}

/// Whether no uplink of a fan carries anything; a device that is not there is none.
pub(super) fn is_cut_off(fan: &Fan, links: &[Link]) -> bool {
    let carries = |index| links.iter().any(|link| link.index == index && link.up && link.carrier);
    !fan.uplinks().any(|uplink| carries(uplink.index))
}

/// Tells the programs whether a fan is cut off; gives the reason where it is.
pub(super) fn tell_cut_off(fan: &Fan, links: &[Link], datapath: &Datapath) -> anyhow::Result<Option<String>> {
    if !is_cut_off(fan, links) {
        datapath.config().set_cut_off(fan.spec.overlay, 0);
        return Ok(None);
    }
    let life = (LIFE.as_nanos() >> SEEN_SHIFT) as u32;
    // 0 stands for none.
    datapath.config().set_cut_off(fan.spec.overlay, coarse_now()?.wrapping_add(life).max(1));
    let names: Vec<&str> = fan.uplinks().map(|uplink| uplink.name.as_str()).collect();
    let names = names.join(", ");
    Ok(Some(format!(
        "uplink-down {}: {names} carries nothing, and no other host can be reached; set it up, or look at its cable",
        fan.spec.overlay
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: (u32, Ipv4Addr) = (2, Ipv4Addr::new(172, 30, 0, 27));

    #[test]
    fn a_host_is_asked_for_five_minutes_and_again_after_the_next_failure() {
        let (mut silent, start) = (Silent::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(silent.asks(HOST, at(0)) && silent.asks(HOST, at(3)) && silent.asks(HOST, at(299)));
        assert!(!silent.asks(HOST, at(300)));
        assert!(silent.asks(HOST, at(400)), "a packet has asked");
    }

    #[test]
    fn no_more_hosts_are_asked_for_than_the_kernel_has_room_for() {
        let (mut silent, now) = (Silent::default(), Instant::now());
        let host = |number: usize| (2, Ipv4Addr::from_bits(0xac1e_0001 + number as u32));
        assert!((0..MOST).all(|number| silent.asks(host(number), now)));
        assert!(!silent.asks(host(MOST), now));
        assert!(silent.asks(host(0), now));
    }
}
