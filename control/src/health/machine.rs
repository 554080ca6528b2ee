//! What results in a row make of a target.
//!
//! | state | a pass | a failure |
//! |---|---|---|
//! | `init` | `up` after `rise` in a row | `down` after `fall` in a row |
//! | `up` | stays | `falling`, or `down` where one is enough |
//! | `falling`, which counts as up | `up` | `down` after `fall` in a row |
//! | `down` | `rising`, or `up` where one is enough | stays |
//! | `rising`, which counts as down | `up` after `rise` in a row | `down` |
//!
//! `disabled` lies over them: results go on to count, and show once it ends.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Check;

/// How a target is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not known yet.
    #[default]
    Init,
    /// Down, and the last check passed.
    Rising,
    /// The last results passed.
    Up,
    /// Up, and the last check failed.
    Falling,
    /// The last results failed.
    Down,
    /// Somebody has taken it out.
    Disabled,
}

impl State {
    /// Whether the target is up, as far as that is known.
    pub fn is_up(self) -> Option<bool> {
        match self {
            Self::Init | Self::Disabled => None,
            Self::Up | Self::Falling => Some(true),
            Self::Down | Self::Rising => Some(false),
        }
    }

    /// Whether the next result may make it another one that counts.
    pub fn is_steady(self) -> bool {
        matches!(self, Self::Up | Self::Down)
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Rising => "rising",
            Self::Up => "up",
            Self::Falling => "falling",
            Self::Down => "down",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A target and its last results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Never `Disabled`.
    state: State,
    is_disabled: bool,
    /// The last result, and how many of it there were in a row.
    run: (bool, u32),
}

impl Machine {
    /// A target that begins in a state; [`State::Disabled`] begins as [`State::Init`] below.
    pub fn new(state: State) -> Self {
        match state {
            State::Disabled => Self { is_disabled: true, ..Self::default() },
            state => Self { state, ..Self::default() },
        }
    }

    /// How the target is.
    pub fn state(&self) -> State {
        if self.is_disabled { State::Disabled } else { self.state }
    }

    /// How it would be if nobody had taken it out.
    pub fn below(&self) -> State {
        self.state
    }

    /// Takes the target out, or lets its results count again.
    pub fn disable(&mut self, is_disabled: bool) {
        self.is_disabled = is_disabled;
    }

    /// Counts a result.
    pub fn count(&mut self, passed: bool, check: &Check) {
        let (last, times) = self.run;
        let times = if last == passed { times.saturating_add(1) } else { 1 };
        self.run = (passed, times);
        self.state = match (self.state, passed) {
            (State::Up | State::Falling, true) => State::Up,
            (State::Down | State::Rising, false) => State::Down,
            (_, true) if times >= check.rise => State::Up,
            (_, false) if times >= check.fall => State::Down,
            (State::Up | State::Falling, false) => State::Falling,
            (State::Down | State::Rising, true) => State::Rising,
            (State::Init | State::Disabled, _) => State::Init,
        };
    }
}
