//! Groups: what this node takes over of members that are away, and what it tells them of its own part.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use control::{
    announce::{Announcement, Away, Group, Life, Member, Members, Taken, What},
    cluster::{log::Name, records::Standing},
};
use ipnet::IpNet;
use tokio::sync::watch;

use super::{Phase, Task};
use crate::cluster::{self, GroupView};

/// The cluster, once this node takes part in one.
pub(in crate::announce) type Clusters = watch::Receiver<Option<cluster::Reader>>;

/// What is known of groups.
#[derive(Default)]
pub(super) struct Held {
    reader: Option<cluster::Reader>,
    news: Option<watch::Receiver<Arc<cluster::Groups>>>,
    /// Members that are away, by the announcement.
    away: BTreeMap<Arc<str>, Away>,
    /// What members were told last.
    told: Option<BTreeMap<Name, Standing>>,
}

impl Held {
    /// Waits for another cluster or for news of groups. Dropping this loses nothing.
    pub(super) async fn changed(&mut self, clusters: &mut Clusters) {
        let news = async {
            let is_ended = match &mut self.news {
                Some(news) => news.changed().await.is_err(),
                None => true,
            };
            if is_ended {
                // Until another begins.
                std::future::pending().await
            }
        };
        let other = async {
            if clusters.changed().await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = other => self.follow(clusters),
            () = news => {}
        }
    }

    /// Asks the cluster that there is.
    pub(super) fn follow(&mut self, clusters: &mut Clusters) {
        self.reader = clusters.borrow_and_update().clone();
        self.news = self.reader.as_ref().map(cluster::Reader::groups);
        self.told = None;
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.away.values().filter_map(Away::deadline).min()
    }

    fn view(&self, group: &Group) -> GroupView {
        let groups = self.news.as_ref().map(|news| Arc::clone(&news.borrow())).unwrap_or_default();
        groups
            .iter()
            .find(|(name, _)| ***name == *group.name)
            .map(|(_, view)| view.clone())
            .unwrap_or_default()
    }
}

/// An announcement's own prefixes and its group, if it is of one.
fn grouped(announcement: &Announcement) -> Option<(&[IpNet], &Group)> {
    match &announcement.what {
        What::Own(own, group) => Some((own, group)),
        What::Prefixes(_) | What::Services(..) | What::Slices | What::Endpoints => None,
    }
}

impl Task<'_> {
    /// Whether an announcement's group is in maintenance.
    pub(super) fn is_group_maintained(&self, announcement: &Announcement) -> bool {
        grouped(announcement).is_some_and(|(_, group)| self.groups.view(group).is_in_maintenance)
    }

    /// What members may count on of an announcement: it is up, and a router has all of it from here.
    fn is_relied_on(&self, announcement: &Announcement) -> bool {
        let mut heard = self
            .speakers
            .iter()
            .filter(|(peer, _)| announcement.peers.is_empty() || announcement.peers.contains(peer));
        self.phase == Phase::Speaking
            && self.stopping.is_none()
            && self.inbox.held.is_some()
            && self.condition(announcement).life() == Life::Up
            && (!announcement.via.bgp
                || heard.any(|(_, speaker)| speaker.is_established() && speaker.is_flushed()))
    }

    /// What is taken over now, by the announcement.
    pub(super) fn take_over(&mut self) -> BTreeMap<Arc<str>, Vec<Taken>> {
        let (now, _) = self.now();
        let node = Arc::clone(&self.inbox.setup.node);
        let mut taken = BTreeMap::new();
        let mut away = std::mem::take(&mut self.groups.away);
        for announcement in &self.inbox.setup.announcements {
            let Some((own, group)) = grouped(announcement) else { continue };
            let mut members: Members = self.groups.view(group).members.into_iter().map(seen).collect();
            let is_up = self.is_relied_on(announcement);
            members.insert(Arc::clone(&node), Member { own: own.to_vec(), is_up });
            let state = away.entry(Arc::clone(&announcement.name)).or_default();
            taken.insert(Arc::clone(&announcement.name), state.follow(&group.takeover, &node, &members, now));
        }
        away.retain(|name, _| taken.contains_key(name));
        self.groups.away = away;
        taken
    }

    /// Tells members this node's part where that is news, and follows what it means for what is taken over.
    pub(super) fn stand(&mut self) {
        let announcements = self.inbox.setup.announcements.iter();
        let standing = |announcement: &Announcement| {
            let (own, group) = grouped(announcement)?;
            let standing = Standing { own: own.to_vec(), is_up: self.is_relied_on(announcement) };
            Some((Name::from(&*group.name), standing))
        };
        let standings: BTreeMap<Name, Standing> = announcements.filter_map(standing).collect();
        if self.groups.told.as_ref() == Some(&standings) || self.inbox.held.is_none() {
            return;
        }
        if let Some(reader) = &self.groups.reader {
            reader.tell_standings(standings.clone());
        }
        self.groups.told = Some(standings);
        self.decide();
    }

    /// Gives up what is due.
    pub(super) fn give_up(&mut self, now: Duration) {
        if self.groups.deadline().is_some_and(|deadline| deadline <= now) {
            self.decide();
        }
    }
}

fn seen((name, member): (Name, cluster::GroupMember)) -> (Arc<str>, Member) {
    let is_up = member.is_alive && member.standing.is_up;
    (Arc::from(&*name), Member { own: member.standing.own, is_up })
}
