//! Groups of announcements: what this node says of its part, and how members stand.

use std::{collections::BTreeMap, sync::Arc};

use control::cluster::{
    log::Name,
    membership::MemberState,
    records::{self, Record, Standing},
};
use tokio::sync::oneshot;

use super::{
    Task,
    shared::{Members, Then},
};
use crate::cluster::{
    groups::{GroupMember, GroupView, Groups},
    services::{ServiceOutcome, ServiceRefusal, ServicesChanged},
};

impl Task<'_> {
    /// Hears this node's part in groups.
    pub(super) fn hear_standings(&mut self, standings: BTreeMap<Name, Standing>) {
        self.inbox.standings = Some(standings);
        self.write_standings();
    }

    /// Writes this node's part in groups, where the logs say otherwise.
    pub(super) fn write_standings(&mut self) {
        let (time, now) = (self.time(), self.now());
        self.services.unstood_at = None;
        let Some(shared) = self.shared.as_mut().filter(|_| self.services.has_begun()) else { return };
        let Some(standings) = &self.inbox.standings else { return };
        let state = shared.replication.state();
        let records = records::standings(state.view(), state.name(), standings);
        if records.is_empty() {
            return;
        }
        match shared.replication.write(records, time, &mut Members(&mut self.core)) {
            Ok(turn) => self.done(turn, Vec::new()),
            Err(error) => {
                tracing::warn!("cluster: this node's part in groups is not written: {error}");
                self.services.unstood_at = Some(now + super::services::AGAIN);
            }
        }
    }

    /// Tells how groups stand, if that is news.
    pub(super) fn tell_groups(&self) {
        let Some(shared) = self.shared.as_ref().filter(|_| self.services.has_begun()) else { return };
        let view = shared.replication.state().view();
        let states: BTreeMap<_, _> = self
            .core
            .members()
            .into_iter()
            .map(|member| (member.identity.name().clone(), member.state))
            .collect();
        let is_alive = |node: &Name| {
            let state = states.iter().find(|(name, _)| name.as_str() == &**node).map(|(_, state)| *state);
            let is_maintained = view.facts_of(node).is_some_and(|facts| facts.is_in_maintenance);
            matches!(state, Some(MemberState::Alive | MemberState::Suspect)) && !is_maintained
        };
        let group = |group: &records::Group| {
            let members = group.standings().map(|(node, standing)| {
                let member = GroupMember { standing: standing.clone(), is_alive: is_alive(node) };
                (node.clone(), member)
            });
            GroupView { members: members.collect(), is_in_maintenance: group.is_in_maintenance() }
        };
        let groups: Groups = view.groups().map(|(name, found)| (name.clone(), group(found))).collect();
        self.inbox.groups.send_if_modified(|former| {
            let is_news = **former != groups;
            if is_news {
                *former = Arc::new(groups);
            }
            is_news
        });
    }

    /// A group is taken into maintenance, or back; it is answered once that is on disk.
    pub(super) fn maintain_group(
        &mut self,
        group: &Name,
        is_on: bool,
        reply: oneshot::Sender<ServiceOutcome>,
    ) {
        let (time, why_not) = (self.time(), self.why_not());
        let Some(shared) = self.shared.as_mut().filter(|shared| shared.failing.is_none()) else {
            // The client may have given up.
            return drop(reply.send(Err(ServiceRefusal::Unavailable(why_not))));
        };
        let found = shared.replication.state().view().group(group);
        let Some(found) = found else {
            let why = format!("no node announces for group {group}; 'group' in [[announce]] names it");
            return drop(reply.send(Err(ServiceRefusal::NotFound(why))));
        };
        let is_so = found.is_in_maintenance() == is_on;
        let names = (!is_so).then(|| group.clone()).into_iter().collect();
        let changed = ServicesChanged { names, ..ServicesChanged::default() };
        let records = if is_so { Vec::new() } else { vec![Record::MarkGroup(group.clone(), is_on)] };
        match shared.replication.write(records, time, &mut Members(&mut self.core)) {
            Ok(turn) => self.done(turn, vec![Then::Changed(reply, changed)]),
            Err(error) => drop(reply.send(Err(ServiceRefusal::Refused(error.to_string())))),
        }
    }
}
