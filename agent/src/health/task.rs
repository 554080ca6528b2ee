//! The thread of the checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use control::{
    cluster::membership::MemberState,
    desired::{Desired, Name},
    health::{Run, Schedule},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};

use super::{
    News, Reader, TURNS, Turned,
    probe::{Outcome, Subject},
    targets::{Key, Members, Targets, Turn},
};
use crate::{cluster, kernel::descriptors};

/// Checks under way at a time, where the process may have as many descriptors.
const UNDER_WAY: usize = 4_096;
/// How often the members are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Looks in a window of lateness.
const WINDOW: u32 = 40;
/// How long what was found waits for more: ten thousand backends that come up together are few changes.
const REST: Duration = Duration::from_millis(10);

/// Checks until nobody says any more what there is.
pub(super) fn run(
    desired: watch::Receiver<Arc<Desired>>,
    cluster: watch::Receiver<Option<cluster::Reader>>,
    news: &mpsc::Sender<News>,
    reader: &Reader,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        // The thread begins anew.
        Err(error) => panic!("the kernel gives no event queue: {error}"),
    };
    runtime.block_on(Task::new(desired, cluster, news.clone(), reader.clone()).serve());
    runtime.shutdown_background();
}

struct Task {
    desired: watch::Receiver<Arc<Desired>>,
    cluster: watch::Receiver<Option<cluster::Reader>>,
    news: mpsc::Sender<News>,
    reader: Reader,
    start: Instant,
    schedule: Schedule<Key>,
    targets: Targets,
    under_way: JoinSet<(Run, Key, Outcome)>,
    /// Services of which something else was found, and was not told.
    untold: BTreeSet<Key>,
    turns: Vec<Turned>,
    tell_at: Option<Instant>,
    /// Whether the cluster was told all, or the event loop, whichever is to be.
    has_told: Option<bool>,
}

enum Wake {
    Desired(bool),
    Ended(Run, Key, Outcome),
    Look,
    Time,
}

impl Task {
    fn new(
        desired: watch::Receiver<Arc<Desired>>,
        cluster: watch::Receiver<Option<cluster::Reader>>,
        news: mpsc::Sender<News>,
        reader: Reader,
    ) -> Self {
        reader.results.forget();
        let bound = descriptors::raise().map_or(UNDER_WAY, |descriptors| UNDER_WAY.min(descriptors / 2));
        let seed = getrandom::u64().unwrap_or_default();
        Self {
            desired,
            cluster,
            news,
            reader,
            start: Instant::now(),
            schedule: Schedule::new(bound, seed),
            targets: Targets::default(),
            under_way: JoinSet::new(),
            untold: BTreeSet::new(),
            turns: Vec::new(),
            tell_at: None,
            has_told: None,
        }
    }

    async fn serve(mut self) {
        self.desired.mark_changed();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0;
        loop {
            let due =
                self.schedule.deadline().map(|due| self.start + due).into_iter().chain(self.tell_at).min();
            let time = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let wake = tokio::select! {
                biased;
                changed = self.desired.changed() => Wake::Desired(changed.is_ok()),
                Some(ended) = self.under_way.join_next() => match ended {
                    Ok((run, key, outcome)) => Wake::Ended(run, key, outcome),
                    // The thread begins anew, and tells it.
                    Err(failed) => std::panic::resume_unwind(failed.into_panic()),
                },
                _ = looks.tick() => Wake::Look,
                () = time => Wake::Time,
            };
            match wake {
                Wake::Desired(false) => return,
                Wake::Desired(true) => self.retarget(),
                Wake::Ended(run, key, outcome) => self.end(run, &key, outcome),
                Wake::Look => {
                    count += 1;
                    if count % WINDOW == 0 {
                        self.reader.results.next_window();
                    }
                    self.retarget();
                }
                Wake::Time => {}
            }
            self.begin();
            if self.tell_at.is_some_and(|at| at <= Instant::now()) {
                self.tell();
            }
        }
    }

    /// Follows what is to be checked.
    fn retarget(&mut self) {
        let desired = Arc::clone(&self.desired.borrow_and_update());
        // Nothing was said yet: to take that for nothing to check would take all out.
        if desired.generation == 0 {
            return;
        }
        let members = self.cluster.borrow().as_ref().and_then(members);
        let was_clustered = self.targets.is_clustered();
        let now = self.start.elapsed();
        for turn in self.targets.follow(&desired, members) {
            match turn {
                Turn::Check(key, check, begins) => {
                    let is_new = self.schedule.state(&key).is_none();
                    self.schedule.set(&key, &check, begins, now);
                    if is_new {
                        self.reader.results.begin(&key, begins);
                        self.untold.insert(key);
                    }
                }
                Turn::Leave(key) => {
                    self.schedule.remove(&key);
                    self.reader.results.leave(&key);
                    self.untold.insert(key);
                }
            }
        }
        if was_clustered != self.targets.is_clustered() {
            self.has_told = None;
        }
        if !self.untold.is_empty() || self.has_told.is_none() {
            self.tell_soon();
        }
    }

    /// Begins what is due.
    fn begin(&mut self) {
        let now = self.start.elapsed();
        while let Some(due) = self.schedule.begin(now) {
            self.reader.results.note_late(due.late);
            let (prober, key) = (self.reader.prober.clone(), due.key);
            self.under_way.spawn(async move {
                let subject = Subject::backend(&key.0, key.1);
                let outcome = prober.make(&due.check, &subject, false).await;
                (due.run, key, outcome)
            });
        }
    }

    /// Counts a result.
    fn end(&mut self, run: Run, key: &Key, outcome: Outcome) {
        let step = self.schedule.end(run, outcome.passed, self.start.elapsed());
        let state = step.as_ref().map(|step| step.state);
        self.reader.results.end(key, state, &outcome);
        let Some(step) = step.filter(|step| step.former.is_up() != step.state.is_up()) else { return };
        tracing::info!("service {}: {} is {}: {}", key.0, key.1, step.state, outcome.said);
        if self.turns.len() < TURNS {
            self.turns.push(Turned {
                time: SystemTime::now(),
                service: Arc::clone(&key.0),
                backend: key.1,
                former: step.former,
                state: step.state,
                said: outcome.said,
            });
        }
        self.untold.insert(step.key);
        self.tell_soon();
    }

    fn tell_soon(&mut self) {
        self.tell_at.get_or_insert_with(|| Instant::now() + REST);
    }

    /// Tells what was found: to the cluster, whose records say it to all, else to the event loop.
    fn tell(&mut self) {
        self.tell_at = None;
        let is_whole = self.has_told.is_none();
        let mut news = News { turns: std::mem::take(&mut self.turns), ..News::default() };
        if self.targets.is_clustered() {
            self.tell_cluster(is_whole);
        } else {
            let names: Vec<&Name> = match is_whole {
                true => self.targets.checked().map(|(name, _)| name).collect(),
                false => self.untold.iter().map(|(name, _)| name).collect(),
            };
            news.found = names.into_iter().map(|name| (Arc::clone(name), self.found(name))).collect();
            news.is_whole = is_whole;
        }
        if news.found.is_empty() && news.turns.is_empty() && !news.is_whole {
            self.untold.clear();
            return;
        }
        let is_clustered = self.targets.is_clustered();
        match self.news.try_send(news) {
            Ok(()) if is_clustered => {}
            Ok(()) => {
                self.untold.clear();
                self.has_told = Some(true);
            }
            Err(mpsc::error::TrySendError::Full(news)) => {
                self.turns = news.turns;
                self.tell_soon();
            }
            // The agent ends.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    fn tell_cluster(&mut self, is_whole: bool) {
        let cluster = self.cluster.borrow();
        let Some(cluster) = cluster.as_ref() else { return };
        let is_up = |key: &Key| self.schedule.state(key).and_then(|state| state.is_up());
        let found: BTreeMap<Key, Option<bool>> = match is_whole {
            false => self.untold.iter().map(|key| (key.clone(), is_up(key))).collect(),
            true => {
                let all = self.targets.checked();
                let keys =
                    all.flat_map(|(name, sockets)| sockets.iter().map(|socket| (Arc::clone(name), *socket)));
                keys.map(|key| (key.clone(), is_up(&key))).collect()
            }
        };
        if !found.is_empty() || is_whole {
            cluster.tell_found(found, is_whole);
        }
        self.untold.clear();
        self.has_told = Some(true);
    }

    /// What is known of a service's backends.
    fn found(&self, name: &Name) -> BTreeMap<SocketAddr, bool> {
        let of = |socket| Some((socket, self.schedule.state(&(Arc::clone(name), socket))?.is_up()?));
        self.targets.of(name).filter_map(of).collect()
    }
}

/// The members of the cluster; none before this node is among them.
fn members(cluster: &cluster::Reader) -> Option<Members> {
    let view = cluster.view();
    let own = view.members.iter().find(|member| member.is_own)?;
    let is_live = |state: MemberState| !matches!(state, MemberState::Dead | MemberState::Left);
    let live = view.members.iter().filter(|member| is_live(member.state));
    Some(Members {
        own: own.name.as_str().into(),
        live: live.map(|member| member.name.as_str().into()).collect(),
    })
}
