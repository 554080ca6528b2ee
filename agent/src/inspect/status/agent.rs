//! Whether the agent runs, and if not, since when what it left behind may be stale.

use std::{io, path::Path};

use control::model::utc;
use serde::Serialize;

use super::record::AgentRecord;
use crate::kernel::sole;

/// The agent, as far as can be told from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentState {
    /// Whether it runs.
    pub state: Life,
    /// Its process, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Since when it runs, or since when it doesn't, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// Whether there is an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Life {
    /// It runs.
    Running,
    /// It ran, and does no more: nothing is repaired or learnt.
    Stale,
    /// None ran since boot; fans need none.
    None,
}

/// The agent's state and, while it counts, its record.
#[derive(Debug)]
pub struct Seen {
    pub(super) state: AgentState,
    pub(super) record: Option<AgentRecord>,
    /// It ended without being asked to.
    pub(super) died: bool,
}

impl Seen {
    /// The node's name, where an agent has told it.
    pub fn node(&self) -> Option<&str> {
        self.record.as_ref().map(|record| record.node.as_str()).filter(|name| !name.is_empty())
    }
}

/// Looks at the agent's guards and record. Nothing is held for it: an agent that starts meanwhile finds all free.
///
/// # Errors
/// The record can't be read.
pub(super) fn look(lock: &Path, name: &str, record: &Path) -> io::Result<Seen> {
    let read = AgentRecord::read(record)?;
    let runs = sole::running(lock, name).is_some();
    // A record of the agent before it says nothing of one that only starts.
    let current = |record: &AgentRecord| {
        record.stopped.is_none() && Path::new("/proc").join(record.pid.to_string()).exists()
    };
    let state = |state, pid, since: Option<u64>| AgentState { state, pid, since: since.map(utc) };
    Ok(match read {
        Some((record, _)) if runs && current(&record) => Seen {
            state: state(Life::Running, Some(record.pid), Some(record.started)),
            record: Some(record),
            died: false,
        },
        _ if runs => Seen { state: state(Life::Running, None, None), record: None, died: false },
        Some((record, written)) => Seen {
            state: state(Life::Stale, None, Some(record.stopped.unwrap_or(written))),
            died: record.stopped.is_none(),
            record: Some(record),
        },
        None => Seen { state: state(Life::None, None, None), record: None, died: false },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kernel::lock::Lock;

    const NAME: &str = "fanlight-test/status";

    #[test]
    fn an_agent_runs_exactly_while_its_lock_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, path) = (folder.path().join("agent.lock"), folder.path().join("agent.json"));
        assert_eq!(look(&lock, NAME, &path).unwrap().state.state, Life::None);

        let held = Lock::wait(&lock, Duration::ZERO).unwrap();
        AgentRecord { stopped: Some(0), ..Default::default() }.write(&path).unwrap();
        let seen = look(&lock, NAME, &path).unwrap();
        assert_eq!((seen.state.state, seen.state.pid), (Life::Running, None), "it only starts");
        let pid = std::process::id();
        AgentRecord { pid, ..Default::default() }.write(&path).unwrap();
        let seen = look(&lock, NAME, &path).unwrap();
        assert_eq!((seen.state.state, seen.state.pid), (Life::Running, Some(pid)));

        drop(held);
        let seen = look(&lock, NAME, &path).unwrap();
        assert_eq!((seen.state.state, seen.died), (Life::Stale, true));

        AgentRecord { stopped: Some(0), ..Default::default() }.write(&path).unwrap();
        let seen = look(&lock, NAME, &path).unwrap();
        assert_eq!((seen.state.state, seen.died), (Life::Stale, false));
        assert_eq!(seen.state.since.as_deref(), Some("1970-01-01 00:00:00Z"));
    }

    #[test]
    fn a_look_at_the_agent_keeps_none_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, path) = (folder.path().join("agent.lock"), folder.path().join("agent.json"));
        let end = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(std::sync::atomic::Ordering::Relaxed) {
                    look(&lock, NAME, &path).unwrap();
                }
            });
            let free = (0..5_000).filter(|_| Lock::attempt(&lock).unwrap().is_some()).count();
            end.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(free, 5_000);
        });
    }
}
