//! Datagrams between nodes.
//!
//! A version (1 byte), then what a key ring sealed ([`super::keyring`]), with the version and the cluster's name as associated
//! data. Without keys: four zero bytes where a key's id would stand, a hash of the cluster's name (8 bytes), the plain text.
//! The plain text is an [`Envelope`] in postcard's encoding; what follows it is left for later versions.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{
    identity::Identity,
    keyring::{Keyring, Unopened},
};

/// Bytes of a datagram at most: what passes any underlay of 1,428 bytes whole.
pub(super) const MAX_DATAGRAM: usize = 1_400;

/// Bytes of a [`Message::Swim`] or [`Message::Payload`] at most, beside the longest sender.
pub(super) const MAX_BODY: usize = 1_200;

const VERSION: u8 = 1;
const UNSEALED: [u8; 4] = [0; 4];

/// What says that the sender has this cluster's name and one of its keys.
pub(super) struct Seal {
    associated: Vec<u8>,
    name_hash: [u8; 8],
    keyring: Option<Keyring>,
}

/// A text with its sender.
#[derive(Serialize, Deserialize, Debug)]
pub(super) struct Envelope<'a> {
    pub(super) sender: Sender,
    /// Milliseconds since this identity's process started: what bounds replay.
    pub(super) uptime: u64,
    /// Milliseconds since 1970 by the sender's wall clock.
    pub(super) wall: u64,
    #[serde(borrow)]
    pub(super) message: Message<'a>,
}

/// The sender of a datagram.
#[derive(Serialize, Deserialize, Debug)]
pub(super) enum Sender {
    Full(Identity),
    /// The hash of the name and the digest of the identity: in answers to messages that named that identity.
    Known {
        place: u64,
        digest: u64,
    },
}

/// An `echo` is the nonce of the greeting that is answered, 0 where none is.
#[derive(Serialize, Deserialize, Debug)]
pub(super) enum Message<'a> {
    /// A message of failure detection with the updates it carries.
    Swim(&'a [u8]),
    /// Asks to be taken as a member. `cookie` is that of a challenge.
    Hello { nonce: u64, cookie: u64 },
    /// Asks for the greeting again, with this cookie: the sender is unknown and its clock is far off.
    Challenge { echo: u64, cookie: u64 },
    /// The sender is a member, and takes the receiver for one.
    Welcome { echo: u64 },
    /// The receiver's identity is not the newest of its name, or was taken for dead: it needs a generation above this one.
    Outdated { echo: u64, generation: u64, holder: Option<Identity> },
    /// The receiver's name belongs to this identity.
    Taken { echo: u64, holder: Identity },
    /// The sum of all that the sender knows of members.
    Digest { sum: u64 },
    /// The sum here is another one: an exchange is due.
    Differs,
    /// The sender stops.
    Leave,
    /// What another protocol sends: its number and bytes.
    Payload(u8, &'a [u8]),
}

/// Why a datagram was not taken. What is refused gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Longer or shorter than any datagram, or of another version.
    Shape,
    /// Sealed with a key that is not in the ring.
    UnknownKey,
    /// Sealed with a known key for a cluster of another name, or altered.
    OtherClusterOrAltered,
    /// Not sealed, and of a cluster of another name.
    OtherCluster,
    /// Not sealed, where keys are asked for.
    Unsealed,
    /// Sealed, where there are no keys.
    Sealed,
    /// Opened, and not understood.
    Malformed,
    /// From this node itself.
    Own,
    /// Of a sender that names itself by a digest that is not known.
    UnknownSender,
    /// Of an unknown sender whose clock is far off, without the cookie of a challenge.
    Stale,
    /// Sent before what was heard from its sender a minute ago.
    Replayed,
    /// From a name that belongs to another key or to another living node.
    NameTaken,
    /// For another identity than this node's.
    Misaddressed,
    /// From a new name, with as many known as there may be.
    Full,
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Self; 14] = [
        Self::Shape,
        Self::UnknownKey,
        Self::OtherClusterOrAltered,
        Self::OtherCluster,
        Self::Unsealed,
        Self::Sealed,
        Self::Malformed,
        Self::Own,
        Self::UnknownSender,
        Self::Stale,
        Self::Replayed,
        Self::NameTaken,
        Self::Misaddressed,
        Self::Full,
    ];

    /// Its name for scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shape => "shape",
            Self::UnknownKey => "unknown-key",
            Self::OtherClusterOrAltered => "other-cluster-or-altered",
            Self::OtherCluster => "other-cluster",
            Self::Unsealed => "unsealed",
            Self::Sealed => "sealed",
            Self::Malformed => "malformed",
            Self::Own => "own",
            Self::UnknownSender => "unknown-sender",
            Self::Stale => "stale",
            Self::Replayed => "replayed",
            Self::NameTaken => "name-taken",
            Self::Misaddressed => "misaddressed",
            Self::Full => "full",
        }
    }

    /// Whether somebody ought to look: keys, the cluster's name, or a strange program. The rest comes with any change.
    pub fn is_trouble(self) -> bool {
        match self {
            Self::Shape
            | Self::UnknownKey
            | Self::OtherClusterOrAltered
            | Self::OtherCluster
            | Self::Unsealed
            | Self::Sealed
            | Self::Malformed
            | Self::Full => true,
            Self::Own
            | Self::UnknownSender
            | Self::Stale
            | Self::Replayed
            | Self::NameTaken
            | Self::Misaddressed => false,
        }
    }
}

impl Seal {
    pub(super) fn new(cluster: &str, keyring: Option<Keyring>) -> Self {
        let mut associated = vec![VERSION];
        associated.extend_from_slice(cluster.as_bytes());
        let hash = blake3::derive_key("fanlight 2026 name of a cluster", cluster.as_bytes());
        let mut name_hash = [0; 8];
        name_hash.copy_from_slice(&hash[..8]);
        Self { associated, name_hash, keyring }
    }

    pub(super) fn set_keyring(&mut self, keyring: Option<Keyring>) {
        self.keyring = keyring;
    }

    /// 64 bits that stand for the cluster's name.
    pub(super) fn cluster(&self) -> u64 {
        u64::from_le_bytes(self.name_hash)
    }

    /// A datagram; none when the message is too long for one.
    pub(super) fn seal(&self, rng: &mut impl Rng, envelope: &Envelope<'_>) -> Option<Vec<u8>> {
        self.wrap(rng, &postcard::to_allocvec(envelope).ok()?)
    }

    /// A datagram of a plain text.
    pub(super) fn wrap(&self, rng: &mut impl Rng, plain: &[u8]) -> Option<Vec<u8>> {
        let mut datagram = Vec::with_capacity(plain.len() + 64);
        datagram.push(VERSION);
        if let Some(keyring) = &self.keyring {
            keyring.seal(rng, &self.associated, plain, &mut datagram);
        } else {
            datagram.extend_from_slice(&UNSEALED);
            datagram.extend_from_slice(&self.name_hash);
            datagram.extend_from_slice(plain);
        }
        (datagram.len() <= MAX_DATAGRAM).then_some(datagram)
    }

    /// The plain text of a datagram.
    pub(super) fn open(&self, datagram: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (version, rest) = datagram.split_first().ok_or(Refusal::Shape)?;
        if *version != VERSION || datagram.len() > MAX_DATAGRAM {
            return Err(Refusal::Shape);
        }
        match (&self.keyring, rest.strip_prefix(&UNSEALED)) {
            (Some(keyring), None) => {
                keyring.open(&self.associated, rest).map_err(|unopened| match unopened {
                    Unopened::Short => Refusal::Shape,
                    Unopened::UnknownKey => Refusal::UnknownKey,
                    Unopened::Altered => Refusal::OtherClusterOrAltered,
                })
            }
            (None, Some(plain)) => {
                let plain = plain.strip_prefix(&self.name_hash).ok_or(Refusal::OtherCluster)?;
                Ok(plain.to_vec())
            }
            (Some(_), Some(_)) => Err(Refusal::Unsealed),
            (None, None) => Err(Refusal::Sealed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::cluster::identity::{NodeName, PublicKey};

    fn ring(letter: &str) -> Option<Keyring> {
        Some(Keyring::parse(&format!("{}=", letter.repeat(43))).unwrap())
    }

    fn sealed(seal: &Seal, message: Message<'_>) -> Option<Vec<u8>> {
        let name = NodeName::new(&"n".repeat(NodeName::MAX)).unwrap();
        let address = "255.255.255.255:65535".parse().unwrap();
        let sender = Identity::new(name, address, u64::MAX, PublicKey([7; 32]));
        let sender = Sender::Full(sender);
        let envelope = Envelope { sender, uptime: 1 << 40, wall: 1 << 41, message };
        seal.seal(&mut StdRng::seed_from_u64(1), &envelope)
    }

    #[test]
    fn the_longest_body_fits_into_a_datagram_beside_the_longest_sender() {
        let body = [1; MAX_BODY];
        let seal = Seal::new("prod", ring("A"));
        let datagram = sealed(&seal, Message::Payload(1, &body)).unwrap();
        let plain = seal.open(&datagram).unwrap();
        let envelope: Envelope<'_> = postcard::from_bytes(&plain).unwrap();
        assert!(matches!(envelope.message, Message::Payload(1, bytes) if bytes == body));
        assert!(sealed(&seal, Message::Payload(1, &[1; MAX_DATAGRAM])).is_none());
    }

    #[test]
    fn what_is_not_the_clusters_is_refused_with_its_reason() {
        let (keyed, plain) = (Seal::new("prod", ring("A")), Seal::new("prod", None));
        let of = |seal: &Seal| sealed(seal, Message::Differs).unwrap();
        let cases = [
            (&keyed, of(&plain), Refusal::Unsealed),
            (&plain, of(&keyed), Refusal::Sealed),
            (&keyed, of(&Seal::new("prod", ring("Q"))), Refusal::UnknownKey),
            (&keyed, of(&Seal::new("test", ring("A"))), Refusal::OtherClusterOrAltered),
            (&plain, of(&Seal::new("test", None)), Refusal::OtherCluster),
            (&plain, vec![2; 100], Refusal::Shape),
            (&plain, vec![1; 1_401], Refusal::Shape),
        ];
        for (seal, datagram, refusal) in cases {
            assert_eq!(seal.open(&datagram), Err(refusal));
        }
        assert!(keyed.open(&of(&keyed)).is_ok() && plain.open(&of(&plain)).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_datagrams_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            prop_assert!(Seal::new("prod", ring("A")).open(&bytes).is_err());
        }
    }
}
