//! What a step did to the logs.

use super::{Item, Key, Name, SignedHead};

/// An entry that is another one now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose log.
    pub origin: Name,
    /// Which of the origin's logs.
    pub slot: u32,
    /// The entry's key.
    pub key: Key,
    /// What stood there.
    pub was: Option<Item>,
    /// What stands there; `None`: nothing, not even a tombstone.
    pub now: Option<Item>,
}

/// What a step did, to be stored as one transaction.
///
/// Both lists are in order: where two are about one thing, the later one holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "what was taken is lost at the next start unless it is stored"]
pub struct Effects {
    /// Entries.
    pub changes: Vec<Change>,
    /// Heads by origin and slot; `None`: the log is no more.
    pub heads: Vec<(Name, u32, Option<SignedHead>)>,
}

impl Effects {
    /// Whether nothing was done.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.heads.is_empty()
    }

    /// Adds what was done afterwards.
    pub fn extend(&mut self, later: Self) {
        self.changes.extend(later.changes);
        self.heads.extend(later.heads);
    }
}
