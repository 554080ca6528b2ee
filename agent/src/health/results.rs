//! What checks have found, for readers.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use control::health::State;

use super::{probe::Outcome, targets::Key};

/// Upper bounds of the histogram of checks' times.
pub const BOUNDS: [Duration; 9] = [
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(10),
];

/// What is known of a backend that this node checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How it is.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// The last result: when it came, whether it passed, how long the check took, what it has seen.
    pub last: Option<Last>,
}

/// The last result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// When it came.
    pub time: SystemTime,
    /// Whether it passed.
    pub passed: bool,
    /// How long the check took.
    pub took: Duration,
    /// What it has seen, in one line.
    pub said: Arc<str>,
}

/// All checks in numbers, since the agent's start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Backends that this node checks.
    pub targets: u64,
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
    /// How long they took, together.
    pub took: Duration,
    /// How many took no longer than each of [`BOUNDS`], and longer than the one before; the last: longer than all.
    pub times: [u64; BOUNDS.len() + 1],
    /// By how much the last checks began late at most, over some seconds.
    pub late: Duration,
}

/// What checks have found; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Results(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    found: HashMap<Key, Found>,
    totals: Totals,
    /// Of the window under way, and the one before.
    late: [Duration; 2],
    /// Of the same saying there is one, mostly.
    said: Option<Arc<str>>,
}

impl Results {
    /// What is known of a backend; nothing where this node does not check it.
    pub fn of(&self, service: &str, backend: SocketAddr) -> Option<Found> {
        self.lock().found.get(&(Arc::from(service), backend)).cloned()
    }

    /// All checks in numbers.
    pub fn totals(&self) -> Totals {
        let inner = self.lock();
        let late = inner.late.into_iter().max().unwrap_or_default();
        Totals { targets: inner.found.len() as u64, late, ..inner.totals.clone() }
    }

    /// Nothing is checked.
    pub(super) fn forget(&self) {
        self.lock().found.clear();
    }

    /// A backend is checked from now on.
    pub(super) fn begin(&self, key: &Key, state: State) {
        let found = || Found { state, since: SystemTime::now(), last: None };
        self.lock().found.entry(key.clone()).or_insert_with(found);
    }

    /// A backend is checked no more.
    pub(super) fn leave(&self, key: &Key) {
        self.lock().found.remove(key);
    }

    /// A check has ended, and its target is so now.
    pub(super) fn end(&self, key: &Key, state: Option<State>, outcome: &Outcome) {
        let mut inner = self.lock();
        let Inner { found, totals, said, .. } = &mut *inner;
        match outcome.passed {
            true => totals.passed += 1,
            false => totals.failed += 1,
        }
        totals.took += outcome.took;
        let place = BOUNDS.iter().position(|bound| outcome.took <= *bound).unwrap_or(BOUNDS.len());
        totals.times[place] += 1;
        let (Some(found), Some(state)) = (found.get_mut(key), state) else { return };
        let time = SystemTime::now();
        if found.state != state {
            (found.state, found.since) = (state, time);
        }
        // Ten thousand results mostly say the same.
        let said = match said.as_ref().filter(|said| ***said == *outcome.said) {
            Some(said) => Arc::clone(said),
            None => Arc::clone(said.insert(outcome.said.as_str().into())),
        };
        found.last = Some(Last { time, passed: outcome.passed, took: outcome.took, said });
    }

    /// A check began late by so much.
    pub(super) fn note_late(&self, late: Duration) {
        let mut inner = self.lock();
        inner.late[0] = inner.late[0].max(late);
    }

    /// A window of lateness is over.
    pub(super) fn next_window(&self) {
        let mut inner = self.lock();
        inner.late = [Duration::ZERO, inner.late[0]];
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
