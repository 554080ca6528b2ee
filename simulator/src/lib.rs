//! Clusters on simulated time.
//!
//! A [`World`](world::World) is hosts with disks and clocks, the wire between them and a queue of what happens when. It runs
//! whatever is a [`Node`](node::Node): the protocol cores that the agent runs, unchanged. Nothing here reads a clock or draws
//! on randomness: two runs of one seed are the same to the byte.
//!
//! [`scenarios`] do something to a world and compare what follows with bounds.

#![forbid(unsafe_code)]

pub mod disk;
mod host;
pub mod messenger;
pub mod network;
pub mod node;
mod queue;
pub mod report;
pub mod scenarios;
pub mod world;
