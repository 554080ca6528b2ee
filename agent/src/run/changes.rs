//! Changes on their way: checked, into the log, into the desired state, into the kernel, and answered; or taken back.
//! One at a time: further requests wait in their queue. The loop goes on meanwhile.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf, sync::Arc};

use anyhow::Result;
use control::{
    desired::{Change, Dirty},
    service::Down,
};
use tokio::sync::oneshot;

use super::{
    files::load,
    log::{Damaged, Log},
    plan::Known,
    stage::{Ended, Reply, Stage, unwritten},
    state::State,
};
use crate::{
    node::writer::{Applied, Writer},
    serve::{Answer, Refusal, Reloaded, Request},
    sources::config,
};

/// The state that changes lead to, and what they go through.
pub(super) struct Changes {
    pub(super) state: State,
    pub(super) writer: Writer,
    pub(super) log: Log,
    /// How far the present change is.
    stage: Option<Stage>,
}

/// What is left to do for the event loop when a stage has ended.
pub(super) enum Next {
    /// Files were read.
    Follow(Result<config::Sources, Vec<String>>, Answer<Reloaded>),
    /// The kernel is as the files say, or will be.
    Reloaded(Reloaded, Answer<Reloaded>),
    /// A change is made, or taken back.
    Answer(Reply, Result<(), Refusal>),
    /// What is said of the log may be others.
    Tell,
    /// Nothing yet.
    Wait,
}

impl Changes {
    pub(super) fn new(state: State, writer: Writer, log: Log) -> Self {
        Self { state, writer, log, stage: None }
    }

    /// Whether a change may begin.
    pub(super) fn is_free(&self) -> bool {
        self.stage.is_none()
    }

    /// Waits for the end of a stage, for ever where there is none. Dropping this loses nothing.
    pub(super) async fn end(&mut self) -> Result<Ended> {
        Stage::end(&mut self.stage).await
    }

    /// Begins a change of services; `held` is what the kernel holds.
    pub(super) fn begin(&mut self, request: Request, held: &Applied, config: PathBuf) {
        let known = Known { inputs: &self.state.inputs, desired: &self.state.desired, held };
        match request {
            Request::Reload(answer) => self.begin_reload(config, answer),
            Request::Apply(services, answer) => match known.apply(&services) {
                Ok((changes, applied)) => self.write(changes, Reply::Applied(answer, applied)),
                Err(refusal) => drop(answer.send(Err(refusal))),
            },
            Request::Remove(name, answer) => match known.remove(&name) {
                Ok((changes, applied)) => self.write(changes, Reply::Applied(answer, applied)),
                Err(refusal) => drop(answer.send(Err(refusal))),
            },
            Request::Drain { service, backend, drain, answer } => {
                match known.drain(service, backend, drain) {
                    Ok((changes, drained)) => self.write(changes, Reply::Drained(answer, drained)),
                    Err(refusal) => drop(answer.send(Err(refusal))),
                }
            }
        }
    }

    /// Begins to read the files again.
    fn begin_reload(&mut self, config: PathBuf, answer: Answer<Reloaded>) {
        let task = tokio::task::spawn_blocking(move || (load(&config), Damaged::find()));
        self.stage = Some(Stage::Loading(task, answer));
    }

    /// Brings what files say, which the state follows by now, to the kernel.
    pub(super) fn bring_files(&mut self, reloaded: Reloaded, answer: Answer<Reloaded>) {
        self.stage = Some(Stage::reloading(self.reconcile(Dirty::All), reloaded, answer));
    }

    /// Drain marks whose backends are no more go; those that stay in the log are found again at the next start.
    pub(super) fn drop_stale_marks(&mut self) {
        let stale = self.state.stale_marks();
        self.write(stale, Reply::Nobody);
    }

    /// Puts right what has come to be wrong with the log, when there is nothing else to do.
    pub(super) fn mend(&mut self) {
        if self.is_free() {
            let state = &self.state;
            self.stage = self.log.mend(|| state.applied()).map(Stage::Mending);
        }
    }

    /// Follows the presence of endpoints.
    pub(super) fn set_absent(&mut self, absent: &BTreeMap<Ipv4Addr, Down>) {
        let dirty = self.state.set_absent(absent);
        if !dirty.is_empty() {
            // What fails is among the reasons of the next pass.
            drop(self.reconcile(dirty));
        }
    }

    /// Has changes written to the log; they are made when that is done.
    fn write(&mut self, changes: Vec<Change>, reply: Reply) {
        if changes.is_empty() {
            return reply.send(Ok(()));
        }
        match self.log.append(changes.clone()) {
            Some(writing) => self.stage = Some(Stage::Writing { writing, changes, reply }),
            None => reply.send(Err(Refusal::failed("an earlier change is being made; try again"))),
        }
    }

    /// Goes on when a stage has ended.
    pub(super) fn go_on(&mut self, ended: Ended) -> Next {
        match ended {
            Ended::Loaded(files, damaged, answer) => {
                damaged.into_iter().for_each(|damaged| self.log.set_damaged(damaged));
                return Next::Follow(files, answer);
            }
            Ended::Reloaded(reloaded, answer) => return Next::Reloaded(reloaded, answer),
            Ended::Mended(written) => {
                if let Err(error) = self.log.take(written) {
                    tracing::warn!("{}: {error}", self.log.path().display());
                }
                // The kernel keeps services that no source names as long as a log can't be read.
                if self.state.set_keeps_unknown(self.log.has_lost()) {
                    drop(self.reconcile(Dirty::All));
                }
                return Next::Tell;
            }
            Ended::Written(written, changes, reply) => match self.log.take(written) {
                Ok(()) => {
                    let (inverse, outcome) = self.make(&changes);
                    self.stage = Some(Stage::Bringing { outcome, inverse, reply });
                }
                Err(error) => return Next::Answer(reply, Err(unwritten(&self.log, &error))),
            },
            Ended::Brought { mut faults, inverse, reply } if !faults.is_empty() => {
                let fault = faults.swap_remove(0);
                let writing = self.log.append(inverse.clone());
                self.stage = Some(Stage::Withdrawing { writing, inverse, fault, reply });
            }
            Ended::Brought { reply, .. } => return Next::Answer(reply, Ok(())),
            Ended::Withdrawn { written, inverse, fault, reply } => {
                let is_written = written.is_some_and(|written| self.log.take(written).is_ok());
                let (_, outcome) = self.make(&inverse);
                self.stage = Some(Stage::Undoing { outcome, fault, is_written, reply });
            }
            Ended::Undone { faults, fault, is_written, reply } => {
                let undone = if is_written && faults.is_empty() {
                    "nothing was changed"
                } else {
                    "it could not be taken back; see 'fanlight status'"
                };
                return Next::Answer(reply, Err(Refusal::failed(format!("{fault}; {undone}"))));
            }
        }
        Next::Wait
    }

    /// Makes changes of what was applied; gives what takes them back, and where the writer's outcome comes.
    fn make(&mut self, changes: &[Change]) -> (Vec<Change>, oneshot::Receiver<Vec<String>>) {
        let (inverse, dirty) = self.state.change(changes);
        (inverse, self.reconcile(dirty))
    }

    fn reconcile(&self, dirty: Dirty) -> oneshot::Receiver<Vec<String>> {
        self.writer.reconcile(Arc::clone(&self.state.desired), dirty)
    }

    /// What is wrong with what was applied, and with its log.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.state.desired.clashes().map(str::to_owned).chain(self.log.reasons()).collect()
    }
}
