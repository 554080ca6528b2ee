//! Files that are read again.

use std::{path::Path, sync::Arc};

use anyhow::Result;
use sd_notify::NotifyState;

use super::Agent;
use crate::{
    run::{
        files::name,
        report::Topic,
        sources::Opened,
        stage::{Loaded, Loading},
        state::Files,
    },
    serve::{Answer, Refusal, Reloaded},
    sources::{
        config::{self, FANS_FILE, Problem},
        directory::Running,
    },
};

impl Agent {
    /// Follows files that were read, or nothing of them: what is wrong is told.
    pub(super) fn reload(&mut self, loaded: Loading, answer: Answer<Reloaded>) {
        let taken = loaded.and_then(|loaded| {
            let Loaded { sources, opened } = *loaded;
            Ok((self.take_over(sources)?, opened))
        });
        match taken {
            Ok((reloaded, opened)) => {
                let (path, sources) = (self.options.config.clone(), Arc::clone(&self.files));
                let files = Files { path, sources, node: Arc::clone(&self.node) };
                let (listed, running) = Opened::split(opened);
                self.sources = running;
                self.changes.bring_files(files, listed, reloaded, answer);
                self.sources.iter().for_each(Running::begin);
            }
            Err(lines) => {
                let reasons = lines.iter().map(|line| format!("config-invalid: {line}")).collect();
                self.report.set(Topic::Config, reasons);
                self.report.say(&[NotifyState::Ready]);
                let problems = lines.into_iter().map(Problem::general).collect();
                drop(answer.send(Err(Refusal::invalid(problems))));
            }
        }
    }

    /// Uses these files from now on, or none of what they say: whatever can fail comes first.
    fn take_over(&mut self, files: config::Sources) -> Result<Reloaded, Vec<String>> {
        let bad = config::bad_lines(Path::new(FANS_FILE), &files.lines);
        if !bad.is_empty() {
            return Err(bad.iter().map(ToString::to_string).collect());
        }
        let failed = |error: anyhow::Error| vec![format!("{error:#}")];
        let node = name(&files).map_err(failed)?;
        self.cluster.check(&self.options.config, &files, &node)?;
        let prepared = self.api.prepare(&files.config.api).map_err(failed)?;
        let changed = files != *self.files;
        let reloaded = Reloaded { changed, fans: files.fans().len(), services: files.config.services.len() };
        self.api.move_to(&files.config.api, prepared);
        self.node = node;
        self.report.set_node(self.node.to_string());
        self.follow_files(Arc::new(files));
        Ok(reloaded)
    }

    /// Says what is wrong with files that are followed.
    pub(super) fn follow_files(&mut self, files: Arc<config::Sources>) {
        let bad = files.lines.iter().filter_map(|line| line.fan.as_ref().err());
        let reasons = bad.map(|problem| format!("config-invalid: {FANS_FILE}:{problem}")).collect();
        self.report.set(Topic::Config, reasons);
        self.cluster.set_files(&files, &self.node);
        let reasons = self.announcing.follow(&files, &self.node);
        self.report.set(Topic::Announcer, reasons);
        let applied = self.applied.borrow().clone();
        self.announcing.hold(&applied);
        self.files = files;
        self.report_applied();
    }
}
