//! The agent's API: HTTP/1.1 with JSON on a Unix socket, for the command line and for scripts.
//!
//! It has a thread of its own ([`Server`]), so that neither waits for the other's work: what only the agent's loop
//! knows is asked for over a bounded channel ([`Request`]) and answered once; what happens is told by a broadcast
//! ([`Events`]) that no reader can slow down.

mod client;
mod events;
mod refusal;
mod rows;
mod server;
mod socket;

use std::{collections::HashSet, net::SocketAddr, sync::Arc};

use control::service::{Entry, Vip};
use dataplane_common::abi::FanRecord;
use tokio::sync::oneshot;

pub use self::{
    client::{Client, ClientError, Lines},
    events::{Event, Events, Lost, Reader},
    refusal::Refusal,
    rows::{Affinity, Applied, BackendRow, Drained, Reloaded, ServiceRow},
    server::{App, Server},
    socket::{Socket, SocketError},
};
use crate::{kernel::bpf::ServiceMap, sources::config::service::Placed};

/// Paths of the API.
pub mod paths {
    /// Services.
    pub const SERVICES: &str = "/v1/services";
    /// The same, without counting their flows.
    pub const STATES: &str = "/v1/services?flows=no";
    /// One of them.
    pub const SERVICE: &str = "/v1/services/{name}";
    /// A backend is drained with PUT, and undrained with DELETE.
    pub const DRAINED: &str = "/v1/services/{name}/drained/{backend}";
    /// With POST the configuration is read again.
    pub const RELOAD: &str = "/v1/reload";
    /// What happens, a JSON line each, for as long as the client listens.
    pub const EVENTS: &str = "/v1/events";
}

/// Where an answer goes.
pub type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// What only the agent's loop can answer.
#[derive(Debug)]
pub enum Request {
    /// All services.
    Services(Answer<Snapshot>),
    /// The configuration is to be read again.
    Reload(Answer<Reloaded>),
    /// These services are to be there, in place of former ones of their names.
    Apply(Vec<Placed>, Answer<Applied>),
    /// The service of a name is to go.
    Remove(String, Answer<Applied>),
    /// A backend is to take no new flows, or to take them again.
    Drain {
        /// The service's name.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// Whether it takes no new flows.
        drain: bool,
        /// Where the answer goes.
        answer: Answer<Drained>,
    },
}

/// All services at one time: the work of telling them is not the loop's.
#[derive(Debug)]
pub struct Snapshot {
    /// The services, in the order of their names.
    pub entries: Vec<Arc<Entry>>,
    /// VIPs of those that the kernel does not hold as they are wanted.
    pub failed: Arc<HashSet<Vip>>,
    /// The node's name.
    pub node: String,
    /// Its fans.
    pub fans: Vec<FanRecord>,
    /// What the kernel holds; `None` while no fan is up.
    pub map: Option<ServiceMap>,
}
