//! From the configuration and what is so to what each peer has.

use std::{collections::BTreeMap, sync::Arc};

use control::announce::{
    Announcement, Condition, Decision, Facts, Placement, decide, graceful, routes, table,
};

use super::{Ending, Phase, Task, asked::Unsaved};
use crate::announce::hooks::state;

impl Task<'_> {
    /// What is served now and goes on being so; none while nobody knows.
    fn facts(&self) -> Option<Facts> {
        let held = self.inbox.held.as_ref()?;
        Some(self.inbox.soon.as_ref().map_or_else(|| held.clone(), |soon| held.meet(soon)))
    }

    pub(super) fn condition(&self, own: &Announcement) -> Condition {
        Condition {
            check: self.checks.health(&own.name),
            is_disabled: self.marks.disabled.contains(&*own.name) || self.by_file.contains(&own.name),
            is_maintained: self.marks.maintenance,
            is_group_maintained: self.is_group_maintained(own),
        }
    }

    /// Decides what is announced, and has it so.
    pub(super) fn decide(&mut self) {
        let mut facts = self.facts().unwrap_or_default();
        facts.taken = self.take_over();
        let announcements = &self.inbox.setup.announcements;
        self.decisions = announcements.iter().map(|own| decide(own, &facts, self.condition(own))).collect();
        let (_, wall) = self.now();
        let mut since = BTreeMap::new();
        for (own, decision) in self.inbox.setup.announcements.iter().zip(&self.decisions) {
            let former = self.since.get(&own.name).filter(|(life, _)| *life == decision.life);
            if former.is_none() {
                tracing::info!("announcement {}: {}", own.name, decision.life);
            }
            since.insert(Arc::clone(&own.name), *former.unwrap_or(&(decision.life, wall)));
        }
        self.since = since;
        self.tell_commands();
        self.bring_routes();
    }

    /// Has each peer get what it is to have.
    pub(super) fn bring_routes(&mut self) {
        let now = self.now();
        if self.inbox.held.is_none() {
            return;
        }
        let decided = || self.inbox.setup.announcements.iter().zip(&self.decisions);
        for (peer, speaker) in &mut self.speakers {
            let mut wanted = routes(decided(), *peer);
            if let Phase::Draining(_) = self.phase {
                wanted = graceful(&wanted);
            }
            speaker.want(&Arc::new(wanted), now);
        }
        let mut loopback = std::mem::take(&mut self.loopback);
        loopback.follow(self.announced(), now.0);
        self.loopback = loopback;
        self.place();
    }

    /// Announcements with what is decided of them; in silence none.
    fn announced(&self) -> impl Iterator<Item = (&Announcement, &Decision)> {
        let count = if self.phase == Phase::Silent { 0 } else { usize::MAX };
        self.inbox.setup.announcements.iter().zip(&self.decisions).take(count)
    }

    /// Has the kernel's tables and `lo` hold what announcements need there. Where the agent leaves, the datapath stays, and
    /// so do these.
    pub(super) fn place(&self) {
        if self.stopping.as_ref().is_some_and(|(ending, _)| *ending == Ending::Leave) {
            return;
        }
        let placement = Placement { tables: table(self.announced()), loopback: self.loopback.addresses() };
        self.inbox.tables.send_if_modified(|former| {
            let is_news = former.as_deref() != Some(&placement);
            if is_news {
                *former = Some(Arc::new(placement));
            }
            is_news
        });
    }

    /// Runs the commands of announcements whose state is another than they were told last.
    fn tell_commands(&mut self) {
        let mut is_news = false;
        for (own, decision) in self.inbox.setup.announcements.iter().zip(&self.decisions) {
            let Some(state) = state(decision.life).filter(|_| own.hooks != Default::default()) else {
                continue;
            };
            if self.marks.told.insert(own.name.to_string(), state.to_owned()).as_deref() != Some(state) {
                is_news = true;
                self.hooks.run(own, state);
            }
        }
        if is_news {
            self.unsaved.push(Unsaved::Nobody);
        }
    }
}
