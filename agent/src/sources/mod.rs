//! Where the desired state comes from.

pub(crate) mod applied;
pub mod config;
pub(crate) mod presence;
