//! Where a packet of a source meets a program first, and as which frame.

use std::net::Ipv4Addr;

use dataplane_common::{
    abi::{EndpointRecord, FanRecord},
    decide::Meta,
    fan,
    outcome::Hook,
};

use super::packet;

/// What is known of this host.
pub(super) struct Place<'a> {
    pub(super) fans: &'a [FanRecord],
    /// The host's own addresses.
    pub(super) addresses: &'a [Ipv4Addr],
    /// Endpoints of source and destination, if they are such.
    pub(super) endpoints: [Option<EndpointRecord>; 2],
    /// The source's interface is a port of its fan's bridge.
    pub(super) is_bridged: bool,
    /// The destination has a service.
    pub(super) is_vip: bool,
}

/// Where a packet starts.
pub(super) struct Start {
    pub(super) hook: Hook,
    pub(super) frame: Vec<u8>,
    pub(super) meta: Meta,
    /// In words.
    pub(super) words: String,
}

impl Place<'_> {
    /// Where a packet meets a program; `Err` says why it meets none.
    pub(super) fn start(&self, src: Ipv4Addr, dst: Ipv4Addr, bytes: &[u8]) -> Result<Start, String> {
        let own = self.fans.iter().find(|fan| src.to_bits() & fan.slice_mask == fan.slice);
        let is_host = self.addresses.contains(&src) || own.is_some_and(|fan| fan.gateway == src.to_bits());
        match (own, self.fan_of(src)) {
            _ if is_host => self.host(src, dst, bytes),
            (Some(fan), _) => Ok(self.endpoint(fan, src, dst, bytes)),
            (None, Some(fan)) => Ok(remote(fan, src, bytes)),
            (None, None) => Ok(uplink(bytes, format!("{src} lies outside: its packets come by the uplink"))),
        }
    }

    fn fan_of(&self, address: Ipv4Addr) -> Option<&FanRecord> {
        self.fans.iter().find(|fan| address.to_bits() & fan.overlay_mask == fan.overlay)
    }

    fn endpoint(&self, fan: &FanRecord, src: Ipv4Addr, dst: Ipv4Addr, bytes: &[u8]) -> Start {
        let [source, destination] = &self.endpoints;
        let is_switched =
            self.is_bridged && dst.to_bits() & fan.slice_mask == fan.slice && dst.to_bits() != fan.gateway;
        let neighbour = destination.map_or([0xff; 6], |endpoint| endpoint.mac);
        let to = if is_switched { neighbour } else { fan.bridge_mac };
        let (hook, ifindex, words) = match source {
            Some(endpoint) => {
                (Hook::EndpointIngress, endpoint.ifindex, format!("{src} is an endpoint of this host"))
            }
            None => {
                let words = format!(
                    "{src} lies in this host's slice, but is not known as an endpoint: it is taken for a port without a hook"
                );
                (Hook::BridgeIngress, fan.bridge, words)
            }
        };
        let to_us = source.is_none() && !is_switched;
        let words = if is_switched { format!("{words}, and the bridge switches to {dst}") } else { words };
        Start { hook, words, ..start(hook, packet::frame(to, bytes), ifindex, to_us) }
    }

    /// The stack sends only what is routed to the helper device.
    fn host(&self, src: Ipv4Addr, dst: Ipv4Addr, bytes: &[u8]) -> Result<Start, String> {
        let is_routed = match self.fan_of(dst) {
            Some(fan) => dst.to_bits() & fan.slice_mask != fan.slice,
            None => self.is_vip,
        };
        if !is_routed {
            return Err(format!("{src} is this host, whose own routes lead to {dst} past every program"));
        }
        let words = format!("{src} is this host, whose route leads to {dst} by fanlight0");
        Ok(Start { words, ..start(Hook::HostEgress, packet::frame([0; 6], bytes), 0, false) })
    }
}

/// From another host's slice, in the tunnel.
fn remote(fan: &FanRecord, src: Ipv4Addr, bytes: &[u8]) -> Start {
    let host = Ipv4Addr::from_bits(fan::host_of(src.to_bits(), fan.overlay_mask, fan.underlay, fan.shift));
    let outer = packet::carried(bytes, host, Ipv4Addr::from_bits(fan.address));
    uplink(&outer, format!("{src} computes to host {host}: its packets come in the tunnel from there"))
}

fn uplink(bytes: &[u8], words: String) -> Start {
    Start { words, ..start(Hook::UplinkIngress, packet::frame([0; 6], bytes), 0, true) }
}

fn start(hook: Hook, frame: Vec<u8>, ifindex: u32, to_us: bool) -> Start {
    let meta = Meta { ifindex, to_us, len: frame.len() as u32, ..Meta::default() };
    Start { hook, frame, meta, words: String::new() }
}
