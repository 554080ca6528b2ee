//! This node's part of a cluster: who is a member, by `control::cluster`, and what that core needs of a host.
//!
//! | module | what it has |
//! |---|---|
//! | `node_key` | the node's key and the generation of its start, on disk |
//! | `transport` | the UDP socket, and streams for exchanges |
//! | `seeds` | addresses to join by; names are resolved again and again |
//! | `task` | the core with its sockets, on a thread of its own: nothing waits for it |
//! | `handle` | what the rest of the agent has of it: commands, and the latest [`View`] |

mod handle;
mod node_key;
mod seeds;
mod task;
mod transport;
mod troubles;
mod view;

pub use self::{
    handle::{Cluster, Reader, StartError, Unforgotten},
    node_key::KeyError,
    view::{MemberView, View},
};
