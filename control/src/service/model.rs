//! A service as it is asked for.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{health::Checking, model::quoted};

/// A service: flows to its VIP go to its backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service<V = Vip> {
    pub name: String,
    /// Where clients find it.
    pub vip: V,
    /// How a flow's backend is chosen.
    pub algorithm: Algorithm,
    /// How its backends are checked; not at all where it does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checking: Option<Arc<Checking>>,
    /// Its backends; at most one of each address and port.
    pub backends: Vec<Backend>,
}

/// A service as a source says it: its VIP may have a name instead of an address.
pub type Declared = Service<VipSpec>;

impl From<Service> for Declared {
    fn from(Service { name, vip, algorithm, checking, backends }: Service) -> Self {
        Self { name, vip: VipSpec::At(vip), algorithm, checking, backends }
    }
}

/// What a service is, beside its name and its backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Where clients find it.
    pub vip: VipSpec,
    /// How a flow's backend is chosen.
    pub algorithm: Algorithm,
    /// How its backends are checked.
    pub checking: Option<Arc<Checking>>,
}

impl Definition {
    /// A service's.
    pub fn of<V: Clone + Into<VipSpec>>(service: &Service<V>) -> Self {
        let Service { vip, algorithm, checking, .. } = service;
        Self { vip: vip.clone().into(), algorithm: *algorithm, checking: checking.clone() }
    }
}

impl<V: PartialEq> Service<V> {
    /// The backends that take new flows, in the order that makes a ring the same everywhere.
    pub fn usable(&self) -> Vec<Backend> {
        let mut usable: Vec<_> = self.backends.iter().copied().filter(|backend| backend.weight > 0).collect();
        usable.sort_unstable();
        usable
    }

    /// Whether this is one of its backends.
    pub fn has(&self, backend: SocketAddr) -> bool {
        self.backends.iter().any(|own| own.socket() == backend)
    }

    /// Whether both ask for the same, whatever the order of their backends.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let sorted = |service: &Self| {
            let mut backends = service.backends.clone();
            backends.sort_unstable();
            backends
        };
        (&self.name, &self.vip, self.algorithm, &self.checking)
            == (&other.name, &other.vip, other.algorithm, &other.checking)
            && (self.backends == other.backends || sorted(self) == sorted(other))
    }
}

/// How packets reach the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// The destination becomes the backend's, and a reply's source the VIP again.
    #[default]
    Nat,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat => "nat",
        })
    }
}

/// How a flow's backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Computed from the flow's addresses and ports: every node chooses the same.
    #[default]
    Maglev,
    /// Drawn.
    Random,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Maglev => "maglev",
            Self::Random => "random",
        })
    }
}

/// What a service carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its number in IP headers.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The protocol of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp].into_iter().find(|protocol| protocol.name() == name)
    }

    /// The protocol of a number in IP headers.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp].into_iter().find(|protocol| protocol.number() == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where clients find a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Vip {
    /// Address.
    pub address: IpAddr,
    /// Port; 0: any that no other service of the address has.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.address, self.port), self.protocol)
    }
}

/// Why a text is no VIP.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} is no VIP; write ADDRESS:PORT/tcp or ADDRESS:PORT/udp, such as 10.96.0.10:80/tcp", quoted(.0))]
pub struct VipError(String);

impl FromStr for Vip {
    type Err = VipError;

    fn from_str(text: &str) -> Result<Self, VipError> {
        let error = || VipError(text.to_owned());
        let (socket, protocol) = text.split_once('/').ok_or_else(error)?;
        let socket: SocketAddr = socket.parse().map_err(|_not_an_address| error())?;
        let protocol = Protocol::from_name(protocol);
        let zoned = matches!(socket, SocketAddr::V6(address) if address.scope_id() != 0);
        match protocol {
            Some(protocol) if !zoned => Ok(Self { address: socket.ip(), port: socket.port(), protocol }),
            _ => Err(error()),
        }
    }
}

impl TryFrom<String> for Vip {
    type Error = VipError;

    fn try_from(text: String) -> Result<Self, VipError> {
        text.parse()
    }
}

impl From<Vip> for String {
    fn from(vip: Vip) -> Self {
        vip.to_string()
    }
}

/// Where clients find a service, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum VipSpec {
    /// At this address.
    At(Vip),
    /// At the address of a name, one in the range of VIPs; VIPs of one name have one address.
    Named {
        /// The name, which is a service's own or a label's.
        name: Arc<str>,
        /// As a VIP's.
        port: u16,
        /// As a VIP's.
        protocol: Protocol,
    },
}

impl VipSpec {
    /// Longest name.
    pub const MAX_NAME: usize = 253;

    /// The VIP of a name.
    ///
    /// # Errors
    /// The name is none.
    pub fn named(name: &str, port: u16, protocol: Protocol) -> Result<Self, VipError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if name.is_empty() || name.len() > Self::MAX_NAME || !name.chars().all(is_plain) {
            return Err(VipError(format!("/{name}:{port}/{protocol}")));
        }
        Ok(Self::Named { name: name.into(), port, protocol })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        match self {
            Self::At(vip) => vip.port,
            Self::Named { port, .. } => *port,
        }
    }

    /// The VIP, where it has an address of its own.
    pub fn at(&self) -> Option<Vip> {
        match self {
            Self::At(vip) => Some(*vip),
            Self::Named { .. } => None,
        }
    }

    /// Its name, where it has one.
    pub fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::At(_) => None,
            Self::Named { name, .. } => Some(name),
        }
    }
}

impl From<Vip> for VipSpec {
    fn from(vip: Vip) -> Self {
        Self::At(vip)
    }
}

impl fmt::Display for VipSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(vip) => vip.fmt(f),
            Self::Named { name, port, protocol } => write!(f, "/{name}:{port}/{protocol}"),
        }
    }
}

impl FromStr for VipSpec {
    type Err = VipError;

    fn from_str(text: &str) -> Result<Self, VipError> {
        let Some(named) = text.strip_prefix('/') else { return text.parse().map(Self::At) };
        let parts = named.rsplit_once('/').and_then(|(place, protocol)| {
            let (name, port) = place.rsplit_once(':')?;
            Some((name, port.parse().ok()?, Protocol::from_name(protocol)?))
        });
        let (name, port, protocol) = parts.ok_or_else(|| VipError(text.to_owned()))?;
        Self::named(name, port, protocol)
    }
}

impl TryFrom<String> for VipSpec {
    type Error = VipError;

    fn try_from(text: String) -> Result<Self, VipError> {
        text.parse()
    }
}

impl From<VipSpec> for String {
    fn from(vip: VipSpec) -> Self {
        vip.to_string()
    }
}

/// A backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Address.
    pub address: IpAddr,
    /// Port; 0: the one that the client chose.
    pub port: u16,
    /// Its share of new flows among all; 0: none.
    pub weight: u32,
}

impl Backend {
    /// Address and port.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Address and port, where it has an IPv4 address.
    pub fn v4(&self) -> Option<(Ipv4Addr, u16)> {
        match self.address {
            IpAddr::V4(address) => Some((address, self.port)),
            IpAddr::V6(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vip(text: &str) -> Result<Vip, VipError> {
        text.parse()
    }

    #[test]
    fn a_vip_is_an_address_with_port_and_protocol() {
        let expected = Vip { address: [10, 96, 0, 10].into(), port: 80, protocol: Protocol::Tcp };
        assert_eq!(vip("10.96.0.10:80/tcp"), Ok(expected));
        assert_eq!(vip("10.96.0.10:0/udp").map(|vip| vip.port), Ok(0));
        for text in
            ["", "10.96.0.10:80", "10.96.0.10/tcp", "10.96.0.10:80/sctp", "web:80/tcp", "[fe80::1%2]:80/tcp"]
        {
            assert_eq!(vip(text), Err(VipError(text.to_owned())));
        }
    }

    #[test]
    fn a_vip_that_has_a_name_is_read_as_it_is_written() {
        for text in ["/web:80/tcp", "/group/app.1_x-y:0/udp", "10.96.0.10:80/tcp"] {
            assert_eq!(text.parse::<VipSpec>().map(|vip| vip.to_string()), Ok(text.to_owned()));
        }
        for text in ["/:80/tcp", "/web/tcp", "/web:80", "/w b:80/tcp", "/web:80/sctp", "/web:99999/tcp", ""] {
            assert_eq!(text.parse::<VipSpec>(), Err(VipError(text.to_owned())));
        }
    }

    #[test]
    fn the_order_of_the_configuration_does_not_matter_and_who_has_no_weight_takes_nothing() {
        let backend = |last, weight| Backend { address: [250, 0, 28, last].into(), port: 80, weight };
        let service = |backends| Service {
            name: "web".to_owned(),
            vip: vip("10.96.0.10:80/tcp").unwrap(),
            algorithm: Algorithm::Maglev,
            checking: None,
            backends,
        };
        let usable = service(vec![backend(3, 1), backend(2, 0), backend(1, 5)]).usable();
        assert_eq!(usable, [backend(1, 5), backend(3, 1)]);
        assert_eq!(usable, service(vec![backend(1, 5), backend(3, 1)]).usable());
    }

    proptest! {
        #[test]
        fn a_vip_is_read_as_it_is_written(address: IpAddr, port: u16, is_tcp: bool) {
            let protocol = if is_tcp { Protocol::Tcp } else { Protocol::Udp };
            let vip = Vip { address, port, protocol };
            prop_assert_eq!(vip.to_string().parse(), Ok(vip));
        }
    }
}
