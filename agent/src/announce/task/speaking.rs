//! This node as a speaker, and its sessions.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use control::bgp::Local;

use super::{Phase, Task};
use crate::{
    announce::speaker::{Speaker, manner},
    kernel::own_address,
    sources::config::BgpConfig,
};

/// An address beyond the host and its networks (RFC 5737): what leads there is the default route.
const ELSEWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 179);

impl Task<'_> {
    /// This node as a speaker of the configuration.
    fn identity(&self, bgp: &BgpConfig) -> Option<Local> {
        let uplinks = &self.inbox.setup.uplinks;
        let uplink = || uplinks.iter().find_map(|name| own_address::of_device(name));
        let towards = || {
            let v4 = bgp.peers.iter().find_map(|peer| match peer.address {
                IpAddr::V4(address) => Some(SocketAddrV4::new(address, peer.port)),
                IpAddr::V6(_) => None,
            });
            v4.and_then(own_address::towards).or_else(|| own_address::towards(ELSEWHERE))
        };
        Some(Local {
            asn: bgp.asn,
            router_id: bgp.router_id.or_else(uplink).or_else(towards)?,
            hold_time: bgp.hold_time,
            graceful_restart: bgp.graceful_restart,
            listens: !bgp.listen.is_empty(),
        })
    }

    /// Has the sessions that are configured, and no others.
    pub(super) fn speak(&mut self) {
        let now = self.now();
        let bgp = self.inbox.setup.bgp.clone();
        let local = bgp.as_ref().and_then(|bgp| self.identity(bgp));
        let is_other = local != self.local;
        self.local = local;
        let peers = bgp.as_ref().map(|bgp| &*bgp.peers).unwrap_or_default();
        let is_silent = self.phase == Phase::Silent;
        let listen = bgp.as_ref().map(|bgp| &*bgp.listen).filter(|_| !is_silent).unwrap_or_default();
        self.listeners.follow(listen, peers.iter().map(manner).collect(), &self.news.0);
        self.end_sessions(|speaker| is_other || !peers.contains(&speaker.config), peers);
        let Some(local) = self.local.clone().filter(|_| !is_silent) else { return };
        for peer in peers {
            if !self.speakers.contains_key(&peer.address) {
                self.sessions += 1;
                let news = self.news.0.clone();
                let speaker = Speaker::new(peer.clone(), local.clone(), self.sessions, news, now);
                self.speakers.insert(peer.address, speaker);
            }
        }
        self.follow_devices();
        self.bring_routes();
    }
}
