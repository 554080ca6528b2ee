//! The agent: keeps fans, endpoints and services as they ought to be. Packets don't need it.
//!
//! # Task map
//!
//! | task | waits for | on cancellation |
//! |---|---|---|
//! | event loop ([`event_loop`]), on the main thread | signals, what the kernel holds now, requests, the stages of the change on its way ([`changes`]) | ends the process; the datapath stays |
//! | writer ([`Writer`](crate::node::writer)), a thread of its own | orders of the event loop, changes in the kernel, time; it alone waits for locks, programs that it runs, and the kernel | ends after the step under way |
//! | state ([`planner`]), a thread of its own | what the event loop asks for: checks requests and brings the sources together, for the writer | ends with the process |
//! | API ([`Server`](crate::serve::Server)), a thread of its own | clients; answers reads by itself, from the latest [`View`](crate::serve::View) | ends with the process |
//! | source ([`directory`](crate::sources::directory)), a thread for each that the configuration lists | its directory; reads what is other there, and tells it | ends after what it reads; what it said last holds |
//! | cluster ([`Cluster`](crate::cluster::Cluster)), a thread of its own, where one is configured | members, time, commands of the event loop, the state and the API; tells the event loop what it says of services | members are told at a stop, else they find out |
//! | checks ([`Health`](crate::health::Health)), a thread of its own | time, what the kernel was brought to, and the ends of its checks of backends; tells the cluster or the event loop what it finds | ends with the process; programs that it runs are killed |
//! | store of the cluster, a thread beside that one | the disk; writes what members share, and says what is written | nobody was told that it is written |
//! | API by TCP ([`Listener`](crate::serve::Listener)), a thread of its own where the configuration asks for it | readers; answers as the API does, metrics by blocking threads | ends at once |
//! | log ([`log`]), a blocking thread for each write | the disk | nobody was told that it is written |
//! | announcer ([`Announcer`](crate::announce::Announcer)), a thread of its own, once something is to be announced | peers, devices, time, what the event loop and the state tell it | peers keep the routes of a datapath that stays, or lose them first |
//! | records ([`records`]) | news of the agent and of services, which it writes for `status` | the last ones are written at the end |
//! | events ([`monitor`]) | readers of the API's events, and while there are some the programs, which it asks every 50 ms | the programs then stop telling |
//! | shadows ([`shadows`]), with a blocking thread for each search | services that change, changes of the packet filter, a minute | `status` keeps what it said |
//! | tunnels ([`tunnels`]), with a blocking thread for each probe | time: it probes members of the cluster through the fan | `status` keeps what it said |
//! | flow tables ([`flows`](crate::node::flows)), a thread of its own | backends that are gone, whose clients it tells, and the next step of its walk, which removes old entries | ends after the step under way, when the datapath goes that it works on; the programs need neither |
//! | log lines, only of programs built with them | the programs | ends with the datapath it reads |
//!
//! A panic beside the loop is a reason to be degraded, and the task begins anew ([`Faults`](crate::kernel::tasks::Faults));
//! one of the writer or of the state ends the agent.
//!
//! Nothing is flushed, at start neither: what is there is read, and what differs is changed. Programs are replaced in
//! place, never detached first, so that a restart or an upgrade loses no packet.

mod announcing;
mod answers;
mod api;
mod changes;
mod cluster;
mod event_loop;
mod files;
mod log;
mod monitor;
mod notices;
mod plan;
mod planner;
mod records;
mod report;
mod requests;
mod reserved;
mod shadows;
mod signals;
mod sources;
mod speaker;
mod stage;
mod state;
mod tunnels;

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
    let sources = files::load(&options.config)?;
    let sole = Sole::claim(LOCK_FILE.as_ref(), AGENT_NAME, PATIENCE).context("agent")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("agent: the kernel gives no event queue")?;
    runtime.block_on(event_loop::run(options, sources, sole))
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
