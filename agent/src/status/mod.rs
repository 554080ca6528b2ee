//! The node's state on one screen, with or without a running agent.

mod record;

pub use record::{AgentRecord, LOCK_FILE, RECORD_FILE, host_name, seconds};
