//! When each of many checks is due.
//!
//! 1. A target has at most one check under way. The next one is due a spacing after the last one began, and at once where that
//!    took longer.
//! 2. So many checks as the bound are under way at a time; others that are due wait for an end, the longest due first.
//! 3. What was removed meanwhile has no result; what came back under the same key is another target.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use super::{Check, Machine, State, spread::Spread};

/// A check that is under way; its end has to be told.
#[derive(Debug, PartialEq, Eq)]
pub struct Run(u64);

/// A check that is to begin now.
#[derive(Debug, PartialEq, Eq)]
pub struct Due<K> {
    /// For its end.
    pub run: Run,
    /// Whose check.
    pub key: K,
    /// The check.
    pub check: Arc<Check>,
    /// How long it has been due.
    pub late: Duration,
}

/// What a result has made of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<K> {
    /// Whose result.
    pub key: K,
    /// How the target was.
    pub former: State,
    /// How it is.
    pub state: State,
}

/// The targets, and when each is to be checked.
#[derive(Debug)]
pub struct Schedule<K> {
    spread: Spread,
    /// Checks that may be under way at a time.
    bound: usize,
    under_way: usize,
    ids: HashMap<K, u64>,
    targets: HashMap<u64, Target<K>>,
    due: BTreeSet<(Duration, u64)>,
    last_id: u64,
}

#[derive(Clone, Debug)]
struct Target<K> {
    key: K,
    check: Arc<Check>,
    machine: Machine,
    /// Of the check under way: when it began. Of another: when it is due.
    time: Duration,
    is_under_way: bool,
}

impl<K: Clone + Eq + Hash> Schedule<K> {
    /// No targets yet. `bound` checks are under way at a time; a seed gives the same times again.
    pub fn new(bound: usize, seed: u64) -> Self {
        Self {
            spread: Spread::new(seed),
            bound: bound.max(1),
            under_way: 0,
            ids: HashMap::new(),
            targets: HashMap::new(),
            due: BTreeSet::new(),
            last_id: 0,
        }
    }

    /// How many targets there are.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// How a target is.
    pub fn state(&self, key: &K) -> Option<State> {
        Some(self.targets.get(self.ids.get(key)?)?.machine.state())
    }

    /// Has a target checked from now on, which begins in a state. One that is there keeps its own, and is due by the new check's
    /// interval at the latest.
    pub fn set(&mut self, key: &K, check: &Arc<Check>, begins: State, now: Duration) {
        if let Some(id) = self.ids.get(key).copied() {
            return self.change(id, check, now);
        }
        self.last_id += 1;
        let (id, time) = (self.last_id, self.spread.first(check.interval, now));
        let (machine, check) = (Machine::new(begins), Arc::clone(check));
        self.targets.insert(id, Target { key: key.clone(), check, machine, time, is_under_way: false });
        self.ids.insert(key.clone(), id);
        self.due.insert((time, id));
    }

    fn change(&mut self, id: u64, check: &Arc<Check>, now: Duration) {
        let Some(target) = self.targets.get_mut(&id).filter(|target| target.check != *check) else { return };
        target.check = Arc::clone(check);
        let latest = now + check.interval;
        if !target.is_under_way && target.time > latest {
            self.due.remove(&(target.time, id));
            target.time = latest;
            self.due.insert((latest, id));
        }
    }

    /// Has a target checked no more; says whether there was one.
    pub fn remove(&mut self, key: &K) -> bool {
        let Some(id) = self.ids.remove(key) else { return false };
        if let Some(target) = self.targets.remove(&id) {
            self.due.remove(&(target.time, id));
        }
        true
    }

    /// The next check that is to begin, if one is.
    pub fn begin(&mut self, now: Duration) -> Option<Due<K>> {
        let (time, id) = *self.due.first().filter(|(time, _)| *time <= now)?;
        if self.under_way >= self.bound {
            return None;
        }
        self.due.remove(&(time, id));
        let target = self.targets.get_mut(&id)?;
        (target.is_under_way, target.time) = (true, now);
        self.under_way += 1;
        let (key, check) = (target.key.clone(), Arc::clone(&target.check));
        Some(Due { run: Run(id), key, check, late: now.saturating_sub(time) })
    }

    /// Takes a check's result; none of a target that was removed.
    pub fn end(&mut self, Run(id): Run, passed: bool, now: Duration) -> Option<Step<K>> {
        self.under_way -= 1;
        let target = self.targets.get_mut(&id)?;
        let former = target.machine.state();
        target.machine.count(passed, &target.check);
        let is_steady = target.machine.below().is_steady();
        let spacing = if is_steady { target.check.interval } else { target.check.fast_interval };
        target.is_under_way = false;
        target.time = (target.time + self.spread.vary(spacing)).max(now);
        self.due.insert((target.time, id));
        Some(Step { key: target.key.clone(), former, state: target.machine.state() })
    }

    /// Takes a target out, or lets its results count again; none where there is no such target, or it is so.
    pub fn disable(&mut self, key: &K, is_disabled: bool) -> Option<Step<K>> {
        let target = self.targets.get_mut(self.ids.get(key)?)?;
        let former = target.machine.state();
        target.machine.disable(is_disabled);
        let state = target.machine.state();
        (former != state).then(|| Step { key: key.clone(), former, state })
    }

    /// When a check is to begin next; none while as many are under way as may be, or there is nothing to check.
    pub fn deadline(&self) -> Option<Duration> {
        let (time, _) = self.due.first().filter(|_| self.under_way < self.bound)?;
        Some(*time)
    }
}
