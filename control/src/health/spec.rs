//! A check as it is asked for.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::Expect;

/// A check: what is tried, how often, and how many results in a row count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is tried.
    pub probe: Probe,
    /// From one check to the next in a steady state.
    pub interval: Duration,
    /// The same while a target rises or falls.
    pub fast_interval: Duration,
    /// How long one check may take.
    pub timeout: Duration,
    /// Passes in a row that make a target up; at least one.
    pub rise: u32,
    /// Failures in a row that take it down; at least one.
    pub fall: u32,
    /// The port to connect to; `None`: the target's.
    pub port: Option<u16>,
}

impl Check {
    /// What a key that is not given means.
    pub const INTERVAL: Duration = Duration::from_secs(5);
    /// The same.
    pub const FAST_INTERVAL: Duration = Duration::from_secs(1);
    /// The same.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// The same.
    pub const RISE: u32 = 2;
    /// The same.
    pub const FALL: u32 = 3;

    /// A check with the usual times.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: Self::INTERVAL,
            fast_interval: Self::FAST_INTERVAL,
            timeout: Self::TIMEOUT,
            rise: Self::RISE,
            fall: Self::FALL,
            port: None,
        }
    }
}

/// What is tried.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// A connection opens.
    Tcp,
    /// A request is answered with a status that is expected.
    Http(Http),
    /// A program with its arguments ends with status 0.
    Command(Vec<String>),
}

impl Probe {
    /// The word for it in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(Http { tls: None, .. }) => "http",
            Self::Http(Http { tls: Some(_), .. }) => "https",
            Self::Command(_) => "command",
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Http(http) => write!(f, "{} {} {}", self.kind(), http.method, http.path),
            Self::Command(words) => write!(f, "command {}", words.join(" ")),
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Whether it is sent by TLS, and whom that trusts.
    pub tls: Option<Tls>,
    /// What is asked for; begins with a slash.
    pub path: String,
    /// The host that is asked for; `None`: the target's address.
    pub host: Option<String>,
    /// The method.
    pub method: String,
    /// The statuses that pass.
    pub expect: Expect,
}

/// Whom a request by TLS trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A file of certificates that sign the target's; `None`: the system's.
    pub ca: Option<String>,
    /// Any certificate passes.
    pub insecure: bool,
}

/// What becomes of the flows of a backend that is down by its check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDown {
    /// They stay: a failing check is no proof that a connection is dead.
    #[default]
    Keep,
    /// They end, as if the backend had gone.
    Reset,
}

impl fmt::Display for OnDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Reset => "reset",
        })
    }
}

/// How a service's backends are checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checking {
    /// The check of each backend.
    pub check: Arc<Check>,
    /// What becomes of the flows of one that is down by it.
    #[serde(default)]
    pub on_down: OnDown,
}
