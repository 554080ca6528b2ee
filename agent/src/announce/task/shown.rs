//! What is shown of it, and what is wrong.

use control::announce::{Announcement, Decided, Decision, Life};

use super::{Phase, Task};
use crate::announce::rows::{AnnouncementRow, CheckRow, PeerRow, PrefixRow};

impl Task<'_> {
    pub(super) fn announcements(&self) -> Vec<AnnouncementRow> {
        let decided = self.inbox.setup.announcements.iter().zip(&self.decisions);
        let owner = &self.inbox.setup.node;
        let is_silent = self.phase == Phase::Silent;
        let prefix = |Decided { prefix, owner: other, route }: &Decided| {
            let med = route.as_ref().filter(|_| !is_silent).map(|route| route.med);
            let state = match (med, other) {
                (Some(_), None) => "announced",
                (Some(_), Some(_)) => "taken-over",
                (None, _) => "withdrawn",
            };
            let owner = other.as_ref().unwrap_or(owner);
            PrefixRow { prefix: prefix.to_string(), state: state.to_owned(), med, owner: owner.to_string() }
        };
        decided
            .map(|(own, decision)| AnnouncementRow {
                name: own.name.to_string(),
                state: self.life(own, decision),
                since: self.since.get(&own.name).map_or(0, |(_, since)| *since),
                prefixes: decision.prefixes.iter().map(prefix).collect(),
                check: self.check(own),
            })
            .collect()
    }

    /// A state's word; one that is about to change has its own.
    fn life(&self, own: &Announcement, decision: &Decision) -> String {
        let state = self.checks.state(&own.name);
        match (decision.life, state) {
            (Life::Up | Life::Down, Some(state)) => state.name().to_owned(),
            (life, _) => life.to_string(),
        }
    }

    fn check(&self, own: &Announcement) -> Option<CheckRow> {
        let state = self.checks.state(&own.name)?;
        let last = self.checks.last(&own.name);
        Some(CheckRow {
            state: state.name().to_owned(),
            last: last.map(|last| last.at),
            reason: last.map(|last| last.said.clone()),
        })
    }

    /// All peers that are configured; those without a session are idle.
    pub(super) fn peers(&self) -> Vec<PeerRow> {
        let peers = self.inbox.setup.bgp.as_ref().map(|bgp| &*bgp.peers).unwrap_or_default();
        let idle = |address: String, asn| PeerRow {
            address,
            asn,
            state: "idle".to_owned(),
            since: 0,
            sent: 0,
            withdrawn: 0,
            received: 0,
            last_error: None,
            routes: 0,
            flaps: 0,
        };
        let row = |peer: &crate::sources::config::PeerConfig| match self.speakers.get(&peer.address) {
            Some(speaker) => speaker.row(),
            None => idle(peer.address.to_string(), peer.asn),
        };
        peers.iter().map(row).collect()
    }

    /// Tells what is wrong, if that is news.
    pub(super) fn tell(&self) {
        let (_, wall) = self.now();
        let mut reasons: Vec<String> = self.marks_fault.iter().cloned().collect();
        reasons.extend(self.listeners.reasons().iter().cloned());
        if self.local.is_none() && self.inbox.setup.bgp.is_some() {
            let why = "no-router-id: this node has no IPv4 address to go by; set bgp.router-id";
            reasons.push(why.to_owned());
        }
        reasons.extend(self.speakers.values().flat_map(|speaker| speaker.reasons(wall)));
        for (own, decision) in self.inbox.setup.announcements.iter().zip(&self.decisions) {
            if decision.life == Life::Down {
                let said = self.checks.last(&own.name).map_or("not checked yet", |last| &*last.said);
                reasons.push(format!("announce-down: '{}': {said}; mend what its check asks", own.name));
            }
        }
        self.inbox.reasons.send_if_modified(|told| {
            let is_news = *told != reasons;
            if is_news {
                *told = reasons;
            }
            is_news
        });
    }
}
