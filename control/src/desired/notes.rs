//! What there is to tell of services: what sources note, and backends that are kept though they are down.

use std::sync::Arc;

use super::{Desired, Name, Topic};
use crate::service::ServiceLife;

/// Services of one topic that are named; the rest is counted.
const NAMED: usize = 10;

const TOPICS: [Topic; 5] = [Topic::Conflict, Topic::Clash, Topic::Overruled, Topic::AllDown, Topic::Kept];

impl Desired {
    /// What there is to tell of services, some of each topic: `TOPIC: NAME: WHY`.
    pub fn notes(&self) -> Vec<String> {
        TOPICS.into_iter().flat_map(|topic| self.of_topic(topic)).collect()
    }

    fn of_topic(&self, topic: Topic) -> Vec<String> {
        let mut all = self.notes.range((topic, Name::from(""))..);
        let mut of_topic = all.by_ref().take_while(|((own, _), _)| *own == topic);
        let word = topic.name();
        let named = of_topic.by_ref().take(NAMED);
        let mut told: Vec<String> = named.map(|((_, name), why)| format!("{word}: {name}: {why}")).collect();
        match of_topic.count() {
            0 => {}
            more => told.push(format!("{word}: and {more} more services; see 'fanlight service list'")),
        }
        told
    }

    pub(super) fn note(&mut self, name: &Name, notes: &[(Topic, Arc<str>)]) {
        for (topic, why) in notes {
            self.notes.insert_mut((*topic, Arc::clone(name)), Arc::clone(why));
        }
    }

    pub(super) fn forget_notes(&mut self, name: &Name) {
        if self.notes.is_empty() {
            return;
        }
        for topic in TOPICS {
            self.notes.remove_mut(&(topic, Arc::clone(name)));
        }
    }

    /// Tells of a service whose backends are kept.
    pub(super) fn note_kept(&mut self, name: &Name) {
        let Some(entry) = self.entries.get(name) else { return };
        let usable = || entry.defined.backends.iter().filter(|own| own.weight > 0).count();
        let (topic, why) = match entry.rotation() {
            ServiceLife::AllDown => {
                (Topic::AllDown, format!("none of {} backends is up, so that all take new flows", usable()))
            }
            ServiceLife::Kept => (
                Topic::Kept,
                format!(
                    "{} of {} backends are down and take new flows all the same: too few would be left",
                    entry.kept(),
                    usable()
                ),
            ),
            _ => return,
        };
        self.notes.insert_mut((topic, Arc::clone(name)), why.into());
    }
}
