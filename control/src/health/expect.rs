//! Which statuses of HTTP pass.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::quoted;

/// Statuses that pass: codes and ranges, such as `200-299,401`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expect(Vec<(u16, u16)>);

/// Most codes and ranges.
const MOST: usize = 64;

impl Expect {
    /// Whether a status passes.
    pub fn has(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl Default for Expect {
    fn default() -> Self {
        Self(vec![(200, 399)])
    }
}

/// Why a text names no statuses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{} names no statuses; write codes and ranges from 100 to 599 with commas between them, such as 200-299,401",
    quoted(.0)
)]
pub struct ExpectError(String);

impl FromStr for Expect {
    type Err = ExpectError;

    fn from_str(text: &str) -> Result<Self, ExpectError> {
        let code = |text: &str| {
            let is_code = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            let code = is_code.then(|| text.parse().ok()).flatten();
            code.filter(|code| (100..=599).contains(code))
        };
        let range = |part: &str| {
            let part = part.trim();
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (code(first.trim())?, code(last.trim())?);
            (first <= last).then_some((first, last))
        };
        let ranges: Option<Vec<(u16, u16)>> = text.split(',').map(range).collect();
        let ranges = ranges.filter(|ranges| ranges.len() <= MOST);
        ranges.map(Self).ok_or_else(|| ExpectError(text.to_owned()))
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if place > 0 { "," } else { "" })?;
            match first == last {
                true => write!(f, "{first}")?,
                false => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Expect {
    type Error = ExpectError;

    fn try_from(text: String) -> Result<Self, ExpectError> {
        text.parse()
    }
}

impl From<Expect> for String {
    fn from(expect: Expect) -> Self {
        expect.to_string()
    }
}
