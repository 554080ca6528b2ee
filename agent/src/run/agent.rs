//! The main loop.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use control::model::{FanSpec, Origin, PortRange};
use sd_notify::NotifyState;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    Options,
    api::Api,
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
    node::fan::Node,
    sources::{
        applied::FOLDER,
        config::{self, ConfigError, FANS_FILE},
        presence::Presence,
    },
};

/// Requests that wait to be answered; further ones are turned away.
const REQUESTS: usize = 64;

/// Everything that the agent knows.
pub(super) struct Agent {
    pub(super) node: Node,
    /// The fans of the files.
    pub(super) wanted: Vec<(FanSpec, Origin)>,
    /// Fans of the files that stand in other words: as wanted, as standing.
    pub(super) accepted: Vec<(FanSpec, FanSpec)>,
    /// While any fan stands.
    pub(super) datapath: Option<Datapath>,
    /// The datapath's programs may not be on every port yet.
    pub(super) is_fresh: bool,
    pub(super) known: Known,
    pub(super) report: Report,
    pub(super) services: Services,
    pub(super) presence: Presence,
    pub(super) shadows: Shadows,
    /// When neighbours are asked next whether they are there.
    pub(super) next_probe: Instant,
    sources: Sources,
    pub(super) api: Api,
    logs: Option<JoinHandle<()>>,
    monitor: Option<JoinHandle<()>>,
    /// Brings flows over from tables that others have replaced.
    pub(super) moving: Option<JoinHandle<Option<()>>>,
    /// What failed in tasks beside this loop.
    pub(super) faults: Faults,
    pub(super) pace: Pace,
    concern: Concern,
    /// Foreign packet filters may have changed.
    filters: bool,
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
    let mut agent = Agent::new(options, &files, shadowed, sole)?;
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
                agent.filters = true;
                agent.note(Concern::Fans);
            }
            Wake::Path => {
                agent.concern = agent.concern.max(Concern::Endpoints);
                agent.pace.urgent(Instant::now());
            }
            Wake::Request(request) => agent.answer(request),
            Wake::Shadowed(reasons) => {
                agent.report.set(Topic::Shadows, reasons);
                agent.report.publish();
            }
            Wake::Kept(kept) => agent.kept(kept).await,
            Wake::Reload => {
                agent.finish_keeping().await?;
                agent.reload(&options.config).await;
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
        files: &config::Sources,
        shadowed: mpsc::Receiver<Vec<String>>,
        sole: Sole,
    ) -> Result<Self> {
        let (now, faults) = (Instant::now(), Faults::default());
        let (requests, asked) = mpsc::channel(REQUESTS);
        // A damaged record is written anew.
        let former = read_services(Path::new(SERVICES_FILE)).unwrap_or_default();
        let mut agent = Self {
            sources: Sources::open(asked, shadowed)?,
            api: Api::new(requests, faults.clone()),
            node: Node::open(files.config.node.uplink.clone())?,
            wanted: Vec::new(),
            accepted: Vec::new(),
            datapath: None,
            is_fresh: false,
            known: Known::default(),
            report: Report::new(Path::new(RECORD_FILE), String::new()),
            services: Services::new(now, faults.clone()),
            presence: Presence::after(&former),
            shadows: Shadows::new(),
            next_probe: now,
            logs: None,
            monitor: None,
            moving: None,
            faults: faults.clone(),
            pace: Pace::new(now),
            concern: Concern::Fans,
            filters: true,
            held: None,
            is_unready: false,
            sole,
        };
        agent.take_over(&options.config, files)?;
        Ok(agent)
    }

    /// Uses these files from now on.
    fn take_over(&mut self, path: &Path, files: &config::Sources) -> Result<()> {
        self.wanted = files.fans();
        let applied = self.services.want(path, &files.config.services, files.config.datapath);
        applied.with_context(|| format!("services: {FOLDER}; make it readable and writable"))?;
        self.node = Node::open(files.config.node.uplink.clone())?.with_flows(self.services.flows());
        self.accepted.clear();
        self.api.want(&files.config.api.socket);
        let name = files.config.node.name.clone().map_or_else(host_name, Ok);
        self.report.set_node(name.context("agent: the host's name")?);
        let bad = files.lines.iter().filter_map(|line| line.fan.as_ref().err());
        self.report.set(
            Topic::Config,
            bad.map(|problem| format!("config-invalid: {FANS_FILE}:{problem}")).collect(),
        );
        Ok(())
    }

    /// Reads the files again; invalid ones change nothing.
    async fn reload(&mut self, path: &Path) {
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now().ok());
        notify(&states);
        match load(path) {
            Ok(files) => {
                tracing::info!("reading the configuration again");
                if let Err(error) = self.take_over(path, &files) {
                    self.report.set(Topic::Config, vec![format!("config-invalid: {error:#}")]);
                }
            }
            Err(error) => {
                let lines = error.lines().into_iter();
                self.report.set(Topic::Config, lines.map(|line| format!("config-invalid: {line}")).collect());
            }
        }
        self.concern = Concern::Fans;
        self.look().await;
        self.tell_ready();
    }

    /// Tells systemd that the files are followed, as soon as that is so; at the latest when a command holds that up.
    fn tell_ready(&mut self) {
        self.is_unready = self.held.is_some() && !self.is_held_up();
        if !self.is_unready {
            notify(&[NotifyState::Ready]);
        }
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
        if std::mem::take(&mut self.filters) {
            self.look_at_filters().await;
        }
        self.pace.looked(Instant::now(), failed);
    }

    /// What could not even be looked at is a failure, too.
    fn failed(&mut self, topic: Topic, outcome: Result<bool>) -> bool {
        outcome.unwrap_or_else(|error| {
            self.report.set(topic, vec![format!("{error:#}")]);
            true
        })
    }

    /// Uses another datapath from now on, or none.
    pub(super) fn set_datapath(&mut self, datapath: Option<Datapath>) -> Result<()> {
        for reader in [self.logs.take(), self.monitor.take()].into_iter().flatten() {
            reader.abort();
        }
        self.sources.set_paths(None);
        self.datapath = datapath;
        self.services.forget();
        self.is_fresh = true;
        if let Some(datapath) = &self.datapath {
            // Those of a former agent, whose devices may have gone since.
            let held = datapath.endpoints().list()?;
            self.presence
                .learn(held.into_iter().map(|(address, record)| (address, record.ifindex)).collect());
            self.sources.set_paths(Some(datapath.events()?));
            self.monitor = Some(self.api.monitor(datapath)?.spawn(&self.faults));
            self.logs = datapath.forward_logs()?.map(|logs| self.faults.once("logs", logs));
        }
        Ok(())
    }
}
