//! What the kernel holds, as plain values.

mod endpoint;
mod fan;
mod host;
mod network;
mod presence;
mod services;

pub use endpoint::{Record, TooLong, Wired};
pub use fan::{Adopted, Entry, Mark};
pub use host::{ObservedHost, Standing, standing, surroundings};
pub use network::{
    Address, FdbEntry, Link, Mac, Neighbour, NeighbourState, Route, Rule, XdpMode, XdpProgram,
};
pub use presence::Presence;
pub use services::{Held, HeldRow, HeldService};
