//! Groups of announcements as members stand.

use std::collections::BTreeMap;

use control::cluster::{log::Name, records::Standing};
use tokio::sync::{oneshot, watch};

use super::{asking::answered, handle::Reader, services::ServiceRefusal, task::Command};

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

impl Reader {
    /// How groups stand.
    pub fn groups(&self) -> watch::Receiver<std::sync::Arc<Groups>> {
        self.groups.clone()
    }

    /// Tells this node's part in groups: all of it. Members are told what is news.
    pub fn tell_standings(&self, standings: BTreeMap<Name, Standing>) {
        // Without a task there is a reason to be degraded.
        drop(self.commands.send(Command::Standings(standings)));
    }

    /// A group is taken into maintenance on all its members, or back; whether that is news.
    ///
    /// # Errors
    /// No node is in such a group, or it can't be stored.
    pub async fn maintain_group(&self, group: Name, is_on: bool) -> Result<bool, ServiceRefusal> {
        let (answer, outcome) = oneshot::channel();
        drop(self.commands.send(Command::MaintainGroup(group, is_on, answer)));
        let changed = answered(outcome).await?;
        Ok(!changed.names.is_empty())
    }
}
