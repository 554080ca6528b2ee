//! The event loop: it brings the sources together, gives the writer its orders, and answers requests. It waits for nothing
//! else.

mod checks;
mod clustering;
mod reload;

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use control::{
    desired::{Desired, Reserved},
    model::utc,
    service::Down,
};
use sd_notify::NotifyState;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use super::{
    Options,
    announcing::Announcing,
    answers::Reply,
    api::{Api, Prepared, Readers, view_of},
    changes::{Changes, Next},
    cluster::Clustered,
    files::name,
    log::Log,
    monitor::Monitor,
    records::Records,
    report::{Report, Topic},
    reserved, shadows,
    signals::{Signal, Signals},
    sources::{Door, Number, Opened},
    stage::Ended,
    state::{Files, State},
    tunnels,
};
use crate::{
    cluster::ServiceNews,
    health::{self, Health},
    inspect::status::{RECORD_FILE, SERVICES_FILE, read_services, seconds},
    kernel::{capabilities, sole::Sole, tasks::Faults},
    node::writer::{Applied, Watched, Writer},
    serve::{Refusal, Request, View},
    sources::{config, directory::Running, followed::News, presence},
};

/// Requests that wait for their turn; further ones are turned away.
const REQUESTS: usize = 64;
/// Datapaths that the monitor has not come to.
const WATCHED: usize = 4;
/// How often what nothing tells of is checked: the socket, the guards, the log.
const CHECK: Duration = Duration::from_secs(5);
/// How long the first pass may take until the agent answers without it.
const START: Duration = Duration::from_secs(30);
/// How long the writer may be at one thing until that is a reason to be degraded.
const LONG: Duration = Duration::from_secs(10);
/// How long taking everything down may take.
const TAKE_DOWN: Duration = Duration::from_secs(60);

/// What the event loop holds.
pub(super) struct Agent {
    options: Options,
    /// The files, as they are followed.
    files: Arc<config::Sources>,
    node: Arc<str>,
    /// The sources that they list.
    sources: Vec<Running>,
    news: mpsc::Receiver<(Number, News)>,
    changes: Changes,
    cluster: Clustered,
    announcing: Announcing,
    applied: watch::Receiver<Applied>,
    health: Health,
    /// The absent endpoints that the state follows.
    absent: Arc<BTreeMap<Ipv4Addr, Down>>,
    /// What no named VIP may have, as the state follows it.
    reserved: Reserved,
    view: watch::Sender<View>,
    api: Api,
    requests: mpsc::Receiver<Request>,
    /// What is to be done when nothing else is.
    due: Due,
    report: Report,
    records: Records,
    signals: Signals,
    faults: Faults,
    shadowed: mpsc::Receiver<Vec<String>>,
    blocked: mpsc::Receiver<Vec<String>>,
    sole: Sole,
}

/// What is to be done once no change is on its way.
#[derive(Debug, Default)]
struct Due {
    /// The files are to be read.
    reload: bool,
    /// What a source defines may be less.
    pruning: bool,
    /// What was applied is in the cluster.
    handover: bool,
}

/// Why the loop woke up.
enum Wake {
    Signal(Signal),
    Applied(bool),
    Changes(Result<Option<Ended>>),
    Request(Request),
    /// What a task beside the loop has found.
    Found(Topic, Vec<String>),
    News(Number, News),
    Checks(health::News),
    Cluster(Option<ServiceNews>),
    Check,
    /// Systemd has read something.
    Told,
}

/// Runs until SIGTERM or SIGINT.
pub(super) async fn run(options: &Options, files: config::Sources, sole: Sole) -> Result<()> {
    let mut agent = Agent::open(options, files, sole)?;
    agent.wait_for_first_pass().await?;
    agent.records.write_now().await;
    agent.records.start(&agent.faults);
    agent.api.open()?;
    agent.check();
    agent.report.publish();
    agent.report.say(&[NotifyState::Ready]);
    agent.serve().await?;
    agent.report.say(&[NotifyState::Stopping]);
    agent.stop().await
}

impl Agent {
    fn open(options: &Options, files: config::Sources, sole: Sole) -> Result<Self> {
        let signals = Signals::open()?;
        let (log, changes) = Log::open().context("services")?;
        // A damaged record is written anew.
        let left = read_services(Path::new(SERVICES_FILE)).unwrap_or_default();
        let node = name(&files)?;
        let faults = Faults::default();
        let (door, news) = Door::new(faults.clone());
        let opened = door.open(&files.config.sources).context("sources")?;
        let (listed, sources) = Opened::split(opened);
        let files = Files { path: options.config.clone(), sources: Arc::new(files), node: Arc::clone(&node) };
        let (reserved, absent) = (reserved::at_start(), presence::absent(&left));
        let mut state = State::after(&left, reserved.clone());
        state.set_files(&files, listed, log.has_lost());
        state.change(&changes);
        let ((watchers, watched), desired) = (mpsc::channel(WATCHED), Arc::clone(&state.desired));
        let cluster = Clustered::new(faults.clone());
        let announcing = Announcing::new(cluster.readers(), faults.clone());
        let writer = start_writer(desired, absent, watchers, &announcing, &faults)?;
        let applied = writer.applied();
        let (requests, asked) = mpsc::channel(REQUESTS);
        let view = watch::Sender::new(view_of(&node, &applied.borrow()));
        let health = Health::start(cluster.readers(), &faults).context("agent")?;
        let readers = Readers::of(&cluster, &announcing, &health);
        let mut api = Api::new(requests, view.subscribe(), readers, faults.clone());
        api.move_to(&files.sources.config.api, Prepared::default());
        let report = Report::new(node.to_string());
        let records = Records::new(report.record(), view.subscribe(), RECORD_FILE.into());
        let shadowed = shadows::start(view.subscribe(), &faults);
        let blocked = tunnels::start(view.subscribe(), cluster.readers(), &faults);
        Monitor::start(watched, view.subscribe(), api.events(), &faults);
        let absent = Arc::clone(&applied.borrow().absent);
        let mut agent = Self {
            options: options.clone(),
            node,
            sources,
            news,
            changes: Changes::new(state, writer, log, door, announcing.foresight())?,
            cluster,
            announcing,
            applied,
            absent,
            health,
            reserved,
            view,
            api,
            requests: asked,
            due: Due::default(),
            report,
            records,
            signals,
            faults,
            shadowed,
            blocked,
            sole,
            files: Arc::default(),
        };
        agent.follow_files(files.sources);
        agent.sources.iter().for_each(Running::begin);
        agent.changes.drop_stale();
        Ok(agent)
    }

    /// Until the kernel is as desired for the first time, or a command holds that up.
    async fn wait_for_first_pass(&mut self) -> Result<()> {
        let is_through = |applied: &Applied| applied.passes > 0 || applied.is_held_up();
        match timeout(START, self.applied.wait_for(is_through)).await {
            Ok(Ok(_applied)) => {}
            Ok(Err(_gone)) => return Err(writer_ended()),
            Err(_late) => tracing::warn!("the first pass over the kernel takes long; requests are answered"),
        }
        self.follow_applied();
        self.wait_for_cluster().await;
        let applied = self.applied.borrow().clone();
        self.announcing.begin(&applied);
        Ok(())
    }

    async fn serve(&mut self) -> Result<()> {
        let mut checks = interval_at(Instant::now() + CHECK, CHECK);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.changes.is_free() && std::mem::take(&mut self.due.reload) {
                // Nobody waits for the answer of a signal.
                self.begin(Request::Reload(oneshot::channel().0));
            }
            if self.changes.is_free() && std::mem::take(&mut self.due.pruning) {
                self.changes.drop_stale();
            }
            if self.changes.is_free() && std::mem::take(&mut self.due.handover) {
                self.changes.hand_over();
            }
            let is_free = self.changes.is_free();
            let wake = tokio::select! {
                biased;
                signal = self.signals.next() => Wake::Signal(signal),
                changed = self.applied.changed() => Wake::Applied(changed.is_ok()),
                news = self.changes.news() => Wake::Changes(news),
                Some(request) = self.requests.recv(), if is_free => Wake::Request(request),
                Some(reasons) = self.shadowed.recv() => Wake::Found(Topic::Shadows, reasons),
                Some(reasons) = self.blocked.recv() => Wake::Found(Topic::Tunnels, reasons),
                news = self.health.news() => Wake::Checks(news),
                Some((number, news)) = self.news.recv() => Wake::News(number, news),
                news = self.cluster.changed() => Wake::Cluster(news),
                reasons = self.announcing.changed() => Wake::Found(Topic::Announced, reasons),
                _ = checks.tick() => Wake::Check,
                () = self.report.say_rest() => Wake::Told,
            };
            match wake {
                Wake::Signal(Signal::Stop) => return Ok(()),
                Wake::Signal(Signal::Reload) => self.due.reload = true,
                Wake::Applied(true) => self.follow_applied(),
                Wake::Applied(false) => return Err(writer_ended()),
                Wake::Changes(news) => match news? {
                    Some(ended) => self.go_on(ended),
                    None => self.report_applied(),
                },
                Wake::Request(request) => self.begin(request),
                Wake::Found(topic, reasons) => self.report.set(topic, reasons),
                Wake::Checks(news) => self.hear_checks(news),
                Wake::News(number, news) => {
                    self.changes.hear(number, news);
                    self.due.pruning = true;
                }
                // What fails is among the reasons of the next pass.
                Wake::Cluster(Some(news)) => drop(self.hear_cluster(news)),
                Wake::Cluster(None) => self.cluster.tell(&mut self.report),
                Wake::Check => self.check(),
                Wake::Told => {}
            }
            self.report.publish();
        }
    }

    async fn stop(mut self) -> Result<()> {
        // What is announced is withdrawn before it stops being served.
        self.announcing.stop(self.options.detach).await;
        self.cluster.leave().await;
        self.health.stop().await;
        let mut outcome = Ok(());
        if self.options.detach {
            let taken_down = timeout(TAKE_DOWN, self.changes.writer.take_down()).await;
            outcome = taken_down
                .map_err(|_late| anyhow!("it takes longer than {} s", TAKE_DOWN.as_secs()))
                .and_then(|taken_down| taken_down.unwrap_or_else(|_gone| Err(writer_ended())))
                .context("agent: taking the datapath down");
        }
        self.follow_applied();
        self.report.stopped();
        self.records.write_now().await;
        outcome
    }

    /// Takes over what the kernel holds now.
    fn follow_applied(&mut self) {
        let applied = self.applied.borrow_and_update().clone();
        self.report.set_applied(&applied);
        if !Arc::ptr_eq(&self.absent, &applied.absent) {
            self.absent = Arc::clone(&applied.absent);
            self.changes.set_absent(Arc::clone(&applied.absent));
        }
        let reserved = reserved::by(&applied);
        if applied.passes > 0 && self.reserved != reserved {
            self.reserved = reserved.clone();
            self.changes.set_reserved(reserved);
        }
        self.follow_cluster(&applied);
        self.announcing.hold(&applied);
        self.health.follow(&applied.desired);
        self.view.send_replace(view_of(&self.node, &applied));
    }

    /// What nothing tells of.
    fn check(&mut self) {
        let applied = self.applied.borrow().clone();
        self.follow_cluster(&applied);
        self.report.set(Topic::Sole, self.sole.hold());
        self.report.set(Topic::Tasks, self.faults.reasons());
        self.report.set(Topic::Api, self.api.repair());
        let busy =
            self.changes.writer.busy_since().filter(|since| since.elapsed().is_ok_and(|time| time > LONG));
        let reason = busy.map(|since| {
            let since = utc(seconds(since));
            format!(
                "writer-busy: one change of the kernel takes since {since}; see the log for what holds it up"
            )
        });
        self.report.set(Topic::Writer, reason.into_iter().collect());
        self.report_applied();
        self.changes.mend();
    }

    fn report_applied(&mut self) {
        self.report.set(Topic::Applied, self.changes.reasons());
    }

    /// Begins to do what a request asks for.
    fn begin(&mut self, request: Request) {
        if matches!(request, Request::Reload(_)) {
            let mut states = vec![NotifyState::Reloading];
            states.extend(NotifyState::monotonic_usec_now().ok());
            self.report.say(&states);
            tracing::info!("reading the configuration again");
        }
        let held = self.applied.borrow().clone();
        self.changes.begin(request, &held, self.options.config.clone());
    }

    /// Goes on with a change when a stage of it has ended.
    fn go_on(&mut self, ended: Ended) {
        // What a change of the cluster's records led to is followed before it is answered.
        if let Some(news) = self.cluster.take_services() {
            drop(self.hear_cluster(news));
        }
        match self.changes.go_on(ended) {
            Next::Follow(files, answer) => self.reload(files, answer),
            Next::Reloaded(reloaded, answer) => {
                self.report.say(&[NotifyState::Ready]);
                // The client may have given up meanwhile.
                drop(answer.send(Ok(reloaded)));
                self.changes.drop_stale();
            }
            Next::Answer(reply, outcome) => self.answer(reply, outcome),
            Next::Tell => self.report_applied(),
            Next::Wait => {}
        }
    }

    /// Answers a change: readers see what the kernel holds by then.
    fn answer(&mut self, reply: Reply, outcome: Result<(), Refusal>) {
        self.follow_applied();
        self.report_applied();
        reply.send(outcome);
    }
}

/// Starts the writer, and gives up the capabilities that this thread had for it; it gives up its own when it has begun.
fn start_writer(
    desired: Arc<Desired>,
    absent: BTreeMap<Ipv4Addr, Down>,
    watchers: mpsc::Sender<Option<Watched>>,
    announcing: &Announcing,
    faults: &Faults,
) -> Result<Writer> {
    let writer = Writer::start(desired, absent, watchers, announcing.tables(), faults.clone());
    let writer = writer.context("agent")?;
    if let Err(error) = capabilities::drop_unused() {
        tracing::warn!("capabilities are kept: {error}");
    }
    Ok(writer)
}

fn writer_ended() -> anyhow::Error {
    anyhow!("agent: the thread that writes to the kernel has ended; see the log, and start the agent again")
}
