//! The agent: keeps fans and endpoints as they ought to be. Packets don't need it.
//!
//! # Task map
//! Everything but the API and the flow tables' keeper runs on one thread.
//!
//! | task | waits for | on cancellation |
//! |---|---|---|
//! | main loop ([`agent`]) | a change ([`sources`]) or the time of the next look ([`pace`]); looks: reads the kernel, plans ([`reconcile`](control::reconcile)), applies | ends the process; the datapath stays |
//! | netlink connection (of [`Node`](crate::node::fan::Node)) | answers to requests | ends with the main loop |
//! | API ([`Server`](crate::serve::Server)), a thread of its own | clients, and answers of the main loop | ends with the process |
//! | events ([`monitor`]) | readers of the API's events, and while there are some the programs, which it asks every 50 ms | ends with the datapath it reads; the programs then stop telling |
//! | a change of services on its way to the disk | the disk | nobody was told that it is kept |
//! | the keeper of the flow tables ([`flows`](crate::node::flows)), a thread of its own | backends that are gone, whose clients it tells, and the next step of its walk, which removes old entries | ends after the step under way, when the datapath goes that it works on; the programs need neither |
//! | the look for others that translate VIPs ([`shadows`]), with a blocking thread for each | services that change, changes of the packet filter, a minute | `status` keeps what it said |
//! | log lines, only of programs built with them | the programs | ends with the datapath it reads |
//!
//! A look at fans ([`fans`]) brings those of the files up and down and repairs all that stand; a look at endpoints
//! ([`endpoints`]) attaches ports, fills the endpoint table and sets path routes; a look at services ([`services`])
//! brings VIPs, rings and backends to the kernel. What fails is retried with growing pauses and stands in the agent's
//! record ([`report`]) until it works.
//!
//! Nothing is flushed, at start neither: the agent reads what is there and changes what differs. Programs are
//! replaced in place, never detached first, so that a restart or an upgrade loses no packet.

mod agent;
mod api;
mod endpoints;
mod fans;
mod filters;
mod keeping;
mod locking;
mod monitor;
mod pace;
mod presence;
mod relevance;
mod report;
mod requests;
mod services;
mod services_record;
mod services_room;
mod shadows;
mod sources;

use std::{io, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::{
    inspect::status::{AGENT_NAME, LOCK_FILE},
    kernel::sole::Sole,
};

/// How long another agent may take to end, where this one follows it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How the agent runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// `fanlight.toml`.
    pub config: PathBuf,
    /// Take the datapath down at the end.
    pub detach: bool,
}

/// Runs the agent until it is asked to stop.
///
/// # Errors
/// The configuration is invalid, another agent runs, or the kernel refuses what an agent can't do without.
pub fn run(options: &Options) -> Result<()> {
    log_to_stderr();
    let sources = agent::load(&options.config)?;
    let sole = Sole::claim(LOCK_FILE.as_ref(), AGENT_NAME, PATIENCE).context("agent")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("agent: the kernel gives no event queue")?;
    runtime.block_on(agent::run(options, sources, sole))
}

/// One line an event on standard error, without times where systemd's journal adds its own.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    let outcome = if std::env::var_os("JOURNAL_STREAM").is_some() {
        lines.without_time().with_ansi(false).try_init()
    } else {
        lines.with_ansi(false).try_init()
    };
    if let Err(error) = outcome {
        tracing::debug!("a log is set up already: {error}");
    }
}
