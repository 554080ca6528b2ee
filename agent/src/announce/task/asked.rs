//! What the task is told and asked.

use std::{collections::BTreeSet, path::Path};

use tokio::sync::oneshot;

use super::Task;
use crate::announce::{
    command::{Command, Unanswered},
    marks::MARKS_FILE,
    rows::Switched,
};

/// Marks that are not on disk yet.
pub(super) enum Unsaved {
    /// What follows from checks.
    Nobody,
    /// Somebody waits for the answer.
    Switch {
        former: BTreeSet<String>,
        answer: oneshot::Sender<Result<Switched, Unanswered>>,
        switched: Switched,
    },
}

impl Task<'_> {
    /// Follows a command. Who asked and is gone needs no answer.
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Configure(setup) => {
                self.inbox.setup = *setup;
                // It was about the services of the former one.
                self.inbox.soon = None;
                self.configure();
            }
            Command::Hold(facts) => {
                self.inbox.held = Some(facts);
                self.decide();
            }
            Command::Foresee(services, sent) => {
                self.inbox.soon = Some(services);
                self.decide();
                self.waiting.push(sent);
            }
            Command::Switch { name, disable, answer } => self.switch(name, disable, answer),
            Command::Maintain(is_on, answer) => self.maintain(is_on, answer),
            Command::Announcements(answer) => drop(answer.send(self.announcements())),
            Command::Peers(answer) => drop(answer.send(self.peers())),
            Command::Routes(answer) => {
                let routes = self.speakers.values().flat_map(|speaker| speaker.routes());
                drop(answer.send(routes.collect()));
            }
            Command::Stop(ending, done) => {
                self.stopping = Some((ending, done));
                self.stop(ending);
            }
        }
    }

    fn switch(&mut self, name: String, disable: bool, answer: oneshot::Sender<Result<Switched, Unanswered>>) {
        let refused = match self.inbox.setup.announcements.iter().find(|own| *own.name == *name) {
            None => Some(Unanswered::Unknown(name.clone())),
            Some(own) => own.disable_file.as_ref().filter(|file| !disable && file.exists()).map(|file| {
                let file = file.display();
                let why = format!("announcement '{name}' is disabled while {file} exists; remove the file");
                Unanswered::Refused(why)
            }),
        };
        if let Some(why) = refused {
            return drop(answer.send(Err(why)));
        }
        let former = self.marks.disabled.clone();
        let changed = match disable {
            true => self.marks.disabled.insert(name.clone()),
            false => self.marks.disabled.remove(&name),
        };
        let switched = Switched { name, disabled: disable, changed };
        if changed {
            self.decide();
            self.unsaved.push(Unsaved::Switch { former, answer, switched });
        } else {
            drop(answer.send(Ok(switched)));
        }
    }

    /// Writes the marks, and answers who waits for that. One that would be forgotten with a restart is taken back; a damaged
    /// file is kept until somebody disables anew.
    pub(super) fn save(&mut self) {
        let unsaved = std::mem::take(&mut self.unsaved);
        let is_asked = unsaved.iter().any(|one| matches!(one, Unsaved::Switch { .. }));
        if !self.is_damaged || is_asked {
            self.save_marks();
        }
        let fault = self.marks_fault.clone();
        for one in unsaved.into_iter().rev() {
            let Unsaved::Switch { former, answer, switched } = one else { continue };
            let outcome = match &fault {
                None => Ok(switched),
                Some(why) => {
                    self.marks.disabled = former;
                    Err(Unanswered::Failed(why.clone()))
                }
            };
            drop(answer.send(outcome));
        }
        if fault.is_some() && is_asked {
            self.decide();
        }
    }

    pub(super) fn save_marks(&mut self) {
        let saved = self.marks.save(Path::new(MARKS_FILE));
        self.is_damaged &= saved.is_err();
        self.marks_fault = saved
            .err()
            .map(|error| format!("announce-marks: {MARKS_FILE}: {error}; make room, or mend the disk"));
    }

    /// A mark that would be forgotten with a restart is refused.
    fn keep_or_take_back(&mut self, former: super::Marks) -> Result<(), Unanswered> {
        self.save_marks();
        match &self.marks_fault {
            None => Ok(()),
            Some(why) => {
                let why = why.clone();
                self.marks = former;
                Err(Unanswered::Failed(why))
            }
        }
    }

    fn maintain(&mut self, is_on: bool, answer: oneshot::Sender<Result<bool, Unanswered>>) {
        let former = self.marks.clone();
        let changed = former.maintenance != is_on;
        self.marks.maintenance = is_on;
        if changed && let Err(why) = self.keep_or_take_back(former) {
            drop(answer.send(Err(why)));
            return;
        }
        if is_on {
            self.drain();
        } else {
            self.return_from_silence();
        }
        self.decide();
        drop(answer.send(Ok(changed)));
    }
}
