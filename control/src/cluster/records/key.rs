//! Records' keys as bytes: a kind, then what the record is about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::cluster::log::{Key, Name};

const DEFINITION: u8 = 1;
const BACKEND: u8 = 2;
const DRAIN: u8 = 3;
const FACTS: u8 = 4;
const FORGOTTEN: u8 = 5;
const USER: u8 = 6;
const CLAIM: u8 = 7;
const VERDICT: u8 = 8;

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    /// What a service is, beside its backends.
    Definition(Name),
    /// A backend that the log's origin contributes to a service.
    Backend(Name, SocketAddr),
    /// A backend that takes no new flows.
    Drain(Name, SocketAddr),
    /// The log's origin.
    Facts,
    /// A node that was forgotten.
    Forgotten(Name),
    /// A key of the users.
    User(Name),
    /// What a file of the log's origin says of a service: service, file.
    Claim(Name, Name),
    /// What the log's origin has found of a backend by checking it.
    Verdict(Name, SocketAddr),
}

impl RecordKey {
    /// As bytes.
    pub fn encode(&self) -> Key {
        let mut bytes = Vec::with_capacity(40);
        match self {
            Self::Definition(name) => named(&mut bytes, DEFINITION, name),
            Self::Backend(name, socket) => at(&mut bytes, BACKEND, name, *socket),
            Self::Drain(name, socket) => at(&mut bytes, DRAIN, name, *socket),
            Self::Verdict(name, socket) => at(&mut bytes, VERDICT, name, *socket),
            Self::Facts => bytes.push(FACTS),
            Self::Forgotten(name) => named(&mut bytes, FORGOTTEN, name),
            Self::User(key) => named(&mut bytes, USER, key),
            Self::Claim(name, file) => {
                named(&mut bytes, CLAIM, name);
                bytes.push(0);
                bytes.extend_from_slice(file.as_bytes());
            }
        }
        bytes.as_slice().into()
    }

    /// From bytes; `None`: a kind of a later version, or none at all.
    pub fn decode(key: &Key) -> Option<Self> {
        let (kind, rest) = key.as_slice().split_first()?;
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(Name::from);
        let split = || {
            let end = rest.iter().position(|byte| *byte == 0)?;
            Some((text(&rest[..end])?, &rest[end + 1..]))
        };
        Some(match *kind {
            DEFINITION => Self::Definition(text(rest)?),
            BACKEND => split().and_then(|(name, rest)| Some(Self::Backend(name, socket(rest)?)))?,
            DRAIN => split().and_then(|(name, rest)| Some(Self::Drain(name, socket(rest)?)))?,
            VERDICT => split().and_then(|(name, rest)| Some(Self::Verdict(name, socket(rest)?)))?,
            FACTS if rest.is_empty() => Self::Facts,
            FORGOTTEN => Self::Forgotten(text(rest)?),
            USER => Self::User(text(rest)?),
            CLAIM => split().and_then(|(name, rest)| Some(Self::Claim(name, text(rest)?)))?,
            _ => return None,
        })
    }
}

fn named(bytes: &mut Vec<u8>, kind: u8, name: &str) {
    bytes.push(kind);
    bytes.extend_from_slice(name.as_bytes());
}

fn at(bytes: &mut Vec<u8>, kind: u8, name: &str, socket: SocketAddr) {
    named(bytes, kind, name);
    bytes.push(0);
    match socket.ip() {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
    bytes.extend_from_slice(&socket.port().to_be_bytes());
}

fn socket(bytes: &[u8]) -> Option<SocketAddr> {
    let (address, port) = bytes.split_last_chunk::<2>()?;
    let v4 = || Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?)));
    let v6 = || Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)));
    Some(SocketAddr::new(v4().or_else(v6)?, u16::from_be_bytes(*port)))
}
