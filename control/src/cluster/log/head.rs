//! What an origin signs, once a version.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::{Ancestor, Epoch, MAX_ANCESTORS, Name, Version};

/// What an origin says of its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The node whose log it is.
    pub origin: Name,
    /// Its Ed25519 key (RFC 8032).
    pub key: [u8; 32],
    /// Which state of the log.
    pub version: Version,
    /// In which start its oldest ancestor was begun; a log that a node begins after it was forgotten is born later.
    pub born: u32,
    /// Tombstones up to this number are gone, other entries are not.
    pub floor: u64,
    /// The logs that it continues, by their epochs; at most [`MAX_ANCESTORS`], the latest.
    pub ancestors: Vec<Ancestor>,
    /// The digest of all entries.
    pub root: [u8; 32],
}

impl Head {
    /// Whether it continues a version of its origin's, or is that version or a later one of that log.
    pub fn covers(&self, version: Version) -> bool {
        let is_up_to = |last: Version| last.epoch == version.epoch && version.seq <= last.seq;
        if version.epoch == self.version.epoch {
            return is_up_to(self.version);
        }
        // Ancestors that found no room are the oldest ones.
        let is_older = || {
            self.ancestors.len() == MAX_ANCESTORS
                && self.ancestors.first().is_some_and(|first| version.epoch < first.version.epoch)
        };
        self.ancestors.iter().any(|ancestor| is_up_to(ancestor.version)) || is_older()
    }

    /// Whether entries of a version that it covers have the same numbers in it.
    pub(super) fn is_line_of(&self, version: Version) -> bool {
        let is_it = |last: Version| last.epoch == version.epoch && version.seq <= last.seq;
        is_it(self.version)
            || self.ancestors.iter().any(|ancestor| ancestor.is_line && is_it(ancestor.version))
    }

    /// Whether it says what heads may say.
    pub(super) fn is_well_formed(&self) -> bool {
        let epochs: Vec<Epoch> = self.ancestors.iter().map(|ancestor| ancestor.version.epoch).collect();
        is_name(&self.origin)
            && self.version.seq > 0
            && self.floor <= self.version.seq
            && self.born <= self.version.epoch.count
            && epochs.len() <= MAX_ANCESTORS
            && epochs.is_sorted_by(|one, next| one < next)
            && epochs.last().is_none_or(|last| *last < self.version.epoch)
    }

    /// The bytes that are signed: no cluster takes another one's heads.
    fn signed_bytes(&self, cluster: &str) -> Vec<u8> {
        let mut bytes = b"fanlight log head 1\0".to_vec();
        let mut part = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
            bytes.extend_from_slice(part);
        };
        part(cluster.as_bytes());
        part(self.origin.as_bytes());
        part(&self.key);
        part(&self.born.to_be_bytes());
        part(&self.floor.to_be_bytes());
        part(&self.root);
        let own = Ancestor { version: self.version, is_line: true };
        for Ancestor { version: Version { epoch, seq }, is_line } in self.ancestors.iter().chain([&own]) {
            part(&epoch.count.to_be_bytes());
            part(&epoch.tag.to_be_bytes());
            part(&seq.to_be_bytes());
            part(&[u8::from(*is_line)]);
        }
        bytes
    }
}

/// Whether a text is a host name label, as names of nodes are.
fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_letter)
}

/// A head with its origin's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// What is signed.
    pub head: Head,
    /// The signature's two halves.
    signature: [[u8; 32]; 2],
}

impl SignedHead {
    /// A head that is signed later.
    pub(super) fn unsigned(head: Head) -> Self {
        Self { head, signature: [[0; 32]; 2] }
    }

    /// A head, signed.
    pub(super) fn new(head: Head, cluster: &str, key: &SigningKey) -> Self {
        let signature = key.sign(&head.signed_bytes(cluster));
        Self { head, signature: [*signature.r_bytes(), *signature.s_bytes()] }
    }

    /// Whether the signature is the key's.
    pub(super) fn is_genuine(&self, cluster: &str) -> bool {
        let [r, s] = self.signature;
        let signature = Signature::from_components(r, s);
        let bytes = self.head.signed_bytes(cluster);
        VerifyingKey::from_bytes(&self.head.key)
            .is_ok_and(|key| key.verify_strict(&bytes, &signature).is_ok())
    }
}

#[cfg(test)]
pub(super) fn unsigned(origin: &str) -> SignedHead {
    let epoch = Epoch { count: 1, tag: 0 };
    let version = Version { epoch, seq: 1 };
    let (key, root) = ([0; 32], [0; 32]);
    let head = Head { origin: origin.into(), key, version, born: 1, floor: 0, ancestors: Vec::new(), root };
    SignedHead::unsigned(head)
}
