//! What is to be done about packet filters of the host's.

use std::{fmt, str::FromStr};

use super::quoted;

/// What becomes of overlay packets where rules of others may drop some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostFilters {
    /// They go by the kernel's stack, so that the rules hold.
    #[default]
    Honour,
    /// Programs carry them past the rules, as all others.
    Ignore,
}

impl HostFilters {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Honour, Self::Ignore];

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Honour => "honour",
            Self::Ignore => "ignore",
        }
    }
}

impl fmt::Display for HostFilters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HostFilters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|filters| filters.name() == text);
        found.ok_or_else(|| format!("{} is unknown; use honour or ignore", quoted(text)))
    }
}
