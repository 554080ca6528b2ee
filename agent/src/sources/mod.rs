//! Where the desired state comes from.

pub(crate) mod applied;
pub(crate) mod checked;
pub mod config;
pub(crate) mod directory;
pub(crate) mod followed;
pub(crate) mod presence;
