//! This node as a speaker of BGP: what it announces, by `control::announce`, to its peers, by `control::bgp`, and what those
//! cores need of a host.
//!
//! | module | what it has |
//! |---|---|
//! | `command` | what it is told and asked |
//! | `links` | connections with peers: a task that reads and one that writes for each |
//! | `speaker` | a session with its connections |
//! | `listeners` | where peers connect |
//! | `hooks` | commands on a change of an announcement's state |
//! | `marks` | what is disabled, and maintenance, on disk |
//! | `task` | the cores with sockets and clock, on a thread of its own: nothing waits for it |
//! | `rows` | what is shown of it |
//! | `handle` | what the rest of the agent has of it |

mod command;
mod handle;
mod hooks;
mod links;
mod listeners;
mod marks;
mod rows;
mod speaker;
mod task;

pub use self::{
    command::{Ending, Setup, Unanswered},
    handle::{Announcer, Interest, Reader},
    rows::{AnnouncementRow, CheckRow, PeerRow, PrefixRow, RouteRow, Switched},
};
