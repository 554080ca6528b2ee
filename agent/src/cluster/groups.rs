//! Groups of announcements as members stand.

use std::collections::BTreeMap;

use control::cluster::{log::Name, records::Standing};

/// All groups by name.
pub type Groups = BTreeMap<Name, GroupView>;

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupView {
    /// Its members by name.
    pub members: BTreeMap<Name, GroupMember>,
    /// Nothing of it is to be announced.
    pub is_in_maintenance: bool,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// What it says of its part.
    pub standing: Standing,
    /// It is alive, and not in maintenance.
    pub is_alive: bool,
}
