//! Signals of the process.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGHUP: the configuration is to be read again.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

/// The signals that the agent follows.
#[derive(Debug)]
pub(super) struct Signals {
    reload: Stream,
    terminate: Stream,
    interrupt: Stream,
}

impl Signals {
    pub(super) fn open() -> Result<Self> {
        let on = |kind| signal(kind).context("agent: signals");
        Ok(Self {
            reload: on(SignalKind::hangup())?,
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.reload.recv() => Signal::Reload,
        }
    }
}
