//! Fanlight's agent and command line as a library.
//!
//! Configuration path: sources ([`config`]) → desired state ([`model`]) → difference to what the kernel holds →
//! ordered operations. Only `kernel` talks to the kernel.

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod endpoint;
pub mod explain;
pub mod fan;
pub mod flow;
pub mod kernel;
pub mod model;
pub mod monitor;
pub mod reconcile;
pub mod replay;
pub mod service;
pub mod shadow;
pub mod status;
