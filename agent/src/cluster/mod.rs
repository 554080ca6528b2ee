//! This node's part of a cluster: who is a member, by `control::cluster`, and what that core needs of a host.
//!
//! | module | what it has |
//! |---|---|
//! | `node_key` | the node's key and the generation of its start, on disk |
//! | `transport` | the UDP socket, and streams for exchanges |
//! | `store` | the logs of all members, on disk |
//! | `keys` | user keys as they are asked for |
//! | `seeds` | addresses to join by; names are resolved again and again |
//! | `task` | the cores with sockets and store, on a thread of its own: nothing waits for it |
//! | `handle` | what the rest of the agent has of it: commands, and the latest [`View`] |

mod handle;
mod keys;
mod node_key;
mod numbers;
mod seeds;
mod store;
mod task;
mod transport;
mod troubles;
mod view;

pub use self::{
    handle::{Cluster, KeyEvents, Reader, StartError, Unforgotten, Unsent},
    keys::{KeyEvent, KeyRead, KeyRefusal, KeyValue, KeyWrite, KeyWritten},
    node_key::KeyError,
    numbers::{Numbers, Stored},
    view::{MemberView, View},
};
