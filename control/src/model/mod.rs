//! Fans as they are asked for, and as they are on this node.

mod bridge_name;
mod fan;
mod hash;
mod host_filters;
mod ports;
mod quoted;
mod time;
mod uplink_hook;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

pub(crate) use bridge_name::check_bridge_name;
pub use bridge_name::{HELPER, INLET_MACS, bridge_name, inlet_names};
pub use fan::{Egress, Encapsulation, Fan, FanSpec, Origin, UnderlaySpec, Uplink, difference, dns_words};
pub use hash::fnv1a;
pub use host_filters::HostFilters;
pub use ports::PortRange;
pub use quoted::{clipped, quoted};
pub use time::utc;
pub use uplink_hook::UplinkHook;

/// Number of our routes (`RTPROT_*`), which no routing daemon uses: those sweep what carries theirs.
pub const ROUTE_PROTOCOL: u8 = 250;

/// Number of our policy rule, and of its table.
pub const SMALL_PATHS: u32 = 250;

/// The largest MTU that a veth takes.
pub const VETH_MTU: u32 = 65_535;

/// MAC addresses of the helper device's ends.
pub const HELPER_MACS: [[u8; 6]; 2] =
    [[0x02, 0xfa, 0x66, 0x61, 0x6e, 0x00], [0x02, 0xfa, 0x66, 0x61, 0x6e, 0x01]];

/// MAC address of the bridge of an underlay address: one a host, and the same after it was deleted and made anew.
pub fn bridge_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0xfa, a, b, c, d]
}

/// A network of a fan's record: its first address and its mask.
pub fn network(address: u32, mask: u32) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from_bits(address), mask.leading_ones() as u8)
}
