//! How far a change is, and what it waits for.

use std::{future::pending, io, time::Duration};

use anyhow::{Context as _, Result};
use control::desired::Change;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    answers::{Asked, Planned, Reply},
    log::{Damaged, Log, Writing, Written},
    planner::ENDED,
    sources::Opened,
};
use crate::{
    cluster::{ServiceOutcome, ServiceRefusal, ServicesChanged},
    serve::{Answer, Refusal, Reloaded},
    sources::config,
};

/// How long an answer to a reload waits for the kernel: what a command with the lock holds up is followed later.
const RELOADED: Duration = Duration::from_secs(2);

/// How long a change of the cluster's records may take to be stored.
const SHARED: Duration = Duration::from_secs(10);

/// Files that were read, and the sources that they list.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) sources: config::Sources,
    pub(super) opened: Vec<Opened>,
}

/// What reading the files came to, or all that is wrong with them.
pub(super) type Loading = Result<Box<Loaded>, Vec<String>>;

/// How far a change is.
#[derive(Debug)]
pub(super) enum Stage {
    /// The files are read.
    Loading(JoinHandle<(Loading, Damaged)>, Answer<Reloaded>),
    /// What the files say is brought to the kernel.
    Reloading {
        outcome: oneshot::Receiver<Vec<String>>,
        end: Instant,
        reloaded: Reloaded,
        answer: Answer<Reloaded>,
    },
    /// It is found out which changes are asked for. A refusal was answered.
    Planning(oneshot::Receiver<Planned>),
    /// A change of the cluster's records is stored.
    Sharing { outcome: oneshot::Receiver<ServiceOutcome>, end: Instant, asked: Asked },
    /// What follows from it is brought to the kernel.
    Serving { outcome: oneshot::Receiver<Vec<String>>, changed: ServicesChanged, asked: Asked },
    /// The log is put right.
    Mending(Writing),
    /// Changes are written to the log.
    Writing { writing: Writing, changes: Vec<Change>, reply: Reply },
    /// They are made, and brought to the kernel; what takes them back comes first.
    Bringing {
        outcome: oneshot::Receiver<Vec<String>>,
        inverse: oneshot::Receiver<Vec<Change>>,
        reply: Reply,
    },
    /// What takes them back is written to the log.
    Withdrawing { writing: Option<Writing>, inverse: Vec<Change>, fault: String, reply: Reply },
    /// They are taken out of the kernel.
    Undoing { outcome: oneshot::Receiver<Vec<String>>, fault: String, is_written: bool, reply: Reply },
}

/// A stage that ended.
#[derive(Debug)]
pub(super) enum Ended {
    Loaded(Loading, Option<Damaged>, Answer<Reloaded>),
    Reloaded(Reloaded, Answer<Reloaded>),
    Planned(Planned),
    Shared(ServiceOutcome, Asked),
    Served { faults: Vec<String>, changed: ServicesChanged, asked: Asked },
    Mended(Written),
    Written(Written, Vec<Change>, Reply),
    Brought { faults: Vec<String>, inverse: Vec<Change>, reply: Reply },
    Withdrawn { written: Option<Written>, inverse: Vec<Change>, fault: String, reply: Reply },
    Undone { faults: Vec<String>, fault: String, is_written: bool, reply: Reply },
}

impl Stage {
    /// Begins to bring the files' state to the kernel.
    pub(super) fn reloading(
        outcome: oneshot::Receiver<Vec<String>>,
        reloaded: Reloaded,
        answer: Answer<Reloaded>,
    ) -> Self {
        Self::Reloading { outcome, end: Instant::now() + RELOADED, reloaded, answer }
    }

    /// Begins to wait for the cluster's store.
    pub(super) fn sharing(outcome: oneshot::Receiver<ServiceOutcome>, asked: Asked) -> Self {
        Self::Sharing { outcome, end: Instant::now() + SHARED, asked }
    }

    /// Waits for the end of a stage, for ever where there is none. Dropping this loses nothing.
    pub(super) async fn end(stage: &mut Option<Self>) -> Result<Ended> {
        let result = match stage {
            None => return pending().await,
            Some(stage) => stage.result().await?,
        };
        // It has ended: what it carried goes on.
        let Some(stage) = stage.take() else { return pending().await };
        Ok(match (stage, result) {
            (Self::Loading(_, answer), Outcome::Loaded(loaded, damaged)) => {
                Ended::Loaded(loaded, damaged, answer)
            }
            (Self::Reloading { reloaded, answer, .. }, _) => Ended::Reloaded(reloaded, answer),
            (Self::Planning(_), Outcome::Planned(planned)) => Ended::Planned(planned),
            (Self::Sharing { asked, .. }, Outcome::Shared(outcome)) => Ended::Shared(outcome, asked),
            (Self::Serving { changed, asked, .. }, Outcome::Faults(faults)) => {
                Ended::Served { faults, changed, asked }
            }
            (Self::Mending(_), Outcome::Written(Some(written))) => Ended::Mended(written),
            (Self::Writing { changes, reply, .. }, Outcome::Written(Some(written))) => {
                Ended::Written(written, changes, reply)
            }
            (Self::Bringing { mut inverse, reply, .. }, Outcome::Faults(faults)) => {
                let inverse = inverse.try_recv().context(ENDED)?;
                Ended::Brought { faults, inverse, reply }
            }
            (Self::Withdrawing { inverse, fault, reply, .. }, Outcome::Written(written)) => {
                Ended::Withdrawn { written, inverse, fault, reply }
            }
            (Self::Undoing { fault, is_written, reply, .. }, Outcome::Faults(faults)) => {
                Ended::Undone { faults, fault, is_written, reply }
            }
            (stage, result) => anyhow::bail!("agent: {stage:?} ended with {result:?}"),
        })
    }

    async fn result(&mut self) -> Result<Outcome> {
        Ok(match self {
            Self::Loading(task, _) => match task.await {
                Ok((loaded, damaged)) => Outcome::Loaded(loaded, Some(damaged)),
                Err(error) => Outcome::Loaded(Err(vec![format!("reading the configuration: {error}")]), None),
            },
            Self::Reloading { outcome, end, .. } => {
                // What failed is among the reasons to be degraded.
                drop(timeout_at(*end, outcome).await);
                Outcome::Faults(Vec::new())
            }
            Self::Planning(planned) => Outcome::Planned(planned.await.context(ENDED)?),
            Self::Sharing { outcome, end, .. } => {
                let outcome = timeout_at(*end, outcome).await.ok().and_then(Result::ok);
                Outcome::Shared(outcome.unwrap_or_else(|| Err(ServiceRefusal::late())))
            }
            Self::Mending(writing) | Self::Writing { writing, .. } => {
                Outcome::Written(Some(Log::end(writing).await?))
            }
            Self::Withdrawing { writing: None, .. } => Outcome::Written(None),
            Self::Withdrawing { writing: Some(writing), .. } => {
                Outcome::Written(Some(Log::end(writing).await?))
            }
            Self::Bringing { outcome, .. }
            | Self::Undoing { outcome, .. }
            | Self::Serving { outcome, .. } => {
                // Without a writer the loop ends.
                Outcome::Faults(outcome.await.unwrap_or_else(|_gone| vec!["the writer has ended".to_owned()]))
            }
        })
    }
}

#[derive(Debug)]
enum Outcome {
    Loaded(Loading, Option<Damaged>),
    Planned(Planned),
    Shared(ServiceOutcome),
    Written(Option<Written>),
    Faults(Vec<String>),
}

/// Why nothing was changed: the log could not be written.
pub(super) fn unwritten(log: &Log, error: &io::Error) -> Refusal {
    let path = log.path().display();
    tracing::warn!("{path}: {error}");
    Refusal::failed(format!("nothing was changed: {path}: {error}; see whether the disk is full"))
}
