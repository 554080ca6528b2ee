//! What the agent says of itself, for `status` to read: `/run/fanlight/agent.json`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use control::service::ServiceState;
use serde::{Deserialize, Serialize, Serializer as _};

use crate::kernel::{bpf::FlowCount, replace::replace};

/// Where the agent's record is.
pub const RECORD_FILE: &str = "/run/fanlight/agent.json";
/// Where it has its services.
pub const SERVICES_FILE: &str = "/run/fanlight/services.json";
/// The lock that a running agent holds.
pub const LOCK_FILE: &str = "/run/fanlight/agent.lock";
/// The abstract name that a running agent holds in its network namespace.
pub const AGENT_NAME: &str = "fanlight/agent";

/// The agent's record; times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// The node's name.
    pub node: String,
    /// Its process.
    pub pid: u32,
    /// The agent's version.
    pub version: String,
    /// When it started.
    pub started: u64,
    /// When it ended on request; absent while it runs, and when it died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<u64>,
    /// What the last complete walk over the flow tables found.
    #[serde(default)]
    pub flow_count: Option<FlowCount>,
    /// The cluster that it is a member of.
    #[serde(default)]
    pub cluster: Option<ClusterState>,
    /// What is not as it ought to be, one reason an entry.
    #[serde(default)]
    pub degraded: Vec<String>,
}

/// A cluster as one member knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Its name.
    pub name: String,
    /// How many members are in each state; states without members are left out.
    pub members: BTreeMap<String, usize>,
}

impl AgentRecord {
    /// Reads the record and when it was last written; `None` when no agent ran since boot.
    ///
    /// # Errors
    /// The file can't be read or is damaged.
    pub fn read(path: &Path) -> io::Result<Option<(Self, u64)>> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let written = fs::metadata(path)?.modified()?;
        Ok(Some((serde_json::from_slice(&text)?, seconds(written))))
    }

    /// Replaces the record; a reader sees the old one or the new one.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        replace(path, &serde_json::to_vec_pretty(self)?)
    }
}

/// Reads the record of services; none when no agent ran since boot.
///
/// # Errors
/// The file can't be read or is damaged.
pub fn read_services(path: &Path) -> io::Result<Vec<ServiceState>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        text => Ok(serde_json::from_slice(&text?)?),
    }
}

/// Replaces the record of services; a reader sees the old one or the new one.
///
/// # Errors
/// The file can't be written.
pub fn write_services(path: &Path, services: impl Iterator<Item = ServiceState>) -> io::Result<()> {
    let mut text = Vec::new();
    serde_json::Serializer::new(&mut text).collect_seq(services)?;
    replace(path, &text)
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// The host's name, for nodes that have none configured.
///
/// # Errors
/// `/proc` isn't mounted.
pub fn host_name() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.json");
        assert_eq!(AgentRecord::read(&path).unwrap(), None);
        let record = AgentRecord {
            node: "a".to_owned(),
            pid: 7,
            degraded: vec!["why".to_owned()],
            ..Default::default()
        };
        record.write(&path).unwrap();
        let (read, written) = AgentRecord::read(&path).unwrap().unwrap();
        assert_eq!(read, record);
        assert!(seconds(SystemTime::now()) - written < 60);
    }

    #[test]
    fn a_damaged_record_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.json");
        fs::write(&path, "{").unwrap();
        assert!(AgentRecord::read(&path).is_err());
    }
}
