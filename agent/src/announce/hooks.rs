//! Commands that run when an announcement changes its state: one at a time, in order, on a thread of their own.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use control::announce::{Announcement, Life};

use crate::kernel::child;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Commands that wait for their turn; further ones are left out, which the log says.
const WAITING: usize = 256;

/// A command to run.
#[derive(Debug)]
struct Run {
    announcement: Arc<str>,
    state: &'static str,
    command: Arc<str>,
}

/// Where commands go.
#[derive(Debug, Default)]
pub(super) struct Hooks(Option<mpsc::SyncSender<Run>>);

/// What a command finds in `STATE`; none while the state is not known.
pub(super) const fn state(life: Life) -> Option<&'static str> {
    match life {
        Life::Init => None,
        Life::Up => Some("UP"),
        Life::Down => Some("DOWN"),
        Life::Disabled => Some("DISABLED"),
        Life::Maintenance => Some("MAINTENANCE"),
    }
}

impl Hooks {
    /// Has the announcement's command for a state run, if there is one.
    pub(super) fn run(&mut self, own: &Announcement, state: &'static str) {
        let command = match state {
            "UP" => &own.hooks.up,
            "DOWN" => &own.hooks.down,
            _ => &own.hooks.disabled,
        };
        let Some(command) = command.clone() else { return };
        let run = Run { announcement: Arc::clone(&own.name), state, command };
        let sent = match self.queue() {
            Some(queue) => queue.try_send(run).is_ok(),
            None => false,
        };
        if !sent {
            tracing::warn!("announcement {}: too many commands wait; that of {state} is left out", own.name);
        }
    }

    /// The thread's queue; the thread begins with the first command.
    fn queue(&mut self) -> Option<&mpsc::SyncSender<Run>> {
        if self.0.is_none() {
            let (sender, queue) = mpsc::sync_channel(WAITING);
            let thread = thread::Builder::new().name("announce-hooks".to_owned());
            thread.spawn(move || queue.into_iter().for_each(|run| carry_out(&run))).ok()?;
            self.0 = Some(sender);
        }
        self.0.as_ref()
    }
}

fn carry_out(Run { announcement, state, command }: &Run) {
    let environment = [format!("STATE={state}"), format!("FANLIGHT_ANNOUNCEMENT={announcement}")];
    let [state_of, name_of] = &environment;
    let words = [state_of, name_of, "/bin/sh", "-c", command];
    match child::run("/usr/bin/env", &words, "", LIMIT) {
        Ok(output) if output.is_success() => {}
        Ok(output) => {
            tracing::warn!("announcement {announcement}: the command of {state}: {}", output.status);
        }
        Err(error) => tracing::warn!("announcement {announcement}: the command of {state}: {error}"),
    }
}
