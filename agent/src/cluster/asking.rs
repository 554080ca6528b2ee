//! Services between the rest of the agent and the cluster's task.

use std::{collections::BTreeMap, sync::Arc};

use control::cluster::{log::Name, records::Standing};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    groups::Groups,
    handle::{ANSWER, Cluster, Reader},
    services::{
        Around, Local, Outbox, OwnOffer, ServiceChange, ServiceNews, ServiceOutcome, ServiceRefusal, Verdicts,
    },
    task::Command,
};

/// Where this node's own sources say what they have; clones are one.
#[derive(Clone, Debug)]
pub struct Stating(mpsc::UnboundedSender<Command>);

impl Stating {
    /// Says it. What is written already makes no record.
    pub fn say(&self, local: Local) {
        // Without a task there is a reason to be degraded.
        drop(self.0.send(Command::State(local)));
    }
}

impl Cluster {
    /// Where this node's own sources say what they have.
    pub fn stating(&self) -> Stating {
        Stating(self.commands.clone())
    }

    /// Says where this node is.
    pub fn set_around(&mut self, around: Around) {
        if self.settings.around != around {
            self.settings.around = around.clone();
            drop(self.commands.send(Command::Around(around)));
        }
    }

    /// Where what the cluster says of services waits.
    pub fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(&self.outbox)
    }

    /// What it has said that nobody took yet.
    pub fn take_services(&self) -> Option<ServiceNews> {
        self.outbox.take()
    }
}

impl Reader {
    /// Has services changed; the outcome comes when it is on disk. What follows from it for this node was told by then.
    pub fn change(&self, change: ServiceChange) -> oneshot::Receiver<ServiceOutcome> {
        let (answer, outcome) = oneshot::channel();
        drop(self.commands.send(Command::Change(change, answer)));
        outcome
    }

    /// Tells what this node has found of backends by checking them; where `is_whole`, it has found nothing of others. Members are told
    /// what is news.
    pub fn tell_found(&self, found: Verdicts, is_whole: bool) {
        // Without a task there is a reason to be degraded.
        drop(self.commands.send(Command::Found(found, is_whole)));
    }

    /// This node leaves rotation, or comes back; whether that is news.
    ///
    /// # Errors
    /// It can't be stored.
    pub async fn maintain(&self, is_on: bool) -> Result<bool, ServiceRefusal> {
        let (answer, outcome) = oneshot::channel();
        drop(self.commands.send(Command::Maintain(is_on, answer)));
        let changed = answered(outcome).await?;
        Ok(!changed.names.is_empty())
    }

    /// How groups stand.
    pub fn groups(&self) -> watch::Receiver<Arc<Groups>> {
        self.groups.clone()
    }

    /// Tells this node's part in groups: all of it. Members are told what is news.
    pub fn tell_standings(&self, standings: BTreeMap<Name, Standing>) {
        // Without a task there is a reason to be degraded.
        drop(self.commands.send(Command::Standings(standings)));
    }

    /// A group is taken into maintenance on all its members, or back; whether that is news.
    ///
    /// # Errors
    /// No node is in such a group, or it can't be stored.
    pub async fn maintain_group(&self, group: Name, is_on: bool) -> Result<bool, ServiceRefusal> {
        let (answer, outcome) = oneshot::channel();
        drop(self.commands.send(Command::MaintainGroup(group, is_on, answer)));
        let changed = answered(outcome).await?;
        Ok(!changed.names.is_empty())
    }

    /// The backends that this node contributes, of one service or of all.
    ///
    /// # Errors
    /// There is no such service, or the store is not open.
    pub async fn own_backends(&self, service: Option<String>) -> Result<Vec<OwnOffer>, ServiceRefusal> {
        let (answer, outcome) = oneshot::channel();
        drop(self.commands.send(Command::OwnBackends(service, answer)));
        answered(outcome).await
    }
}

async fn answered<T>(outcome: oneshot::Receiver<Result<T, ServiceRefusal>>) -> Result<T, ServiceRefusal> {
    timeout(ANSWER, outcome).await.ok().and_then(Result::ok).unwrap_or_else(|| Err(ServiceRefusal::late()))
}
