//! A fan as it is asked for ([`FanSpec`]) and as it is on this node ([`Fan`]).

use std::{fmt, net::Ipv4Addr, str::FromStr};

use dataplane_common::{abi, fan::FanMap};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::quoted;

/// What happens to packets that leave the overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// They leave with the host's own address.
    #[default]
    Masquerade,
    /// They leave as they are: the network beyond routes the overlay back.
    Route,
    /// They are dropped.
    Drop,
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Masquerade => "masquerade",
            Self::Route => "route",
            Self::Drop => "drop",
        })
    }
}

impl FromStr for Egress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "masquerade" => Ok(Self::Masquerade),
            "route" => Ok(Self::Route),
            "drop" => Ok(Self::Drop),
            other => Err(format!("egress {} is unknown; use masquerade, route or drop", quoted(other))),
        }
    }
}

/// How packets are carried between hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// IPv4 in IPv4 (RFC 2003).
    #[default]
    Ipip,
}

impl Encapsulation {
    /// The programs' number for it.
    pub fn abi(self) -> abi::Encapsulation {
        match self {
            Self::Ipip => abi::Encapsulation::Ipip,
        }
    }

    /// Bytes that the outer header adds.
    pub fn overhead(self) -> u32 {
        self.abi().overhead()
    }
}

impl fmt::Display for Encapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipip => "ipip",
        })
    }
}

impl FromStr for Encapsulation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ipip" => Ok(Self::Ipip),
            "gre" | "vxlan" | "gue" => {
                Err(format!("encapsulation '{text}' is not supported by this version; use ipip"))
            }
            other => Err(format!("encapsulation {} is unknown; use ipip", quoted(other))),
        }
    }
}

/// The underlay as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnderlaySpec {
    /// The network of the device that holds the default route; `len` widens or narrows it.
    Default {
        /// Prefix length of the underlay network; the address's own when absent.
        len: Option<u8>,
    },
    /// The network of a device's address.
    Device {
        /// Interface name.
        name: String,
        /// Prefix length of the underlay network; the address's own when absent.
        len: Option<u8>,
    },
    /// A network that one of this host's addresses lies in.
    Network(Ipv4Net),
    /// This host's own address, with the underlay's prefix length.
    Host(Ipv4Net),
}

impl fmt::Display for UnderlaySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { len: None } => f.write_str("default"),
            Self::Default { len: Some(len) } => write!(f, "default/{len}"),
            Self::Device { name, len: None } => f.write_str(name),
            Self::Device { name, len: Some(len) } => write!(f, "{name}/{len}"),
            Self::Network(net) | Self::Host(net) => net.fmt(f),
        }
    }
}

/// A fan as asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanSpec {
    /// Overlay network.
    pub overlay: Ipv4Net,
    /// Underlay.
    pub underlay: UnderlaySpec,
    /// How packets are carried.
    #[serde(default, skip_serializing_if = "is_default")]
    pub encapsulation: Encapsulation,
    /// The first N addresses of the slice are left alone by DHCP and by automatic choice.
    pub host_reserve: u32,
    /// What happens to packets that leave the overlay.
    #[serde(default, skip_serializing_if = "is_default")]
    pub egress: Egress,
    /// Bridge to use instead of the computed name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bridge: Option<String>,
    /// Whether this host hands out the slice's addresses by DHCP.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dhcp: bool,
    /// The resolvers that DHCP offers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dns: Vec<Ipv4Addr>,
}

#[cfg(any(test, feature = "fixtures"))]
impl FanSpec {
    /// 250.0.0.0/8 over `eth0`, for tests to start from.
    pub fn example() -> Self {
        Self {
            overlay: Ipv4Net::new_assert([250, 0, 0, 0].into(), 8),
            underlay: UnderlaySpec::Device { name: "eth0".to_owned(), len: Some(16) },
            encapsulation: Encapsulation::Ipip,
            host_reserve: 1,
            egress: Egress::Masquerade,
            bridge: None,
            dhcp: false,
            dns: Vec::new(),
        }
    }
}

/// Resolvers as the operand `dns` has them.
pub fn dns_words(resolvers: &[Ipv4Addr]) -> String {
    if resolvers.is_empty() {
        return "none".to_owned();
    }
    resolvers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Defaults are left out, because a bridge's alias, where a fan is remembered, has room for 255 bytes.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Where a fan was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// On the command line.
    Manual,
    /// In the file of fans.
    File,
    /// In the agent's configuration.
    Config,
}

/// The interface that carries a fan's tunnel packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Its MTU.
    pub mtu: u32,
    /// The network that is directly connected to it.
    pub network: Ipv4Net,
}

/// A fan resolved on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fan {
    /// As it was asked for.
    pub spec: FanSpec,
    /// The arithmetic.
    pub map: FanMap,
    /// Underlay network.
    pub underlay: Ipv4Net,
    /// This host's address in the underlay.
    pub address: Ipv4Addr,
    /// The interface that holds it.
    pub uplink: Uplink,
    /// Further interfaces that tunnel packets may take, where several uplinks are configured.
    pub more_uplinks: Vec<Uplink>,
    /// This host's part of the overlay.
    pub slice: Ipv4Net,
    /// This host's address in it: the first.
    pub gateway: Ipv4Addr,
    /// Name of the bridge.
    pub bridge: String,
    /// Largest inner packet.
    pub mtu: u32,
    /// Where it was asked for.
    pub origin: Origin,
}

impl Fan {
    /// All interfaces that tunnel packets may take.
    pub fn uplinks(&self) -> impl Iterator<Item = &Uplink> {
        std::iter::once(&self.uplink).chain(&self.more_uplinks)
    }
}

/// The first difference between two specifications of one overlay, as `key A instead of B`.
pub fn difference(first: &FanSpec, second: &FanSpec) -> Option<String> {
    let name = |bridge: &Option<String>| bridge.clone().unwrap_or_else(|| "by slice".to_owned());
    let pairs = [
        ("underlay", first.underlay.to_string(), second.underlay.to_string()),
        ("encapsulation", first.encapsulation.to_string(), second.encapsulation.to_string()),
        ("host-reserve", first.host_reserve.to_string(), second.host_reserve.to_string()),
        ("egress", first.egress.to_string(), second.egress.to_string()),
        ("bridge", name(&first.bridge), name(&second.bridge)),
        ("dhcp", first.dhcp.to_string(), second.dhcp.to_string()),
        ("dns", dns_words(&first.dns), dns_words(&second.dns)),
    ];
    pairs.into_iter().find(|(_, a, b)| a != b).map(|(key, a, b)| format!("{key} is {b} instead of {a}"))
}
