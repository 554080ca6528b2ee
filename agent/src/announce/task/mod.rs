//! The task: the cores with sockets and clock, on a thread of its own.

mod asked;
mod checks;
mod groups;
mod loopback;
mod phase;
mod routes;
mod shown;
mod speaking;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use control::{
    announce::{Decision, Facts, Life, Placement, ServiceFact},
    bgp::Local,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

pub(super) use self::groups::Clusters;
use self::{
    asked::Unsaved,
    checks::{Checks, Ended},
    groups::Held,
    loopback::Loopback,
    phase::Phase,
};
use super::{
    command::{Command, Ending, Setup},
    hooks::Hooks,
    links::News,
    listeners::Listeners,
    marks::{MARKS_FILE, Marks},
    speaker::Speaker,
};
use crate::kernel::{
    netlink::{Device, DeviceWatch, devices},
    tasks::Faults,
};

/// News that wait to be taken: who sends more is not read meanwhile.
const NEWS: usize = 256;
/// How often what nothing tells of is looked at: files that disable, listeners, a missing address.
const LOOK: Duration = Duration::from_millis(500);
/// Rest between two looks at devices: a burst of news is one.
const DEVICE_REST: Duration = Duration::from_millis(20);

/// What outlives a task that begins anew.
pub(super) struct Inbox {
    commands: mpsc::UnboundedReceiver<Command>,
    reasons: watch::Sender<Vec<String>>,
    tables: Arc<watch::Sender<Option<Arc<Placement>>>>,
    setup: Setup,
    held: Option<Facts>,
    soon: Option<Vec<ServiceFact>>,
    clusters: Clusters,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Inbox")
    }
}

impl Inbox {
    pub(super) fn new(
        tables: Arc<watch::Sender<Option<Arc<Placement>>>>,
        clusters: Clusters,
    ) -> (mpsc::UnboundedSender<Command>, Self, watch::Receiver<Vec<String>>) {
        let ((sender, commands), (reasons, told)) = (mpsc::unbounded_channel(), watch::channel(Vec::new()));
        (
            sender,
            Self { commands, reasons, tables, setup: Setup::default(), held: None, soon: None, clusters },
            told,
        )
    }
}

impl Inbox {
    /// The same, with what is configured and held.
    pub(super) fn with(self, setup: Setup, held: Option<Facts>) -> Self {
        Self { setup, held, ..self }
    }
}

/// Starts the thread.
pub(super) fn start(mut inbox: Inbox, faults: &Faults) -> io::Result<()> {
    faults.keep_thread("announcer", move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            // The thread begins anew.
            Err(error) => panic!("the kernel gives no event queue: {error}"),
        };
        runtime.block_on(async { Task::new(&mut inbox).serve().await });
        runtime.shutdown_background();
    })
}

struct Task<'i> {
    inbox: &'i mut Inbox,
    start: Instant,
    news: (mpsc::Sender<News>, mpsc::Receiver<News>),
    speakers: BTreeMap<IpAddr, Speaker>,
    listeners: Listeners,
    /// This node as a speaker; none without BGP, or while it has no identifier.
    local: Option<Local>,
    sessions: u64,
    marks: Marks,
    /// Whether the file of marks can't be read: it is kept until somebody disables anew.
    is_damaged: bool,
    /// Marks that are not on disk: who waits for that.
    unsaved: Vec<Unsaved>,
    /// Why marks can't be read or kept.
    marks_fault: Option<String>,
    /// Announcements whose file says that they are disabled.
    by_file: BTreeSet<Arc<str>>,
    /// In the order of the configuration.
    decisions: Vec<Decision>,
    since: BTreeMap<Arc<str>, (Life, u64)>,
    phase: Phase,
    loopback: Loopback,
    groups: Held,
    hooks: Hooks,
    checks: Checks,
    devices: BTreeMap<String, Device>,
    watch: Option<DeviceWatch>,
    devices_at: Instant,
    look_at: Instant,
    /// Who waits until withdrawals are sent.
    waiting: Vec<std::sync::mpsc::Sender<()>>,
    stopping: Option<(Ending, oneshot::Sender<()>)>,
    /// Connections that send their last words.
    ending: Vec<JoinHandle<()>>,
}

/// Why the loop woke up.
enum Wake {
    Command(Option<Command>),
    News(Option<News>),
    Devices,
    Groups,
    Checked(Ended),
    Time,
}

impl<'i> Task<'i> {
    fn new(inbox: &'i mut Inbox) -> Self {
        let (marks, marks_fault) = match Marks::load(Path::new(MARKS_FILE)) {
            Ok(marks) => (marks, None),
            Err(error) => {
                let why = format!(
                    "announce-marks: {MARKS_FILE}: {error}; nothing counts as disabled: disable anew what is to be"
                );
                (Marks::default(), Some(why))
            }
        };
        let watch = DeviceWatch::open().inspect_err(|error| tracing::warn!("{error}")).ok();
        let now = Instant::now();
        let mut task = Self {
            inbox,
            start: now,
            news: mpsc::channel(NEWS),
            speakers: BTreeMap::new(),
            listeners: Listeners::default(),
            local: None,
            sessions: 0,
            phase: if marks.maintenance { Phase::Silent } else { Phase::Speaking },
            marks,
            is_damaged: marks_fault.is_some(),
            marks_fault,
            unsaved: Vec::new(),
            by_file: BTreeSet::new(),
            decisions: Vec::new(),
            since: BTreeMap::new(),
            loopback: Loopback::default(),
            groups: Held::default(),
            hooks: Hooks::default(),
            checks: Checks::new(),
            devices: devices().unwrap_or_default(),
            watch,
            devices_at: now,
            look_at: now + LOOK,
            waiting: Vec::new(),
            stopping: None,
            ending: Vec::new(),
        };
        task.groups.follow(&mut task.inbox.clusters);
        task.configure();
        task
    }

    /// The cores' time and the wall's, the latter in seconds since 1970.
    fn now(&self) -> (Duration, u64) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (self.start.elapsed(), wall.as_secs())
    }

    async fn serve(mut self) {
        loop {
            let due = self.due();
            let can_look = self.devices_at <= Instant::now();
            let (commands, news) = (&mut self.inbox.commands, &mut self.news.1);
            let (groups, clusters) = (&mut self.groups, &mut self.inbox.clusters);
            let wake = tokio::select! {
                biased;
                command = commands.recv() => Wake::Command(command),
                () = changed(&mut self.watch), if can_look => Wake::Devices,
                // A peer that sends without end holds no check up.
                ended = self.checks.ended() => Wake::Checked(ended),
                news = news.recv() => Wake::News(news),
                () = groups.changed(clusters) => Wake::Groups,
                () = tokio::time::sleep_until(due.into()) => Wake::Time,
            };
            match wake {
                Wake::Command(None) => return,
                Wake::Command(Some(command)) => self.obey(command),
                Wake::News(news) => news.into_iter().for_each(|news| self.hear(news)),
                Wake::Devices => self.follow_devices(),
                Wake::Groups => self.decide(),
                Wake::Checked(ended) => self.count(ended),
                Wake::Time => {}
            }
            self.pass_time();
            self.stand();
            if self.is_over() {
                return self.end().await;
            }
            if !self.unsaved.is_empty() {
                // What was decided is sent before the disk is waited for.
                tokio::task::yield_now().await;
                self.save();
            }
        }
    }

    /// When something is due.
    fn due(&self) -> Instant {
        let sessions = self.speakers.values().filter_map(Speaker::deadline).chain(self.phase.until());
        let others = [self.loopback.deadline(), self.checks.deadline(), self.groups.deadline()];
        let sessions = sessions.chain(others.into_iter().flatten()).min();
        let session = sessions.map_or(self.look_at, |deadline| self.start + deadline);
        let devices = (self.devices_at > Instant::now()).then_some(self.devices_at);
        session.min(self.look_at).min(devices.unwrap_or(self.look_at))
    }

    fn pass_time(&mut self) {
        let now = self.now();
        self.speakers.values_mut().for_each(|speaker| speaker.tick(now));
        if Instant::now() >= self.look_at {
            self.look();
        }
        self.checks.begin(now.0);
        self.go_on(now);
        self.give_up(now.0);
        if self.loopback.expire(now.0) {
            self.place();
        }
        if self.speakers.values().all(Speaker::is_flushed) {
            // Who waited too long is gone.
            for waiting in self.waiting.drain(..) {
                let _gone = waiting.send(());
            }
        }
        self.ending.retain(|task| !task.is_finished());
    }

    /// Looks at what nothing tells of.
    fn look(&mut self) {
        self.look_at = Instant::now() + LOOK;
        if self.marks_fault.is_some() && !self.is_damaged {
            self.save_marks();
        }
        self.tell();
        self.listeners.repair(&self.news.0);
        if self.local.is_none() && self.inbox.setup.bgp.is_some() {
            self.speak();
        }
        if self.watch.is_none() {
            self.watch = DeviceWatch::open().ok();
            self.follow_devices();
        }
        let files = self.read_files();
        if files != self.by_file {
            self.by_file = files;
            self.decide();
        }
    }

    /// Announcements whose file is there.
    fn read_files(&self) -> BTreeSet<Arc<str>> {
        let announcements = self.inbox.setup.announcements.iter();
        let disabled =
            announcements.filter(|own| own.disable_file.as_ref().is_some_and(|file| file.exists()));
        disabled.map(|own| Arc::clone(&own.name)).collect()
    }

    fn follow_devices(&mut self) {
        self.devices_at = Instant::now() + DEVICE_REST;
        match devices() {
            Ok(devices) => self.devices = devices,
            Err(error) => return tracing::warn!("devices: {error}"),
        }
        let now = self.now();
        for speaker in self.speakers.values_mut() {
            speaker.follow(&self.devices, &self.inbox.setup.uplinks, now);
        }
    }

    fn hear(&mut self, news: News) {
        let (peer, place) = match &news {
            News::Accepted(_, from) => (*from, None),
            News::Opened(place, _)
            | News::Closed(place, _)
            | News::Arrived(place, _)
            | News::Written(place, _) => (place.peer, Some(*place)),
        };
        let now = self.now();
        // Anybody else's connection is closed by being dropped.
        let Some(speaker) = self.speakers.get_mut(&peer) else { return };
        if place.is_none_or(|place| speaker.is_at(place)) {
            let was_up = speaker.is_established();
            speaker.hear(news, now);
            if speaker.is_established() && !was_up {
                speaker.follow(&self.devices, &self.inbox.setup.uplinks, now);
            }
        }
    }

    /// Follows the configuration.
    fn configure(&mut self) {
        let names: BTreeSet<_> = self.inbox.setup.announcements.iter().map(|own| &*own.name).collect();
        let gone: Vec<String> =
            self.marks.disabled.iter().filter(|name| !names.contains(&***name)).cloned().collect();
        if !gone.is_empty() && !self.is_damaged {
            // A mark ends with its announcement.
            self.marks.disabled.retain(|name| !gone.contains(name));
            self.marks.told.retain(|name, _| names.contains(&**name));
            self.save_marks();
        }
        let (now, _) = self.now();
        self.checks.follow(&self.inbox.setup.announcements, &self.marks.up, now);
        self.by_file = self.read_files();
        self.speak();
        self.decide();
    }
}

/// Waits for news of devices; for ever without a watch.
async fn changed(watch: &mut Option<DeviceWatch>) {
    let Some(open) = watch else { return std::future::pending().await };
    if let Err(error) = open.changed().await {
        tracing::warn!("{error}");
        *watch = None;
    }
}
