//! Hosts, wires, routers, containers and agents as values, for the integration tests, the demo and the benchmarks.
//!
//! Everything lives in namespaces of its own and ends with its value, on panic too; what a killed run left is
//! swept by the next one ([`lab`]). Operations panic with the command and its output: a test wants the place
//! where the world stopped being as expected, not an error to hand on.
#![warn(missing_docs)]

pub mod agent;
pub mod api;
pub mod bench;
pub mod capture;
pub mod cluster;
pub mod command;
pub mod container;
pub mod counters;
pub mod crowd;
pub mod engine;
pub mod fleet;
pub mod flood;
pub mod flows;
pub mod foreign;
pub mod host;
pub mod http;
mod kit;
pub mod lab;
pub mod live;
pub mod load;
pub mod narrow;
pub mod network;
pub mod nginx;
pub mod packet;
pub mod server;
pub mod services;
pub mod site;
pub mod socket;
pub mod speaker;
mod sys;
pub mod tools;

pub use agent::Agent;
pub use command::{Cmd, Output, Process, close, eventually};
pub use container::Container;
pub use counters::{Counters, assert_counted};
pub use host::Host;
pub use network::{Router, Switch, wire};
pub use site::Site;
