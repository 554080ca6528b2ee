//! Changes of user keys for one reader that may be slow.

use std::collections::{BTreeSet, VecDeque};

use super::view::View;
use crate::cluster::log::{Bytes, Name};

/// What a reader is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key has a value.
    Put {
        /// The key.
        key: Name,
        /// Its value.
        value: Bytes,
        /// Its version.
        version: u64,
        /// Who wrote it.
        node: Name,
        /// When, in milliseconds since 1970 by its writer's clock.
        time_ms: u64,
    },
    /// A key is no more.
    Delete {
        /// The key.
        key: Name,
    },
    /// Everything that was there has been told.
    Ready,
    /// Changes were lost: everything that is there follows.
    Resync,
}

/// What is told next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Keys after this one, which is told.
    Listing(Option<Name>),
    /// Changes.
    Following,
}

/// Watches the user keys that begin with a prefix.
#[derive(Clone, Debug)]
pub struct Watcher {
    prefix: String,
    place: Place,
    /// Keys with changes that are not told yet, in the order of the first, and the same sorted.
    queue: VecDeque<Name>,
    queued: BTreeSet<Name>,
    limit: usize,
    is_lost: bool,
}

impl Watcher {
    /// A watcher that holds at most `limit` changed keys for its reader.
    pub fn new(prefix: &str, limit: usize) -> Self {
        let place = Place::Listing(None);
        let (queue, queued) = Default::default();
        Self { prefix: prefix.to_owned(), place, queue, queued, limit, is_lost: false }
    }

    /// Follows changes of user keys. What a key is then is told once the reader comes to it.
    pub fn follow(&mut self, touched: &BTreeSet<Name>) {
        for key in touched.iter().filter(|key| key.starts_with(&self.prefix)) {
            // What is listed later is told as it is then.
            let is_told = match &self.place {
                Place::Following => true,
                Place::Listing(last) => last.as_ref().is_some_and(|last| key <= last),
            };
            if self.is_lost || !is_told || self.queued.contains(key) {
                continue;
            }
            if self.queue.len() >= self.limit {
                (self.queue, self.queued) = Default::default();
                self.is_lost = true;
                return;
            }
            self.queue.push_back(key.clone());
            self.queued.insert(key.clone());
        }
    }

    /// What the reader is told next; `None`: nothing has happened.
    pub fn next(&mut self, view: &View) -> Option<Event> {
        if std::mem::take(&mut self.is_lost) {
            self.place = Place::Listing(None);
            return Some(Event::Resync);
        }
        if let Some(key) = self.queue.pop_front() {
            self.queued.remove(&key);
            return Some(event(view, &key));
        }
        let Place::Listing(last) = &self.place else { return None };
        let key = view.first_user_after(&self.prefix, last.as_deref()).cloned();
        let Some(key) = key else {
            self.place = Place::Following;
            return Some(Event::Ready);
        };
        let event = event(view, &key);
        self.place = Place::Listing(Some(key));
        Some(event)
    }
}

fn event(view: &View, key: &Name) -> Event {
    match view.user(key) {
        Some(user) => Event::Put {
            key: key.clone(),
            value: user.value.clone(),
            version: user.version,
            node: user.node.clone(),
            time_ms: user.time_ms,
        },
        None => Event::Delete { key: key.clone() },
    }
}
