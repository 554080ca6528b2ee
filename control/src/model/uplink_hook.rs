//! What is asked for at the uplinks.

use std::{fmt, str::FromStr};

use serde::Serialize;

use super::quoted;

/// Where tunnel packets are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UplinkHook {
    /// At tc, and on hardware whose driver runs XDP programs itself in front of that, too.
    #[default]
    Auto,
    /// At XDP, by the driver or else by the kernel, and then at tc.
    Xdp,
    /// At tc alone.
    Tc,
}

impl UplinkHook {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Xdp, Self::Tc];

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}

impl fmt::Display for UplinkHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for UplinkHook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|hook| hook.name() == text);
        found.ok_or_else(|| format!("{} is unknown; use auto, xdp or tc", quoted(text)))
    }
}
