//! The cluster's cores: state machines to which events, time and randomness come in as arguments.

pub mod clock;
pub mod log;
pub mod records;
pub mod replication;
pub mod rotation;
pub mod state;
