//! Why a fan is not possible on this host.

use std::{fmt::Display, net::Ipv4Addr};

use dataplane_common::fan::FanError;
use ipnet::Ipv4Net;

/// Why a fan is not possible on this host. Each message says what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The two networks make no fan.
    #[error("{error}")]
    NoFan {
        /// Overlay.
        overlay: Ipv4Net,
        /// Underlay.
        underlay: Ipv4Net,
        /// Which rule they break.
        error: FanError,
    },
    /// No uplink is named, and no default route leads to one.
    #[error("there is no default route to tell the uplink; name the underlay's device, as eth0/16")]
    NoDefaultRoute,
    /// The device named doesn't exist.
    #[error("interface {name} does not exist; see `ip link`")]
    NoDevice { name: String },
    /// The device is no way to other hosts.
    #[error("interface {device} leads to no other host; name the interface that does")]
    NoUplink { device: String },
    /// The device has no IPv4 address.
    #[error("interface {device} has no IPv4 address, and underlays are IPv4; give it one, or name another")]
    NoAddress { device: String },
    /// The device has a /32 only.
    #[error(
        "{device} holds {address}/32, which tells no network; give the underlay's length, as {device}/16"
    )]
    SingleAddress {
        /// The device.
        device: String,
        /// Its address.
        address: Ipv4Addr,
    },
    /// The device is in several networks.
    #[error("{device} is in several networks; name this host's address in the underlay: {}", list(choices))]
    SeveralNetworks {
        /// The device.
        device: String,
        /// Operands that are unambiguous.
        choices: Vec<Ipv4Net>,
    },
    /// Several devices are in the underlay.
    #[error("several interfaces have an address in {underlay}; name this host's address: {}", list(choices))]
    SeveralAddresses {
        /// The underlay.
        underlay: Ipv4Net,
        /// Operands that are unambiguous.
        choices: Vec<Ipv4Net>,
    },
    /// No address of the uplink lies in the underlay.
    #[error("no uplink address of this host lies in {underlay}; it has {}", list(addresses))]
    NotInUnderlay {
        /// The underlay.
        underlay: Ipv4Net,
        /// What the host has.
        addresses: Vec<Ipv4Net>,
    },
    /// Host bits that are not this host's address.
    #[error(
        "underlay {given} has host bits set and is no address of this host; use {} or one of {}",
        given.trunc(), list(addresses)
    )]
    HostBits {
        /// As given.
        given: Ipv4Net,
        /// What the host has.
        addresses: Vec<Ipv4Net>,
    },
    /// The host's address is the network or broadcast address of the underlay.
    #[error(
        "{address} is the first or last address of {underlay} and owns no slice; use another prefix length"
    )]
    NoHostAddress {
        /// The host's address.
        address: Ipv4Addr,
        /// The underlay.
        underlay: Ipv4Net,
    },
    /// The programs look for IP headers behind Ethernet headers.
    #[error(
        "{device} has no Ethernet headers (as a tun, WireGuard or PPP device has none), and a fan needs an uplink with \
         them; name the Ethernet device to the other hosts, or join them by an Ethernet tunnel, as a tap or vxlan device is"
    )]
    NoEthernet {
        /// The uplink.
        device: String,
    },
    /// The uplink's packets are too small.
    #[error("the MTU of {device} is {mtu}; a fan needs {least} or more")]
    UplinkTooSmall {
        /// The uplink.
        device: String,
        /// Its MTU.
        mtu: u32,
        /// The least that is enough.
        least: u32,
    },
    /// Tunnel packets would be tunnelled.
    #[error(
        "overlay {overlay} and underlay {underlay} overlap; use an overlay that no host lives in, as 250.0.0.0/8"
    )]
    OverlayIsUnderlay {
        /// Overlay.
        overlay: Ipv4Net,
        /// Underlay.
        underlay: Ipv4Net,
    },
    /// Another fan has part of the overlay.
    #[error(
        "overlay {overlay} overlaps the fan {other} of this node; take that down, or use another overlay"
    )]
    OtherFan {
        /// Overlay.
        overlay: Ipv4Net,
        /// The other fan's.
        other: Ipv4Net,
    },
    /// An address of the host lies in the overlay.
    #[error(
        "overlay {overlay} overlaps {network} of {device}; use an overlay that this host has no address in"
    )]
    OverlayInUse {
        /// Overlay.
        overlay: Ipv4Net,
        /// The address and its network.
        network: Ipv4Net,
        /// Where it is.
        device: String,
    },
    /// A route of the host leads into the overlay.
    #[error(
        "overlay {overlay} contains the route {network} ({device}); remove the route, or use another overlay"
    )]
    OverlayRouted {
        /// Overlay.
        overlay: Ipv4Net,
        /// The route's destination.
        network: Ipv4Net,
        /// Where it leads.
        device: String,
    },
    /// Nothing would be left for endpoints.
    #[error("host-reserve {reserve} leaves no address of slice {slice} for endpoints; use at most {most}")]
    Reserve {
        /// As given.
        reserve: u32,
        /// The slice.
        slice: Ipv4Net,
        /// The most that leaves one.
        most: u32,
    },
    /// No interface can have that name.
    #[error("bridge '{name}': {reason}")]
    BridgeName {
        /// As given.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// The bridge's name is taken by something else.
    #[error(
        "interface {name} exists and is no bridge ({kind}); rename it, or give another with `bridge NAME`"
    )]
    NotABridge {
        /// The name.
        name: String,
        /// What it is.
        kind: String,
    },
}

fn list(items: &[impl Display]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
