//! Members that are forgotten: on one node by a command, on the others by the mark that this leaves in its log.

use control::cluster::identity::NodeName;

use super::{Task, shared::Members};

impl Task<'_> {
    /// Has all members forget one, with what it has written for itself.
    pub(super) fn forget_everywhere(&mut self, name: &NodeName) {
        let time = self.time();
        let Some(shared) = &mut self.shared else { return };
        let name = name.as_str().into();
        match shared.replication.forget(&name, time, &mut Members(&mut self.core)) {
            Ok(turn) => self.done(turn, Vec::new()),
            Err(error) => tracing::warn!("cluster: {error}"),
        }
    }

    /// Forgets members that a mark says are forgotten. A node may hear of the mark first and of the member afterwards, from one
    /// that has yet to hear of the mark. One that has come back has a log again.
    pub(super) fn forget_marked(&mut self) {
        let Some(shared) = &self.shared else { return };
        let state = shared.replication.state();
        let is_marked = |name: &NodeName| {
            state.view().forgotten(name.as_str()).is_some()
                && state.logs().heads(name.as_str()).next().is_none()
        };
        let members = self.core.members().into_iter();
        let gone = members.filter(|member| !member.state.is_reachable());
        let marked: Vec<_> = gone.map(|member| member.identity.name().clone()).filter(is_marked).collect();
        let at = self.moment();
        for name in marked {
            // One that has answered just now has begun anew.
            drop(self.core.forget(at, &name));
        }
    }
}
