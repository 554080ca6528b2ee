//! Checks of announcements: when each is due, and what the last one has seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use control::{
    announce::{Announcement, Health},
    health::{Run, Schedule, State},
};
use tokio::task::JoinSet;

use super::{Task, asked::Unsaved};
use crate::health::{self, Seen};

/// Checks under way at a time.
const UNDER_WAY: usize = 64;

/// What a check has seen last.
#[derive(Clone, Debug)]
pub(super) struct Last {
    /// Seconds since 1970.
    pub(super) at: u64,
    pub(super) said: String,
}

/// A check that has ended.
pub(super) type Ended = (Run, Arc<str>, Seen);

/// The checks by the announcements' names.
pub(super) struct Checks {
    schedule: Schedule<Arc<str>>,
    names: BTreeSet<Arc<str>>,
    targets: BTreeMap<Arc<str>, SocketAddr>,
    under_way: JoinSet<Ended>,
    last: BTreeMap<Arc<str>, Last>,
    prober: health::Reader,
}

impl Checks {
    pub(super) fn new() -> Self {
        Self {
            schedule: Schedule::new(UNDER_WAY, getrandom::u64().unwrap_or_default()),
            names: BTreeSet::new(),
            targets: BTreeMap::new(),
            under_way: JoinSet::new(),
            last: BTreeMap::new(),
            prober: health::Reader::default(),
        }
    }

    /// Follows the configuration; those that were up before this agent begin so.
    pub(super) fn follow(
        &mut self,
        announcements: &[Announcement],
        were_up: &BTreeSet<String>,
        now: Duration,
    ) {
        let mut names = BTreeSet::new();
        for own in announcements {
            let Some(check) = &own.check else { continue };
            let begins = if were_up.contains(&*own.name) { State::Up } else { State::Init };
            self.schedule.set(&own.name, &check.check, begins, now);
            self.targets.insert(Arc::clone(&own.name), check.target);
            names.insert(Arc::clone(&own.name));
        }
        for gone in self.names.difference(&names) {
            self.schedule.remove(gone);
            self.last.remove(gone);
        }
        self.names = names;
    }

    /// Begins what is due.
    pub(super) fn begin(&mut self, now: Duration) {
        while let Some(due) = self.schedule.begin(now) {
            let target = self.targets.get(&due.key).copied();
            let target = target.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
            let prober = self.prober.clone();
            self.under_way.spawn(async move {
                let seen = prober.check_announcement(&due.check, &due.key, target).await;
                (due.run, due.key, seen)
            });
        }
    }

    /// Waits for the end of one. Dropping this loses nothing.
    pub(super) async fn ended(&mut self) -> Ended {
        loop {
            match self.under_way.join_next().await {
                Some(Ok(ended)) => return ended,
                // One that panicked counts as under way from then on; the task map tells of it.
                Some(Err(error)) => tracing::error!("check of an announcement: {error}"),
                None => std::future::pending().await,
            }
        }
    }

    /// Counts what one has seen; says whether the state is another.
    pub(super) fn end(&mut self, (run, name, seen): Ended, (now, wall): (Duration, u64)) -> bool {
        let step = self.schedule.end(run, seen.passed, now).filter(|step| step.former != step.state);
        if let Some(step) = &step {
            let (former, state) = (step.former.name(), step.state.name());
            tracing::info!("check of announcement {name}: {former} -> {state}: {}", seen.said);
        }
        if self.names.contains(&name) {
            self.last.insert(name, Last { at: wall, said: seen.said });
        }
        step.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.schedule.deadline()
    }

    pub(super) fn state(&self, name: &Arc<str>) -> Option<State> {
        self.schedule.state(name)
    }

    pub(super) fn last(&self, name: &str) -> Option<&Last> {
        self.last.get(name)
    }

    /// What counts for what is announced; none without a check.
    pub(super) fn health(&self, name: &Arc<str>) -> Option<Health> {
        let state = self.state(name)?;
        Some(match state.is_up() {
            None => Health::Unknown,
            Some(true) => Health::Up,
            Some(false) => Health::Down,
        })
    }

    /// Those that are up.
    pub(super) fn up(&self) -> BTreeSet<String> {
        let up = self.names.iter().filter(|name| self.health(name) == Some(Health::Up));
        up.map(ToString::to_string).collect()
    }
}

impl Task<'_> {
    /// Counts what a check has seen; what is up is remembered.
    pub(super) fn count(&mut self, ended: Ended) {
        if !self.checks.end(ended, self.now()) {
            return;
        }
        self.decide();
        let up = self.checks.up();
        if up != self.marks.up {
            self.marks.up = up;
            self.unsaved.push(Unsaved::Nobody);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_counts_that_is_not_checked() {
        let mut checks = Checks::new();
        checks.follow(&[], &["apex".to_owned()].into(), Duration::ZERO);
        assert_eq!((checks.health(&"apex".into()), checks.deadline()), (None, None));
        assert!(checks.up().is_empty());
    }
}
