//! The core, its sockets and its clock: one task, which does what the core asks for and tells it what has come.

mod command;
mod events;
mod facts;
mod followers;
mod forget;
mod found;
mod lag;
mod numbers;
mod reasons;
mod services;
mod shared;
mod show;
mod wire;
mod write;

use std::{
    collections::BTreeMap,
    net::SocketAddrV4,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use control::cluster::{
    Moment,
    events::{Event, Events},
    identity::{Identity, NodeName},
    keyring::Keyring,
    membership::{Membership, Notice, Settings as CoreSettings, Tuning},
    state::SigningKey,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep, sleep_until},
};

pub(super) use self::{command::Command, found::Found};
use self::{services::Services, shared::Shared};
use super::{
    node_key,
    seeds::{self, Seeds},
    services::{Around, Outbox, Stated},
    store::Told,
    transport::{Credentials, News, StreamId, Traffic, Transport},
    troubles::Troubles,
    view::View,
};
use crate::sources::config::{ClusterConfig, SecretKeys};

/// From one attempt to listen to the next.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// What the task is made of; parts of it change while it runs.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) config: ClusterConfig,
    pub(super) node: NodeName,
    pub(super) key: SigningKey,
    pub(super) advertise: SocketAddrV4,
    pub(super) around: Around,
}

/// What outlives a task that begins anew.
pub(super) struct Inbox {
    pub(super) settings: Settings,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) view: watch::Sender<Arc<View>>,
    /// What this node's own sources say, once that was heard.
    pub(super) stated: Option<Stated>,
    /// What this node has found by checking backends.
    pub(super) found: Found,
    /// Where what the cluster says of services goes.
    pub(super) outbox: Arc<Outbox>,
    pub(super) traffic: Traffic,
    /// Messages that came, for this node's readers.
    pub(super) events: broadcast::Sender<Arc<Event>>,
}

/// Takes part in the cluster until the node leaves or nobody asks any more.
pub(super) fn run(inbox: &mut Inbox) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        // The thread begins anew.
        Err(error) => panic!("the kernel gives no event queue: {error}"),
    };
    runtime.block_on(async {
        let mut seed = [0; 32];
        // Without random bytes nothing can be sealed.
        while let Err(error) = getrandom::fill(&mut seed) {
            tracing::error!("cluster: no random bytes: {error}");
            sleep(LISTEN_AGAIN).await;
        }
        Task::new(inbox, seed).serve().await;
    });
    // A name server may take its time.
    runtime.shutdown_background();
}

struct Task<'i> {
    inbox: &'i mut Inbox,
    core: Membership,
    start: Instant,
    credentials: Credentials,
    transport: Option<Transport>,
    /// Why there is no transport.
    unheard: Option<String>,
    listen_at: Duration,
    seeds: Seeds,
    resolved: watch::Receiver<Seeds>,
    resolver: JoinHandle<()>,
    troubles: Troubles,
    /// Since when no other member is known.
    alone_since: Duration,
    view_at: Duration,
    viewed_at: Duration,
    leaving: Option<oneshot::Sender<()>>,
    /// Messages to all members.
    events: Events,
    /// What members share, once the store is open.
    shared: Option<Shared>,
    services: Services,
    /// Why the store is not open, and when it is tried again.
    unstored: Option<String>,
    open_at: Duration,
    /// Streams that this node has begun, and those about members.
    streams: u64,
    asked: BTreeMap<StreamId, SocketAddrV4>,
}

enum Wake {
    Command(Option<Command>),
    Transport(News),
    Store(Told),
    Resolved,
    Time,
}

impl<'i> Task<'i> {
    fn new(inbox: &'i mut Inbox, seed: [u8; 32]) -> Self {
        let Settings { config, node, key, advertise, .. } = &inbox.settings;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let services = Services::new(!node_key::has_started(&config.data));
        let generation = node_key::next_generation(&config.data, seconds);
        let identity = Identity::new(node.clone(), *advertise, generation, node_key::public(key));
        let seeds = Seeds::literal(&config.join);
        let core = CoreSettings {
            cluster: config.name.clone(),
            keyring: ring(config),
            seeds: seeds.addresses.clone(),
            tuning: Tuning::default(),
            pool: None,
        };
        let credentials = Credentials::new(&config.name, ring(config));
        let (resolver, resolved) = resolver(config.join.clone());
        let events = Events::new(node.as_str().into(), getrandom::u64().unwrap_or(generation));
        Self {
            core: Membership::new(identity, core, seed),
            events,
            start: Instant::now(),
            credentials,
            transport: None,
            unheard: None,
            listen_at: Duration::ZERO,
            seeds,
            resolved,
            resolver,
            troubles: Troubles::default(),
            alone_since: Duration::ZERO,
            view_at: Duration::ZERO,
            viewed_at: Duration::ZERO,
            leaving: None,
            shared: None,
            services,
            unstored: None,
            open_at: Duration::ZERO,
            streams: 0,
            asked: BTreeMap::new(),
            inbox,
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn moment(&self) -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Moment { now: self.now(), wall: u64::try_from(wall).unwrap_or(u64::MAX) }
    }

    async fn serve(mut self) {
        loop {
            if self.transport.is_none() && self.now() >= self.listen_at {
                self.listen().await;
            }
            match self.wake().await {
                Wake::Command(None) => return,
                Wake::Command(Some(command)) => self.command(command),
                Wake::Transport(news) => self.hear(news),
                Wake::Store(told) => self.hear_store(told),
                Wake::Resolved => self.follow_seeds(),
                Wake::Time => {}
            }
            self.take_datagrams();
            if self.shared.is_none() && self.now() >= self.open_at {
                self.open_shared();
            }
            if self.shared.as_ref().is_some_and(|shared| shared.deadline() <= self.now()) {
                self.tend_shared();
            }
            if self.events.deadline() <= self.now() {
                self.tend_events();
            }
            if self.core.deadline() <= self.now() {
                self.core.tick(self.moment());
            }
            self.carry_out();
            if self.begin_at() < Duration::MAX {
                self.begin_services();
            }
            if self.services.is_standing_due {
                self.stand();
            }
            if self.services.deadline() <= self.now() {
                self.tend_services();
            }
            if self.now() >= self.view_at {
                self.show();
            }
            if self.core.has_left() {
                self.leaving.take().map(|answer| answer.send(()));
                return;
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let listen_at = if self.transport.is_none() { self.listen_at } else { Duration::MAX };
        let shared = self.shared.as_ref().map_or(self.open_at, Shared::deadline);
        let due = self.core.deadline().min(self.view_at).min(listen_at).min(shared);
        let due = due.min(self.services.deadline()).min(self.begin_at()).min(self.events.deadline());
        // Further ahead than a day nothing is due.
        let due = self.start + due.min(self.now() + Duration::from_secs(86_400));
        let transport = self.transport.as_mut();
        let news = async {
            match transport {
                Some(transport) => transport.news().await,
                None => std::future::pending().await,
            }
        };
        let shared = self.shared.as_mut();
        let told = async {
            match shared {
                Some(shared) => shared.told().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            command = self.inbox.commands.recv() => Wake::Command(command),
            told = told => Wake::Store(told),
            news = news => Wake::Transport(news),
            Ok(()) = self.resolved.changed() => Wake::Resolved,
            () = sleep_until(due.into()) => Wake::Time,
        }
    }

    fn command(&mut self, command: Command) {
        let at = self.moment();
        match command {
            Command::Forget(name, answer) => {
                let outcome = self.core.forget(at, &name);
                if outcome.is_ok() {
                    self.forget_everywhere(&name);
                }
                self.stand();
                self.show();
                // The client may have given up meanwhile.
                drop(answer.send(outcome));
            }
            Command::ReadKeys(wanted, answer) => drop(answer.send(self.read_keys(&wanted))),
            Command::WriteKey(write, answer) => self.write_key(write, answer),
            Command::State(local) => self.hear_local(local),
            Command::Found(found, is_whole) => self.hear_found(found, is_whole),
            Command::Change(change, answer) => self.change_services(&change, answer),
            Command::OwnBackends(service, answer) => drop(answer.send(self.own_backends(service.as_deref()))),
            Command::Maintain(is_on, answer) => self.maintain(is_on, answer),
            Command::Around(around) => {
                self.inbox.settings.around = around;
                self.write_facts();
            }
            Command::WatchKeys(prefix, answer) => self.watch_keys(&prefix, answer),
            Command::TellKeys => self.tell_watchers(),
            Command::Numbers(answer) => drop(answer.send(self.numbers())),
            Command::Slices(answer) => drop(answer.send(self.slices())),
            Command::SendEvent(name, payload, answer) => self.send_event(&name, &payload, answer),
            Command::Reconfigure(config) => {
                self.core.set_keyring(ring(&config));
                self.credentials.set_ring(ring(&config));
                if config.join != self.inbox.settings.config.join {
                    self.resolver.abort();
                    (self.resolver, self.resolved) = resolver(config.join.clone());
                    self.seeds = Seeds::literal(&config.join);
                    self.core.set_seeds(at, self.seeds.addresses.clone());
                }
                self.inbox.settings.config = *config;
            }
            Command::Advertise(address) => {
                tracing::info!("cluster: reached at {address} from now on");
                self.inbox.settings.advertise = address;
                self.core.set_address(at, address);
                self.write_facts();
            }
            Command::Leave(answer) => {
                self.leaving = Some(answer);
                self.core.leave(at);
            }
        }
    }

    fn hear_store(&mut self, told: Told) {
        if let Some(shared) = &mut self.shared {
            shared.hear_store(told);
        }
        self.release();
        self.view_soon();
    }

    fn follow_seeds(&mut self) {
        let seeds = self.resolved.borrow_and_update().clone();
        if seeds.addresses != self.seeds.addresses {
            self.core.set_seeds(self.moment(), seeds.addresses.clone());
        }
        self.seeds = seeds;
    }

    fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Up(identity) => {
                tracing::info!("cluster: {} at {} is a member", identity.name(), identity.address());
                let now = self.now();
                if let Some(shared) = &mut self.shared {
                    shared.replication.met(now);
                }
            }
            Notice::Down { identity, left: true } => tracing::info!("cluster: {} has left", identity.name()),
            Notice::Down { identity, left: false } => tracing::warn!("cluster: {} is dead", identity.name()),
            Notice::Alone => self.alone_since = self.now(),
            Notice::Renewed(identity) => tracing::info!("cluster: a new life as {identity:?}"),
            _ => {}
        }
        self.services.is_standing_due = true;
        self.troubles.hear(notice, self.now());
        self.view_soon();
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.resolver.abort();
    }
}

/// The keys; they were read before.
fn ring(config: &ClusterConfig) -> Option<Keyring> {
    config.keys.as_ref().map(SecretKeys::ring)?.ok()
}

fn resolver(join: Vec<String>) -> (JoinHandle<()>, watch::Receiver<Seeds>) {
    let (output, resolved) = watch::channel(Seeds::default());
    (tokio::spawn(seeds::follow(join, output)), resolved)
}
