//! What checks find: the state follows it, and watchers are told.

use super::Agent;
use crate::{health::News, inspect::monitor::Event};

impl Agent {
    /// Follows what checks have found.
    pub(super) fn hear_checks(&mut self, news: News) {
        let News { found, is_whole, turns } = news;
        let events = self.api.events();
        for turn in turns {
            let vip = self.applied.borrow().desired.get(&turn.service).map(|entry| entry.wanted.vip);
            events.tell(&Event::turned(&turn, vip));
        }
        if is_whole || !found.is_empty() {
            self.changes.set_found(found, is_whole);
        }
    }
}
