//! The protocols of a cluster: events and times in; datagrams, deadlines and notices out.
//!
//! What is here opens no socket, reads no clock and draws on no randomness but the seed that it was given. The agent and the
//! simulator run the same code.

pub mod agenda;
pub mod clock;
pub mod events;
pub mod identity;
pub mod keyring;
pub mod log;
pub mod members;
pub mod membership;
pub mod records;
pub mod replication;
pub mod rotation;
pub mod state;
mod wire;

use std::time::Duration;

/// A moment, in both of a node's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since the node started, by a clock that never jumps. All time-outs are of this one.
    pub now: Duration,
    /// Milliseconds since 1970 by the node's wall clock, which may jump. Others only compare it.
    pub wall: u64,
}
