//! What the rest of the agent has of the cluster.

use std::{io, net::SocketAddrV4, sync::Arc, time::Duration};

use control::cluster::{
    events::{Event, EventError},
    identity::{NameError, NodeName},
    keyring::KeyringError,
    membership::ForgetError,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    keys::{Batch, KeyEvent, KeyRead, KeyRefusal, KeyValue, KeyWrite, KeyWritten},
    node_key::{self, KeyError},
    numbers::{Numbers, Slices},
    services::{Around, Outbox},
    task::{self, Command, Found, Inbox, Settings},
    transport::Traffic,
    view::View,
};
use crate::{
    kernel::tasks::Faults,
    sources::config::{ClusterConfig, SecretKeys},
};

/// How long the good-bye may take.
const GOOD_BYE: Duration = Duration::from_secs(1);
/// How long an answer may take: the task waits for nothing.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Messages that wait for a reader before the oldest are lost to it.
const EVENTS: usize = 1_024;

/// Why this node has no part in a cluster.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Members go by host name labels.
    #[error("{0}; set node.name")]
    Name(#[from] NameError),
    /// The node's own key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The cluster's keys.
    #[error("cluster.keys: {0}")]
    Keys(#[from] KeyringError),
    /// The system.
    #[error("no thread for the cluster: {0}")]
    Thread(#[from] io::Error),
}

/// Why a member was not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum Unforgotten {
    /// The core refuses.
    #[error(transparent)]
    Refused(#[from] ForgetError),
    /// There is nobody to ask.
    #[error("the agent's part of the cluster gives no answer; see 'fanlight status'")]
    NoAnswer,
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// A bound.
    #[error(transparent)]
    Refused(#[from] EventError),
    /// There is nobody to ask.
    #[error("the agent's part of the cluster gives no answer; see 'fanlight status'")]
    NoAnswer,
}

/// The running part of a cluster. Without a good-bye it ends when nobody has it or reads from it any more.
#[derive(Debug)]
pub struct Cluster {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    view: watch::Receiver<Arc<View>>,
    pub(super) settings: Settings,
    pub(super) outbox: Arc<Outbox>,
    events: broadcast::Sender<Arc<Event>>,
}

impl Cluster {
    /// Starts taking part as `node`, reached at `advertise`.
    ///
    /// # Errors
    /// The name or a key can't be used, or there is no thread.
    pub fn start(
        config: &ClusterConfig,
        node: &str,
        advertise: SocketAddrV4,
        faults: &Faults,
    ) -> Result<Self, StartError> {
        let node = NodeName::new(node)?;
        let key = node_key::signing_key(&config.data)?;
        config.keys.as_ref().map(SecretKeys::ring).transpose()?;
        let around = Around::default();
        let settings = Settings { config: config.clone(), node, key, advertise, around };
        let (commands, asked) = mpsc::unbounded_channel();
        let before =
            View { cluster: config.name.as_str().into(), members: Arc::default(), reasons: Vec::new() };
        let (output, view) = watch::channel(Arc::new(before));
        let events = broadcast::Sender::new(EVENTS);
        let outbox = Arc::<Outbox>::default();
        let mut inbox = Inbox {
            settings: settings.clone(),
            commands: asked,
            view: output,
            stated: None,
            found: Found::default(),
            outbox: Arc::clone(&outbox),
            traffic: Traffic::default(),
            events: events.clone(),
        };
        faults.keep_thread("cluster", move || task::run(&mut inbox))?;
        Ok(Self { commands, view, settings, outbox, events })
    }

    /// For readers.
    pub fn reader(&self) -> Reader {
        Reader { commands: self.commands.clone(), view: self.view.clone(), events: self.events.clone() }
    }

    /// The latest view.
    pub fn view(&mut self) -> Arc<View> {
        Arc::clone(&self.view.borrow_and_update())
    }

    /// Waits until there is another view; for ever when the task has ended. Dropping this loses nothing.
    pub async fn changed(&mut self) {
        if self.view.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// What it runs with.
    pub fn config(&self) -> &ClusterConfig {
        &self.settings.config
    }

    /// The node's name in the cluster.
    pub fn node(&self) -> &NodeName {
        &self.settings.node
    }

    /// Members and keys of another configuration, from now on; everything else of it is to be the same.
    pub fn reconfigure(&mut self, config: &ClusterConfig) {
        if self.settings.config != *config {
            self.settings.config = config.clone();
            // Without a task there is a reason to be degraded.
            drop(self.commands.send(Command::Reconfigure(Box::new(config.clone()))));
        }
    }

    /// Another address is advertised from now on.
    pub fn advertise(&mut self, address: SocketAddrV4) {
        if self.settings.advertise != address {
            self.settings.advertise = address;
            drop(self.commands.send(Command::Advertise(address)));
        }
    }

    /// Tells members that this node stops.
    pub async fn leave(self) {
        let (answer, left) = oneshot::channel();
        drop(self.commands.send(Command::Leave(answer)));
        drop(timeout(GOOD_BYE, left).await);
    }
}

/// What readers of the API have of the cluster; clones share it.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    view: watch::Receiver<Arc<View>>,
    events: broadcast::Sender<Arc<Event>>,
}

impl Reader {
    /// The latest view.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Removes a member that is dead or has left.
    ///
    /// # Errors
    /// There is none of the name, it is alive, or the task gives no answer.
    pub async fn forget(&self, name: NodeName) -> Result<(), Unforgotten> {
        let (answer, forgotten) = oneshot::channel();
        drop(self.commands.send(Command::Forget(name, answer)));
        match timeout(ANSWER, forgotten).await {
            Ok(Ok(outcome)) => Ok(outcome?),
            Ok(Err(_)) | Err(_) => Err(Unforgotten::NoAnswer),
        }
    }

    /// User keys as this node knows them.
    ///
    /// # Errors
    /// The store is not open.
    pub async fn read_keys(&self, wanted: KeyRead) -> Result<Vec<KeyValue>, KeyRefusal> {
        self.ask(|answer| Command::ReadKeys(wanted, answer)).await
    }

    /// Writes a user key; it is on this node's disk, or that of the member that decides, when this returns.
    ///
    /// # Errors
    /// A bound, another version, or nobody who could decide or store it.
    pub async fn write_key(&self, write: KeyWrite) -> Result<KeyWritten, KeyRefusal> {
        self.ask(|answer| Command::WriteKey(write, answer)).await
    }

    /// Follows the user keys that begin so: first all that are there.
    ///
    /// # Errors
    /// The store is not open.
    pub async fn watch_keys(&self, prefix: String) -> Result<KeyEvents, KeyRefusal> {
        let batches = self.ask(|answer| Command::WatchKeys(prefix, answer)).await?;
        Ok(KeyEvents { batches, commands: self.commands.clone() })
    }

    /// The cluster in numbers; none, when the task gives no answer.
    pub async fn numbers(&self) -> Option<Numbers> {
        let (answer, numbers) = oneshot::channel();
        drop(self.commands.send(Command::Numbers(answer)));
        timeout(ANSWER, numbers).await.ok()?.ok()
    }

    /// The overlay networks of members, as far as they say; nothing, when the task gives no answer.
    pub async fn slices(&self) -> Slices {
        let (answer, slices) = oneshot::channel();
        drop(self.commands.send(Command::Slices(answer)));
        timeout(ANSWER, slices).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Sends a message to all members.
    ///
    /// # Errors
    /// It is too long, there are too many, or the task gives no answer.
    pub async fn send_event(&self, name: String, payload: Vec<u8>) -> Result<Arc<Event>, Unsent> {
        let (answer, sent) = oneshot::channel();
        drop(self.commands.send(Command::SendEvent(name, payload, answer)));
        match timeout(ANSWER, sent).await {
            Ok(Ok(outcome)) => Ok(outcome?),
            Ok(Err(_)) | Err(_) => Err(Unsent::NoAnswer),
        }
    }

    /// Messages that come from now on.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, KeyRefusal>>) -> Command,
    ) -> Result<T, KeyRefusal> {
        let (answer, answered) = oneshot::channel();
        drop(self.commands.send(command(answer)));
        match timeout(ANSWER, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => {
                Err(KeyRefusal::Unavailable("it was not stored in time; see 'fanlight status'".to_owned()))
            }
        }
    }
}

/// Changes of user keys, as they happen.
#[derive(Debug)]
pub struct KeyEvents {
    batches: mpsc::Receiver<Batch>,
    commands: mpsc::UnboundedSender<Command>,
}

impl KeyEvents {
    /// What happened next; none when nothing more is told. Dropping this loses nothing.
    pub async fn next(&mut self) -> Option<Vec<KeyEvent>> {
        let batch = self.batches.recv().await?;
        // There is room for the next ones.
        drop(self.commands.send(Command::TellKeys));
        Some(batch)
    }
}
