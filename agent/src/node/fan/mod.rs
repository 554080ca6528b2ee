//! A fan's life on this node: brought up, kept in repair, shown, tested, taken down.
//!
//! What is to be remembered of a fan stands in two places: on its bridge (the kernel is the database) and in
//! `/run/fanlight/fans.json`, which also knows of adopted bridges and of fans whose bridge was deleted. It is
//! written before anything is changed, so that a call that dies half-way can be repaired or taken back by the next.
//! `up` and repair alike look, plan ([`control::reconcile::pieces`]) and carry the plan out, and a failing `up` is taken back
//! by what `down` does.

mod error;
mod firewall;
mod forward;
mod forwarding;
mod identity;
mod memory;
mod node;
mod pieces;
mod probe;
mod show;
mod take_down;
mod tunnel;
mod uplinks;

use std::time::Duration;

pub use error::{Error, Fault};
pub use identity::Identities;
pub use node::{Node, Repair, Up};
pub use probe::{LET_THROUGH, Step};
pub use show::FanState;
pub use tunnel::Tunnel;
pub use uplinks::{UplinkWay, hindered, ways};

/// Folder of what lives until the next boot.
pub const RUN: &str = "/run/fanlight";
/// Held around every change of fans and endpoints, by command line and agent alike.
pub const LOCK: &str = "/run/fanlight/lock";
/// How long a command waits for it: the agent's first look has the kernel verify all programs, ten seconds where it is
/// emulated.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Interface that overlay routes point to.
pub const HELPER: &str = control::model::HELPER[0];
