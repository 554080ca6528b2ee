//! Names and identities of nodes.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A node's name: a host name label of `a-z`, `0-9` and `-`, 1 to 63 bytes, with a letter or digit at either end (RFC 1123).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// Why a text is no node's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no node name: take a host name label of a-z, 0-9 and -, at most {max} bytes",
    max = NodeName::MAX
)]
pub struct NameError(String);

impl NodeName {
    /// Bytes that a name has at most.
    pub const MAX: usize = 63;

    /// # Errors
    /// The text is no host name label. A long one is cut in the message.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_whole = !text.is_empty() && text.len() <= Self::MAX && text.bytes().all(is_inner);
        if is_whole && !text.starts_with('-') && !text.ends_with('-') {
            Ok(Self(text.into()))
        } else {
            Err(NameError(text.chars().take(Self::MAX + 1).collect()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A node's Ed25519 public key (RFC 8032). Here it only tells nodes of one name apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// One life of a node: its name, where it is reached, its key, and a generation that grows at each start, at each change of
/// the address, and whenever the node was taken for dead.
///
/// Of two identities of one name and key the higher generation is the later one. Sharing makes a copy cheap.
#[derive(Clone)]
pub struct Identity {
    /// Beside the pointer, so that a search among thousands follows none.
    place: NamePlace,
    parts: Arc<Parts>,
}

#[derive(PartialEq, Eq)]
struct Parts {
    name: NodeName,
    address: SocketAddrV4,
    generation: u64,
    key: PublicKey,
    digest: u64,
}

/// What a name is found by: 64 bits of its BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NamePlace(pub(in crate::cluster) u64);

impl NamePlace {
    pub fn of(name: &NodeName) -> Self {
        Self(first_word(&blake3::hash(name.0.as_bytes())))
    }
}

fn first_word(hash: &blake3::Hash) -> u64 {
    let bytes = hash.as_bytes();
    u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

impl Identity {
    pub fn new(name: NodeName, address: SocketAddrV4, generation: u64, key: PublicKey) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&address.ip().octets());
        hasher.update(&address.port().to_le_bytes());
        hasher.update(&generation.to_le_bytes());
        hasher.update(&key.0);
        hasher.update(name.0.as_bytes());
        let digest = first_word(&hasher.finalize());
        let place = NamePlace::of(&name);
        Self { place, parts: Arc::new(Parts { name, address, generation, key, digest }) }
    }

    pub fn name(&self) -> &NodeName {
        &self.parts.name
    }

    /// The advertised address: the only one that datagrams for this node are sent to.
    pub fn address(&self) -> SocketAddrV4 {
        self.parts.address
    }

    pub fn generation(&self) -> u64 {
        self.parts.generation
    }

    pub fn key(&self) -> PublicKey {
        self.parts.key
    }

    pub(super) fn place(&self) -> NamePlace {
        self.place
    }

    pub(super) fn place_ref(&self) -> &NamePlace {
        &self.place
    }

    /// 64 bits that stand for the whole identity.
    pub(super) fn digest(&self) -> u64 {
        self.parts.digest
    }

    /// The same node in a later life.
    pub(super) fn renewed(&self, generation: u64, address: SocketAddrV4) -> Self {
        Self::new(self.name().clone(), address, generation, self.key())
    }

    /// The order of lives. That of address and key only makes it total.
    fn rank(&self) -> (u64, SocketAddrV4, PublicKey) {
        (self.generation(), self.address(), self.key())
    }
}

/// Identities that are held once, for all nodes of a process: ten thousand simulated ones would else hold each as often.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<BTreeMap<u64, Identity>>>);

impl Pool {
    /// The one that is held of equal ones.
    pub(super) fn held(&self, identity: Identity) -> Identity {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get(&identity.digest()) {
            Some(other) if *other == identity => other.clone(),
            Some(_) => identity,
            None => held.entry(identity.digest()).or_insert(identity).clone(),
        }
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place && (Arc::ptr_eq(&self.parts, &other.parts) || self.parts == other.parts)
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, address) = (self.name(), self.address());
        write!(formatter, "{name}@{address}#{}/{:?}", self.generation(), self.key())
    }
}

impl foca::Identity for Identity {
    type Addr = NamePlace;

    fn renew(&self) -> Option<Self> {
        Some(self.renewed(self.generation().checked_add(1)?, self.address()))
    }

    fn addr(&self) -> NamePlace {
        self.place
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.rank() > adversary.rank()
    }
}

type Encoded<'a> = (&'a str, [u8; 4], u16, u64, [u8; 32]);

impl Serialize for Identity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let address = self.address();
        let encoded: Encoded<'_> =
            (self.name().as_str(), address.ip().octets(), address.port(), self.generation(), self.key().0);
        encoded.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (name, ip, port, generation, key) = Encoded::deserialize(deserializer)?;
        let name = NodeName::new(name).map_err(de::Error::custom)?;
        Ok(Self::new(name, SocketAddrV4::new(Ipv4Addr::from(ip), port), generation, PublicKey(key)))
    }
}

#[cfg(test)]
mod tests {
    use foca::Identity as _;

    use super::*;

    fn identity(generation: u64) -> Identity {
        let name = NodeName::new("host-28").unwrap();
        Identity::new(name, "172.30.0.28:7481".parse().unwrap(), generation, PublicKey([7; 32]))
    }

    #[test]
    fn a_name_is_a_host_name_label() {
        for name in ["a", "host-28", "0", &"x".repeat(63)] {
            assert_eq!(NodeName::new(name).unwrap().as_str(), name);
        }
        for name in ["", "-a", "a-", "Host", "a.b", "a_b", "ä", "a b", &"x".repeat(64)] {
            assert!(NodeName::new(name).is_err(), "{name}");
        }
        let long = NodeName::new(&"X".repeat(5_000)).unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn the_later_life_wins() {
        let (first, second) = (identity(1), identity(1).renew().unwrap());
        assert!(second.win_addr_conflict(&first) && !first.win_addr_conflict(&second));
        assert_eq!(first.addr(), second.addr());
        assert_ne!(first.digest(), second.digest());
        assert!(identity(u64::MAX).renew().is_none());
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let bytes = postcard::to_allocvec(&identity(1_795_242_852)).unwrap();
        assert_eq!(postcard::from_bytes::<Identity>(&bytes).unwrap(), identity(1_795_242_852));
        let wrong = postcard::to_allocvec(&("Host", [0u8; 4], 1u16, 1u64, [0u8; 32])).unwrap();
        assert!(postcard::from_bytes::<Identity>(&wrong).is_err());
    }
}
