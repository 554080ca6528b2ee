//! Clusters on simulated time.
//!
//! A [`World`](world::World) is hosts with disks and clocks, the wire between them and a queue of what happens when. It runs
//! whatever is a [`Node`](node::Node): the protocol cores that the agent runs, unchanged ([`Member`](member::Member)). Nothing here reads a clock or draws
//! on randomness: two runs of one seed are the same to the byte.
//!
//! [`scenarios`] do something to a world and compare what follows with bounds.

#![forbid(unsafe_code)]

pub mod client;
pub mod disk;
mod event;
mod host;
pub mod member;
mod messages;
pub mod network;
pub mod node;
pub mod report;
pub mod scenarios;
pub mod streams;
mod talks;
pub mod world;
