//! Fanlight's agent and command line as a library.
//!
//! Configuration path: [`sources`] → desired state ([`control`]) → difference to what the kernel holds → ordered
//! operations, which [`node`] makes. Only [`kernel`] talks to the kernel.

pub mod announce;
pub mod cli;
pub mod cluster;
pub mod health;
pub mod inspect;
pub mod kernel;
pub mod node;
pub mod run;
pub mod serve;
pub mod sources;
