//! One key of a log with what stands there.

use std::{cmp::Ordering, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Name;
use crate::{cluster::clock::Stamp, model::fnv1a};

/// Bytes of a key that a log takes at most.
pub const MAX_KEY: usize = 1_024;
/// Bytes of a value that a log takes at most: 64 KiB of a user's and what belongs to it.
pub const MAX_VALUE: usize = 65_536 + 1_024;

/// What an entry takes in memory beside its key and value, in bytes: measured, rounded up.
const OVERHEAD: usize = 160;

/// Bytes that are shared and never change.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(Arc<[u8]>);

impl Bytes {
    /// As a slice.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl<B: AsRef<[u8]> + ?Sized> From<&B> for Bytes {
    fn from(bytes: &B) -> Self {
        Self(bytes.as_ref().into())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(bytes.into())
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// What an entry is about.
pub type Key = Bytes;

/// What stands at a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The entry's number in its log.
    pub seq: u64,
    /// When it was written.
    pub stamp: Stamp,
    /// Who wrote it, where that is another than the log's origin: a record that was taken over keeps writer and stamp.
    pub writer: Option<Name>,
    /// The value; `None`: a tombstone.
    pub value: Option<Bytes>,
}

/// A key with what stands there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is about.
    pub key: Key,
    /// What stands there.
    pub item: Item,
}

/// A key with its place in the digest: keys are ordered by it first, so that those of a bucket are neighbours.
pub(super) type Place = (u8, Key);

/// The place of a key.
pub(super) fn place(key: &Key) -> Place {
    let hash = fnv1a(key.as_slice());
    ((hash ^ (hash >> 32)) as u8, key.clone())
}

impl Item {
    /// Which of two items of one key holds: by stamp, then a removal before a value, then by their bytes.
    pub(crate) fn later(&self, other: &Self) -> Ordering {
        let rank = |item: &Self| (item.stamp, item.value.is_none());
        rank(self)
            .cmp(&rank(other))
            .then_with(|| (&self.writer, &self.value).cmp(&(&other.writer, &other.value)))
    }

    /// Whether key and value are small enough for a log.
    pub(super) fn fits(&self, key: &Key) -> bool {
        let value = self.value.as_ref().map_or(0, |value| value.as_slice().len());
        let writer = self.writer.as_ref().map_or(0, |writer| writer.len());
        (1..=MAX_KEY).contains(&key.as_slice().len()) && value <= MAX_VALUE && writer <= 63
    }

    /// What it takes in memory, with its key, in bytes.
    pub(super) fn size(&self, key: &Key) -> usize {
        OVERHEAD + key.as_slice().len() + self.value.as_ref().map_or(0, |value| value.as_slice().len())
    }

    /// What it takes in a message at most, with its key, in bytes.
    pub(super) fn wire_size(&self, key: &Key) -> usize {
        let bytes = |bytes: &[u8]| bytes.len() + 3;
        let writer = self.writer.as_ref().map_or(0, |writer| bytes(writer.as_bytes()));
        let value = self.value.as_ref().map_or(0, |value| bytes(value.as_slice()));
        bytes(key.as_slice()) + writer + value + Self::LEAST_WIRE_SIZE
    }

    /// What any takes in a message at least, by [`Self::wire_size`].
    pub(super) const LEAST_WIRE_SIZE: usize = 20;

    /// The digest of an entry.
    pub(super) fn digest(&self, key: &Key) -> blake3::Hash {
        let mut bytes = Vec::with_capacity(self.wire_size(key) + 32);
        let mut part = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
            bytes.extend_from_slice(part);
        };
        part(b"entry");
        part(key.as_slice());
        part(&self.seq.to_be_bytes());
        part(&self.stamp.number().to_be_bytes());
        part(self.writer.as_ref().map_or(&[], |writer| writer.as_bytes()));
        // A tombstone ends here; an empty value has a length.
        if let Some(value) = &self.value {
            part(value.as_slice());
        }
        blake3::hash(&bytes)
    }
}
