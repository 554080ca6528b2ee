//! This node's part of a cluster: who is a member, by `control::cluster`, and what that core needs of a host.
//!
//! | module | what it has |
//! |---|---|
//! | `node_key` | the node's key and the generation of its start, on disk |
//! | `transport` | the UDP socket, and streams for exchanges |
//! | `store` | the logs of all members, on disk |
//! | `keys` | user keys as they are asked for |
//! | `services` | services as this node's sources and requests say them, and as the cluster does |
//! | `served` | what the cluster says of a service, as a statement for the desired state |
//! | `seeds` | addresses to join by; names are resolved again and again |
//! | `task` | the cores with sockets and store, on a thread of its own: nothing waits for it |
//! | `asking` | what the rest of the agent says and asks of services |
//! | `handle` | what the rest of the agent has of it: commands, and the latest [`View`] |

mod asking;
mod handle;
mod keys;
mod node_key;
mod numbers;
mod seeds;
mod served;
mod services;
mod store;
mod task;
mod transport;
mod troubles;
mod view;

pub use self::{
    asking::Stating,
    handle::{Cluster, KeyEvents, Reader, StartError, Unforgotten, Unsent},
    keys::{KeyEvent, KeyRead, KeyRefusal, KeyValue, KeyWrite, KeyWritten},
    node_key::KeyError,
    numbers::{Numbers, Slices, Stored},
    services::{
        Around, Local, OtherBackend, Outbox, OwnOffer, Said, ServiceChange, ServiceNews, ServiceOutcome,
        ServiceRefusal, ServicesChanged, Verdicts, Word,
    },
    view::{MemberView, View},
};
