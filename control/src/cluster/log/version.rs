//! Which state of a log, and which others it continues.

use serde::{Deserialize, Serialize};

/// How many logs a head says that it continues; of older ones it continues all.
pub const MAX_ANCESTORS: usize = 8;

/// One start of a node: a count of starts that grows, and a random tag.
///
/// A node that lost its store may count from one again. The tag keeps such an epoch apart from the former of its count, so
/// that a version never means two things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Which start, as far as the node remembers.
    pub count: u32,
    /// Drawn at the start.
    pub tag: u32,
}

/// A state of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// In which start of its node it was made.
    pub epoch: Epoch,
    /// The number of its last entry.
    pub seq: u64,
}

/// A log that another one continues, up to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// The last version that is continued.
    pub version: Version,
    /// Whether its entries kept their numbers: one that has it needs only the entries after it.
    pub is_line: bool,
}
