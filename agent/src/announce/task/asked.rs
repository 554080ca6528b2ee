//! What the task is told and asked.

use tokio::sync::oneshot;

use super::Task;
use crate::announce::{
    handle::{Command, Unanswered},
    rows::Switched,
};

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
            Command::Switch { name, disable, answer } => {
                drop(answer.send(self.switch(name, disable)));
            }
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

    fn switch(&mut self, name: String, disable: bool) -> Result<Switched, Unanswered> {
        let Some(own) = self.inbox.setup.announcements.iter().find(|own| *own.name == *name) else {
            return Err(Unanswered::Unknown(name));
        };
        if let Some(file) = own.disable_file.as_ref().filter(|file| !disable && file.exists()) {
            let file = file.display();
            let why = format!("announcement '{name}' is disabled while {file} exists; remove the file");
            return Err(Unanswered::Refused(why));
        }
        let former = self.marks.clone();
        let changed = match disable {
            true => self.marks.disabled.insert(name.clone()),
            false => self.marks.disabled.remove(&name),
        };
        if changed {
            self.keep_or_take_back(former)?;
            self.decide();
        }
        Ok(Switched { name, disabled: disable, changed })
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
