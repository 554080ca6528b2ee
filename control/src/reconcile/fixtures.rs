//! One fan, 250.0.0.0/8 over 172.30.0.0/16, on host 172.30.0.28, and devices around it.

use std::net::Ipv4Addr;

use bytemuck::Zeroable;
use dataplane_common::abi::FanRecord;

use crate::observed::{Link, Record};

pub const BRIDGE: u32 = 2;
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(250, 0, 28, 1);

pub fn fan() -> FanRecord {
    FanRecord {
        overlay: Ipv4Addr::new(250, 0, 0, 0).to_bits(),
        overlay_mask: 0xff00_0000,
        underlay: Ipv4Addr::new(172, 30, 0, 0).to_bits(),
        underlay_mask: 0xffff_0000,
        slice: Ipv4Addr::new(250, 0, 28, 0).to_bits(),
        slice_mask: 0xffff_ff00,
        address: Ipv4Addr::new(172, 30, 0, 28).to_bits(),
        gateway: GATEWAY.to_bits(),
        mtu: 1480,
        bridge: BRIDGE,
        shift: 8,
        ..FanRecord::zeroed()
    }
}

pub fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(250, 0, 28, last)
}

pub fn veth(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.into(),
        mac: [2, 0, 0, 0, 1, index as u8],
        mtu: 1480,
        kind: Some("veth".into()),
        master: None,
        peer: Some(2),
        up: true,
        carrier: true,
        noarp: false,
        gso_segments: 0,
        headerless: false,
        loopback: false,
        peer_netns: true,
        alias: None,
        bus: None,
        xdp: Vec::new(),
    }
}

pub fn port(index: u32, name: &str) -> Link {
    Link { master: Some(BRIDGE), ..veth(index, name) }
}

fn alias(name: &str, is_routed: bool, addresses: &[Ipv4Addr]) -> Option<String> {
    let record = Record::new(name.into(), name.into(), is_routed, addresses.to_vec());
    record.to_alias().ok()
}

pub fn bridged(index: u32, name: &str, addresses: &[Ipv4Addr]) -> Link {
    Link { alias: alias(name, false, addresses), ..port(index, name) }
}

pub fn routed(index: u32, name: &str, addresses: &[Ipv4Addr]) -> Link {
    Link { alias: alias(name, true, addresses), ..veth(index, name) }
}
