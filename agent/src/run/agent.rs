//! The main loop.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use control::model::{FanSpec, Origin, PortRange};
use sd_notify::NotifyState;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    Options,
    api::Api,
    filters::Filters,
    locking::{Held, lock_soon},
    pace::Pace,
    relevance::{Concern, Known},
    report::{Report, Topic, notify},
    services::Services,
    shadows::Shadows,
    sources::{Sources, Wake},
};
use crate::{
    inspect::status::{RECORD_FILE, SERVICES_FILE, host_name, read_services},
    kernel::{
        bpf::Datapath, capabilities, lock::Lock, netlink::Event, reserved_ports, sole::Sole, tasks::Faults,
    },
    node::fan::{Identities, Node},
    serve::{Refusal, Reloaded, Request},
    sources::{
        config::{self, ConfigError, FANS_FILE, Problem},
        presence::Presence,
    },
};

/// Requests that wait to be answered; further ones are turned away.
const REQUESTS: usize = 64;

/// Everything that the agent knows.
pub(super) struct Agent {
    pub(super) node: Node,
    /// The files, as they are followed.
    files: config::Sources,
    /// The fans of the files.
    pub(super) wanted: Vec<(FanSpec, Origin)>,
    /// Fans of the files that stand in other words: as wanted, as standing.
    pub(super) accepted: Vec<(FanSpec, FanSpec)>,
    /// While any fan stands.
    pub(super) datapath: Option<Datapath>,
    /// The datapath's programs may not be on every port yet.
    pub(super) is_fresh: bool,
    /// By which addresses fans know this host.
    pub(super) identities: Identities,
    pub(super) known: Known,
    pub(super) report: Report,
    pub(super) services: Services,
    pub(super) presence: Presence,
    pub(super) shadows: Shadows,
    /// When neighbours are asked next whether they are there.
    pub(super) next_probe: Instant,
    pub(super) sources: Sources,
    pub(super) api: Api,
    /// The datapath's programs are heard.
    is_subscribed: bool,
    logs: Option<JoinHandle<()>>,
    monitor: Option<JoinHandle<()>>,
    /// Brings flows over from tables that others have replaced.
    pub(super) moving: Option<JoinHandle<Option<()>>>,
    /// What failed in tasks beside this loop.
    pub(super) faults: Faults,
    pub(super) pace: Pace,
    concern: Concern,
    /// When others' packet filters were looked at.
    pub(super) filters: Filters,
    /// Looks are put off, because a command holds the lock.
    pub(super) held: Option<Held>,
    /// systemd waits to hear that the files are followed.
    is_unready: bool,
    sole: Sole,
}

/// Reads the configuration.
pub(super) fn load(path: &Path) -> Result<config::Sources, ConfigError> {
    let sources = config::load(path, Path::new(FANS_FILE))?;
    // Where the range can't be read, the ports are not reserved either, and that is reported.
    if let Ok((first, last)) = reserved_ports::local() {
        sources.check_beside(path, PortRange(first, last))?;
    }
    Ok(sources)
}

/// Runs until SIGTERM or SIGINT.
pub(super) async fn run(options: &Options, files: config::Sources, sole: Sole) -> Result<()> {
    let (reasons, shadowed) = mpsc::channel(1);
    let mut agent = Agent::new(options, files, shadowed, sole)?;
    agent.look().await;
    if let Err(error) = capabilities::drop_unused() {
        tracing::warn!("capabilities are kept: {error}");
    }
    agent.shadows.start(reasons, &agent.faults);
    agent.api.open()?;
    agent.tell_ready();
    loop {
        match agent.sources.next(agent.pace.due(), &mut agent.services.keeping).await? {
            Wake::Time => agent.look().await,
            Wake::Network(event) => {
                if let Event::LinkGone(link) = &event {
                    agent.lose_device(link.index);
                }
                agent.note(agent.known.concern(&event));
            }
            Wake::Filter => {
                agent.note(Concern::Fans);
            }
            Wake::Path => {
                agent.concern = agent.concern.max(Concern::Endpoints);
                agent.pace.urgent(Instant::now());
            }
            Wake::Request(Request::Reload(answer)) => {
                let outcome = agent.reload(&options.config).await;
                // Whoever asked may have given up meanwhile.
                drop(answer.send(outcome));
            }
            Wake::Request(request) => agent.answer(request),
            Wake::Shadowed(reasons) => {
                agent.report.set(Topic::Shadows, reasons);
                agent.report.publish();
            }
            Wake::Kept(kept) => agent.kept(kept).await,
            Wake::Reload => {
                agent.finish_keeping().await?;
                // What is wrong stands in the report.
                drop(agent.reload(&options.config).await);
            }
            Wake::Stop => break,
        }
    }
    notify(&[NotifyState::Stopping]);
    if options.detach {
        let lock = lock_soon().await.context("agent: taking the datapath down")?;
        agent.take_down(&lock).await.context("agent: taking the datapath down")?;
    }
    agent.services.tell_now().await;
    agent.report.stopped();
    Ok(())
}

impl Agent {
    fn new(
        options: &Options,
        files: config::Sources,
        shadowed: mpsc::Receiver<Vec<String>>,
        sole: Sole,
    ) -> Result<Self> {
        let (now, faults) = (Instant::now(), Faults::default());
        let services = Services::open(now, faults.clone()).context("services")?;
        let (requests, asked) = mpsc::channel(REQUESTS);
        // A damaged record is written anew.
        let former = read_services(Path::new(SERVICES_FILE)).unwrap_or_default();
        let mut agent = Self {
            sources: Sources::open(asked, shadowed)?,
            api: Api::new(requests, faults.clone()),
            node: Node::open(files.config.node.uplink.clone())?,
            files: config::Sources::default(),
            wanted: Vec::new(),
            accepted: Vec::new(),
            datapath: None,
            is_fresh: false,
            identities: Identities::default(),
            known: Known::default(),
            report: Report::new(Path::new(RECORD_FILE), String::new()),
            services,
            presence: Presence::after(&former),
            shadows: Shadows::new(),
            next_probe: now,
            is_subscribed: false,
            logs: None,
            monitor: None,
            moving: None,
            faults: faults.clone(),
            pace: Pace::new(now),
            concern: Concern::Fans,
            filters: Filters::default(),
            held: None,
            is_unready: false,
            sole,
        };
        agent.take_over(&options.config, files)?;
        Ok(agent)
    }

    /// Uses these files from now on, or none of what they say: whatever can fail comes first.
    fn take_over(&mut self, path: &Path, files: config::Sources) -> Result<()> {
        let node = Node::open(files.config.node.uplink.clone())?;
        let name = files.config.node.name.clone().map_or_else(host_name, Ok);
        let name = name.context("agent: the host's name")?;
        let server = self.api.prepare(&files.config.api.socket)?;
        self.services.want(path, &files.config.services, files.config.datapath);
        self.node = node.with_flows(self.services.flows());
        self.wanted = files.fans();
        self.accepted.clear();
        self.api.move_to(&files.config.api.socket, server);
        self.report.set_node(name);
        let bad = files.lines.iter().filter_map(|line| line.fan.as_ref().err());
        self.report.set(
            Topic::Config,
            bad.map(|problem| format!("config-invalid: {FANS_FILE}:{problem}")).collect(),
        );
        self.files = files;
        Ok(())
    }

    /// Reads the files again; invalid ones change nothing, and are told.
    async fn reload(&mut self, path: &Path) -> Result<Reloaded, Refusal> {
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now().ok());
        notify(&states);
        tracing::info!("reading the configuration again");
        let outcome = self.read_again(path);
        if let Err(lines) = &outcome {
            self.report
                .set(Topic::Config, lines.iter().map(|line| format!("config-invalid: {line}")).collect());
        }
        self.concern = Concern::Fans;
        self.look().await;
        self.tell_ready();
        outcome.map_err(|lines| Refusal::invalid(lines.into_iter().map(Problem::general).collect()))
    }

    /// Tells systemd that the files are followed, as soon as that is so; at the latest when a command holds that up.
    fn tell_ready(&mut self) {
        self.is_unready = self.held.is_some() && !self.is_held_up();
        if !self.is_unready {
            notify(&[NotifyState::Ready]);
        }
    }

    /// What is wrong, a line each, and nothing has changed; or what is used from now on.
    fn read_again(&mut self, path: &Path) -> Result<Reloaded, Vec<String>> {
        let files = load(path).map_err(|error| error.lines())?;
        let bad = config::bad_lines(Path::new(FANS_FILE), &files.lines);
        if !bad.is_empty() {
            return Err(bad.iter().map(ToString::to_string).collect());
        }
        let changed = files != self.files;
        let reloaded = Reloaded { changed, fans: files.fans().len(), services: files.config.services.len() };
        self.take_over(path, files).map_err(|error| vec![format!("{error:#}")])?;
        Ok(reloaded)
    }

    pub(super) fn note(&mut self, concern: Concern) {
        if concern > Concern::Nothing {
            self.concern = self.concern.max(concern);
            self.pace.changed(Instant::now());
        }
    }

    /// One look at what changed; the periodic look finds nothing noted and looks at everything.
    async fn look(&mut self) {
        let concern = std::mem::replace(&mut self.concern, Concern::Nothing);
        if concern == Concern::Nothing && self.services.is_untold && !self.pace.is_periodic(Instant::now()) {
            self.finish_changes();
            self.pace.looked_away(Instant::now(), self.services.is_untold);
            return;
        }
        let guards = self.sole.hold();
        self.report.set(Topic::Sole, guards);
        self.report.set(Topic::Api, self.api.repair());
        self.report.set(Topic::Tasks, self.faults.reasons());
        match self.take_lock() {
            Ok(Some(lock)) => self.look_under(&lock, concern).await,
            Ok(None) => {
                // The periodic look is one at everything.
                self.concern =
                    self.concern.max(if concern == Concern::Nothing { Concern::Fans } else { concern });
                self.pace.put_off(Instant::now());
            }
            Err(error) => {
                self.concern = self.concern.max(Concern::Fans);
                self.report.set(Topic::Lock, vec![error.to_string()]);
                self.pace.looked(Instant::now(), true);
            }
        }
        self.report.publish();
        if self.is_unready {
            self.tell_ready();
        }
    }

    async fn look_under(&mut self, lock: &Lock, concern: Concern) {
        let mut failed = false;
        if concern != Concern::Endpoints {
            let outcome = self.look_at_fans(lock).await;
            failed |= self.failed(Topic::Fans, outcome);
            failed |= self.hear();
            if self.is_fresh {
                // No packet finds a service before the programs of all ports look for its flows in the same tables.
                let outcome = self.look_at_endpoints().await;
                failed |= self.failed(Topic::Endpoints, outcome);
            }
            let outcome = self.look_at_services(lock).await;
            failed |= self.failed(Topic::Services, outcome);
        }
        let outcome = self.look_at_endpoints().await;
        failed |= self.failed(Topic::Endpoints, outcome);
        if !failed {
            // No program of an earlier version is left on any hook.
            self.bring_flows_over();
        }
        self.look_at_filters().await;
        self.report.set(Topic::Kernel, self.sources.unreadable().into_iter().collect());
        self.pace.looked(Instant::now(), failed);
    }

    /// Follows what the programs tell; says whether that failed.
    pub(super) fn hear(&mut self) -> bool {
        let outcome = self.subscribe().context("events of the kernel programs, which are asked for again");
        let reasons = outcome.err().map(|error| format!("{error:#}"));
        self.report.set(Topic::Programs, reasons.iter().cloned().collect());
        reasons.is_some()
    }

    /// What could not even be looked at is a failure, too.
    fn failed(&mut self, topic: Topic, outcome: Result<bool>) -> bool {
        outcome.unwrap_or_else(|error| {
            self.report.set(topic, vec![format!("{error:#}")]);
            true
        })
    }

    /// Uses another datapath from now on, or none.
    pub(super) fn set_datapath(&mut self, datapath: Option<Datapath>) {
        for reader in [self.logs.take(), self.monitor.take()].into_iter().flatten() {
            reader.abort();
        }
        self.sources.set_paths(None);
        self.datapath = datapath;
        self.services.forget();
        self.is_fresh = true;
        self.is_subscribed = false;
    }

    /// Follows what the datapath's programs tell, where that is not so: all of it, or it is tried again at the next look.
    fn subscribe(&mut self) -> Result<()> {
        let Some(datapath) = self.datapath.as_ref().filter(|_| !self.is_subscribed) else { return Ok(()) };
        let held = datapath.endpoints().list()?;
        let (paths, logs) = (datapath.events()?, datapath.forward_logs()?);
        let monitor = self.api.monitor(datapath)?;
        // Those of a former agent, whose devices may have gone since.
        self.presence.learn(held.into_iter().map(|(address, record)| (address, record.ifindex)).collect());
        self.sources.set_paths(Some(paths));
        self.monitor = Some(monitor.spawn(&self.faults));
        self.logs = logs.map(|logs| self.faults.once("logs", logs));
        self.is_subscribed = true;
        Ok(())
    }
}
