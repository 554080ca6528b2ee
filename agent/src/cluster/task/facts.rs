//! What this node says of itself: where it is, what it runs, and whether it is being worked on.

use control::cluster::records::{Facts, Record};
use ipnet::IpNet;
use tokio::sync::oneshot;

use super::{
    Task,
    shared::{Members, Then},
};
use crate::cluster::services::{ServiceOutcome, ServiceRefusal, ServicesChanged};

impl Task<'_> {
    /// The facts; maintenance as it is, or as it is to be.
    fn facts(&self, former: Option<&Facts>, maintenance: Option<bool>) -> Facts {
        let around = &self.inbox.settings.around;
        let mut addresses = around.addresses.clone();
        addresses.insert((*self.core.identity().address().ip()).into());
        Facts {
            addresses: addresses.into_iter().collect(),
            slices: around.slices.iter().map(|slice| IpNet::V4(*slice)).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_in_maintenance: maintenance
                .unwrap_or_else(|| former.is_some_and(|former| former.is_in_maintenance)),
        }
    }

    /// Says what this node is, where the logs say otherwise. A node that says nothing could not be forgotten everywhere.
    pub(super) fn write_facts(&mut self) {
        let time = self.time();
        let Some(shared) = &self.shared else { return };
        let state = shared.replication.state();
        let former = state.view().facts_of(state.name());
        let facts = self.facts(former, None);
        if former == Some(&facts) {
            return;
        }
        let Some(shared) = &mut self.shared else { return };
        match shared.replication.write(vec![Record::Facts(facts)], time, &mut Members(&mut self.core)) {
            Ok(turn) => self.done(turn, Vec::new()),
            Err(error) => tracing::warn!("cluster: {error}"),
        }
    }

    /// This node leaves rotation, or comes back; it is answered once that is on disk.
    pub(super) fn maintain(&mut self, is_on: bool, reply: oneshot::Sender<ServiceOutcome>) {
        let (time, why_not) = (self.time(), self.why_not());
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.failing.is_none()) else {
            // The client may have given up.
            return drop(reply.send(Err(ServiceRefusal::Unavailable(why_not))));
        };
        let state = shared.replication.state();
        let (former, own) = (state.view().facts_of(state.name()), state.name().clone());
        let facts = self.facts(former, Some(is_on));
        let is_so = former == Some(&facts);
        let names = (!is_so).then_some(own).into_iter().collect();
        let changed = ServicesChanged { names, ..ServicesChanged::default() };
        let Some(shared) = self.shared.as_mut() else { return };
        let records = if is_so { Vec::new() } else { vec![Record::Facts(facts)] };
        match shared.replication.write(records, time, &mut Members(&mut self.core)) {
            Ok(turn) => self.done(turn, vec![Then::Changed(reply, changed)]),
            Err(error) => drop(reply.send(Err(ServiceRefusal::Refused(error.to_string())))),
        }
    }
}
