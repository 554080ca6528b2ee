//! User keys as they are asked for, read and written.

use control::cluster::records::Event;
use serde::{Deserialize, Serialize};

/// A write of a user key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyWrite {
    pub key: String,
    /// None deletes.
    pub value: Option<Vec<u8>>,
    /// Only where the key has this version; 0: only where there is no such key.
    pub expected: Option<u64>,
}

/// What a write has led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyWritten {
    pub key: String,
    /// 0: there is no such key.
    pub version: u64,
}

/// Why a key was not written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum KeyRefusal {
    /// A bound, or another version.
    #[error("{0}")]
    Refused(String),
    /// Nobody could decide or store it.
    #[error("{0}")]
    Unavailable(String),
}

/// The outcome of a write.
pub(super) type KeyOutcome = Result<KeyWritten, KeyRefusal>;

/// Which keys are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRead {
    /// The one key.
    One(String),
    /// All that begin so, sorted.
    Prefix(String),
}

/// A user key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: String,
    pub value: Vec<u8>,
    /// Grows with every change of the key.
    pub version: u64,
    /// Who wrote it.
    pub node: String,
    /// When, in milliseconds since 1970 by its writer's clock.
    pub time_ms: u64,
}

/// What a reader that follows keys is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    /// A key has a value.
    Put(KeyValue),
    /// A key is no more.
    Delete(String),
    /// Everything that was there has been told.
    Ready,
    /// Changes were lost: everything that is there follows.
    Resync,
}

impl From<Event> for KeyEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::Put { key, value, version, node, time_ms } => Self::Put(KeyValue {
                key: key.to_string(),
                value: value.as_slice().to_vec(),
                version,
                node: node.to_string(),
                time_ms,
            }),
            Event::Delete { key } => Self::Delete(key.to_string()),
            Event::Ready => Self::Ready,
            Event::Resync => Self::Resync,
        }
    }
}

/// What such a reader is given at a time.
pub(super) type Batch = Vec<KeyEvent>;
