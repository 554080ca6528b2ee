//! Changes on their way: checked, into the log, into the desired state, into the kernel, and answered; or taken back.
//! One at a time: further requests wait in their queue. The loop goes on meanwhile.

use std::{collections::BTreeMap, io, net::Ipv4Addr, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use control::{
    desired::{Change, Dirty, Reserved},
    service::Down,
};
use tokio::sync::oneshot;

use super::{
    announcing::Foresight,
    answers::{Asked, Planned, Reply},
    files::load_all,
    log::{Damaged, Log},
    planner::{ENDED, Planner},
    requests,
    sources::{Door, Listed, Number},
    stage::{Ended, Loading, Stage, unwritten},
    state::{Files, State},
};
use crate::{
    cluster::{Reader, ServiceChange, ServiceOutcome, ServicesChanged, Stating, Word},
    node::writer::{Applied, Writer},
    serve::{Answer, Refusal, Reloaded, Request},
    sources::{checked, followed::News},
};

/// The state that changes lead to, and what they go through.
pub(super) struct Changes {
    state: Planner,
    pub(super) writer: Writer,
    log: Log,
    door: Door,
    foresight: Foresight,
    /// The cluster, once this node takes part in one.
    cluster: Option<Reader>,
    /// How far the present change is.
    stage: Option<Stage>,
}

/// What is left to do for the event loop when a stage has ended.
pub(super) enum Next {
    /// Files were read.
    Follow(Loading, Answer<Reloaded>),
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
    /// # Errors
    /// The kernel gives no thread.
    pub(super) fn new(
        state: State,
        writer: Writer,
        log: Log,
        door: Door,
        foresight: Foresight,
    ) -> Result<Self> {
        let state = Planner::start(state).context("agent: the kernel gives no thread")?;
        Ok(Self { state, writer, log, door, foresight, cluster: None, stage: None })
    }

    /// Waits until a stage has ended, or (`None`) something else is desired. Dropping this loses nothing.
    ///
    /// # Errors
    /// The state's thread or the log's has ended.
    pub(super) async fn news(&mut self) -> Result<Option<Ended>> {
        let Self { state, stage, .. } = self;
        tokio::select! {
            biased;
            ended = Stage::end(stage) => ended.map(Some),
            followed = state.changed() => followed.map(|()| None),
        }
    }

    /// Whether a change may begin.
    pub(super) fn is_free(&self) -> bool {
        self.stage.is_none()
    }

    /// Begins a change of services; `held` is what the kernel holds.
    pub(super) fn begin(&mut self, request: Request, held: &Applied, config: PathBuf) {
        match request {
            Request::Reload(answer) => self.begin_reload(config, answer),
            request => {
                let held = held.clone();
                self.plan(move |state| requests::plan(request, state, &held));
            }
        }
    }

    /// Has it found out which changes are to be made, in the state's thread.
    fn plan(&mut self, plan: impl FnOnce(&mut State) -> Planned + Send + 'static) {
        self.stage = Some(Stage::Planning(self.state.ask(move |state| plan(state))));
    }

    /// Begins to read the files again.
    fn begin_reload(&mut self, config: PathBuf, answer: Answer<Reloaded>) {
        let door = self.door.clone();
        let task = tokio::task::spawn_blocking(move || (load_all(&config, &door), Damaged::find()));
        self.stage = Some(Stage::Loading(task, answer));
    }

    /// Follows files, and brings what they say to the kernel.
    pub(super) fn bring_files(
        &mut self,
        files: Files,
        listed: Vec<Listed>,
        reloaded: Reloaded,
        answer: Answer<Reloaded>,
    ) {
        let has_lost = self.log.has_lost();
        let outcome = self.follow(move |state| {
            state.set_files(&files, listed, has_lost);
            Some(Dirty::All)
        });
        self.stage = Some(Stage::reloading(outcome, reloaded, answer));
    }

    /// Keeps named VIPs from addresses.
    pub(super) fn set_reserved(&mut self, reserved: Reserved) {
        // What fails is among the reasons of the next pass.
        drop(self.follow(move |state| Some(state.set_reserved(reserved)).filter(|dirty| !dirty.is_empty())));
    }

    /// Follows what a source tells.
    pub(super) fn hear(&mut self, number: Number, news: News) {
        // What fails is among the reasons of the next pass.
        drop(self.follow(move |state| Some(state.hear(number, news)).filter(|dirty| !dirty.is_empty())));
    }

    /// Drain marks whose backends are no more go, and what is contributed to services that are no more; what stays in the
    /// log is found again at the next start.
    pub(super) fn drop_stale(&mut self) {
        self.plan(|state| Planned::Changes(state.stale(), Reply::Nobody));
    }

    /// Takes what was applied out of this node's log: the cluster has it.
    pub(super) fn hand_over(&mut self) {
        self.plan(|state| Planned::Changes(state.handed_over(), Reply::Nobody));
    }

    /// Takes part in a cluster, once it speaks.
    pub(super) fn join(&mut self, cluster: Reader, stating: Stating) {
        self.cluster = Some(cluster);
        drop(self.state.ask(move |state| state.join(stating)));
    }

    /// The cluster that is configured can't begin.
    pub(super) fn lose_cluster(&self) {
        drop(self.follow(|state| Some(state.lose_cluster()).filter(|dirty| !dirty.is_empty())));
    }

    /// Follows what the cluster says; what comes back comes when the kernel does. What fails is among the reasons of the next pass.
    pub(super) fn hear_cluster(&self, word: Word) -> oneshot::Receiver<Vec<String>> {
        self.follow(move |state| Some(state.hear_cluster(word)).filter(|dirty| !dirty.is_empty()))
    }

    /// Puts right what has come to be wrong with the log, when there is nothing else to do.
    pub(super) fn mend(&mut self) {
        if self.is_free() {
            let state = self.state.clone();
            let all = move || {
                state.ask(|state| state.applied()).blocking_recv().map_err(|_gone| io::Error::other(ENDED))
            };
            self.stage = self.log.mend(all).map(Stage::Mending);
        }
    }

    /// Follows the presence of endpoints.
    pub(super) fn set_absent(&mut self, absent: Arc<BTreeMap<Ipv4Addr, Down>>) {
        // What fails is among the reasons of the next pass.
        drop(self.follow(move |state| Some(state.set_absent(&absent)).filter(|dirty| !dirty.is_empty())));
    }

    /// Follows what this node's checks have found.
    pub(super) fn set_found(&mut self, found: checked::Found, is_whole: bool) {
        // What fails is among the reasons of the next pass.
        drop(
            self.follow(move |state| {
                Some(state.set_found(found, is_whole)).filter(|dirty| !dirty.is_empty())
            }),
        );
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
            Ended::Planned(Planned::Changes(changes, reply)) => self.write(changes, reply),
            Ended::Planned(Planned::Shared(change, asked)) => self.share(change, asked),
            Ended::Shared(outcome, asked) => return self.serve(outcome, asked),
            Ended::Served { faults, changed, asked } => {
                let outcome = faults.first().map_or(Ok(()), |fault| {
                    let why = "the cluster has the change, and this node tries again";
                    Err(Refusal::failed(format!("{fault}; {why}")))
                });
                return Next::Answer(asked.reply(changed, &self.state.desired()), outcome);
            }
            Ended::Reloaded(reloaded, answer) => return Next::Reloaded(reloaded, answer),
            Ended::Mended(written) => {
                if let Err(error) = self.log.take(written) {
                    tracing::warn!("{}: {error}", self.log.path().display());
                }
                // The kernel keeps services that no source names as long as a log can't be read.
                let has_lost = self.log.has_lost();
                drop(self.follow(move |state| state.set_lost(has_lost).then_some(Dirty::All)));
                return Next::Tell;
            }
            Ended::Written(written, changes, reply) => match self.log.take(written) {
                Ok(()) => {
                    let (inverse, outcome) = self.make(changes);
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
                let (_, outcome) = self.make(inverse);
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

    /// Has the cluster's records changed.
    fn share(&mut self, change: ServiceChange, asked: Asked) {
        // Without a cluster nobody answers.
        let outcome = self.cluster.as_ref().map(|cluster| cluster.change(change));
        self.stage = outcome.map(|outcome| Stage::sharing(outcome, asked));
    }

    /// Waits until the kernel has what followed from a change of the cluster's records.
    fn serve(&mut self, outcome: ServiceOutcome, asked: Asked) -> Next {
        match outcome {
            Ok(changed) => {
                let names = Dirty::Names(changed.names.clone());
                let outcome = self.follow(move |_followed| Some(names));
                self.stage = Some(Stage::Serving { outcome, changed, asked });
                Next::Wait
            }
            Err(refusal) => {
                let reply = asked.reply(ServicesChanged::default(), &self.state.desired());
                Next::Answer(reply, Err(refusal.into()))
            }
        }
    }

    /// Makes changes of what was applied; gives where comes what takes them back, and then the writer's outcome.
    fn make(&self, changes: Vec<Change>) -> (oneshot::Receiver<Vec<Change>>, oneshot::Receiver<Vec<String>>) {
        let (answer, inverse) = oneshot::channel();
        let outcome = self.follow(move |state| {
            let (inverse, dirty) = state.change(&changes);
            // Nobody asks for what takes back what took something back.
            drop(answer.send(inverse));
            Some(dirty)
        });
        (inverse, outcome)
    }

    /// Has the state follow something, and the kernel what that concerns. Orders are given by the state's thread: the
    /// writer gets them in the order of what they follow.
    fn follow(
        &self,
        change: impl FnOnce(&mut State) -> Option<Dirty> + Send + 'static,
    ) -> oneshot::Receiver<Vec<String>> {
        let (answer, outcome) = oneshot::channel();
        let (orders, foresight) = (self.writer.orders(), self.foresight.clone());
        drop(self.state.ask(move |state| {
            if let Some(dirty) = change(state) {
                // A withdrawal leaves before what it announced stops being served.
                foresight.see(&state.desired);
                orders.reconcile(Arc::clone(&state.desired), dirty, answer);
            }
        }));
        outcome
    }

    /// What is wrong with what was applied, and with its log.
    pub(super) fn reasons(&self) -> Vec<String> {
        let desired = self.state.desired();
        let told = desired.clashes().chain(desired.faults()).map(str::to_owned);
        told.chain(desired.notes()).chain(self.log.reasons()).collect()
    }
}
