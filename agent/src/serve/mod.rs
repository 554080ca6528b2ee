//! The agent's API: HTTP/1.1 with JSON on a Unix socket, for the command line and for scripts; and by TCP for readers
//! ([`Listener`]), where the configuration says so.
//!
//! Each has a thread of its own ([`Server`]). Reads are answered there and at once, from the latest [`View`]; changes go to
//! the event loop over a bounded channel ([`Request`]) and are answered once; what happens is told by a broadcast
//! ([`Events`]) that no reader can slow down.

mod announce;
mod checks;
mod client;
mod counts;
mod events;
mod http;
mod keys;
mod lines;
mod messages;
mod metrics;
mod nodes;
mod refusal;
mod rows;
mod server;
mod socket;

use std::{collections::HashSet, net::SocketAddr, sync::Arc};

use control::{desired::Desired, service::Vip};
use dataplane_common::abi::FanRecord;
use tokio::sync::oneshot;

pub use self::{
    checks::{CheckRow, CheckedRow},
    client::{Client, ClientError, Lines},
    counts::Counts,
    events::{Event, Events, Lost, Reader},
    http::{ListenError, Listener},
    keys::{KeyEventRow, KeyRow},
    lines::Followers,
    messages::{EventRow, MessageRow},
    nodes::{Forgotten, NodeDetail, NodeRow},
    refusal::Refusal,
    rows::{
        Affinity, Applied, BackendRow, Contributed, Drained, Maintained, OwnBackend, Reloaded, ServiceRow,
    },
    server::{App, Server},
    socket::{Socket, SocketError},
};
pub use crate::cluster::{KeyWritten, OtherBackend};
use crate::{kernel::bpf::ServiceMap, sources::config::service::Placed};

/// Paths of the API.
pub mod paths {
    /// Services.
    pub const SERVICES: &str = "/v1/services";
    /// The same, without counting their flows.
    pub const STATES: &str = "/v1/services?flows=no";
    /// One of them.
    pub const SERVICE: &str = "/v1/services/{name}";
    /// With POST its backends are checked now, or with `?backend=` one of them.
    pub const CHECK: &str = "/v1/services/{name}/check";
    /// A backend is drained with PUT, and undrained with DELETE.
    pub const DRAINED: &str = "/v1/services/{name}/drained/{backend}";
    /// Backends that this node contributes.
    pub const BACKENDS: &str = "/v1/backends";
    /// Those of one service.
    pub const OWN_BACKENDS: &str = "/v1/services/{name}/backends";
    /// A backend is contributed with PUT, with `?weight=N` of this weight, and no more with DELETE.
    pub const OWN_BACKEND: &str = "/v1/services/{name}/backends/{backend}";
    /// Members of the cluster; without one this node alone.
    pub const NODES: &str = "/v1/nodes";
    /// One of them; with DELETE one that is no more is forgotten.
    pub const NODE: &str = "/v1/nodes/{name}";
    /// This node is in maintenance with PUT, and no more with DELETE.
    pub const MAINTENANCE: &str = "/v1/maintenance";
    /// Announcements.
    pub const ANNOUNCEMENTS: &str = "/v1/announcements";
    /// One of them.
    pub const ANNOUNCEMENT: &str = "/v1/announcements/{name}";
    /// It is disabled with PUT, and enabled again with DELETE.
    pub const ANNOUNCE_DISABLED: &str = "/v1/announcements/{name}/disabled";
    /// Peers, with the state of their sessions.
    pub const BGP_PEERS: &str = "/v1/bgp/peers";
    /// Routes that peers have from this node; `?peer=ADDRESS` only that one's.
    pub const BGP_ROUTES: &str = "/v1/bgp/routes";
    /// User keys; `?prefix=` lists those that begin so, and with `watch=true` what happens to them follows, a JSON line each, for
    /// as long as the client listens.
    pub const KEYS: &str = "/v1/kv";
    /// One of them, with PUT and DELETE too; `?if=` writes only where the key has that version.
    pub const KEY: &str = "/v1/kv/{key}";
    /// Messages to all members that come in, a JSON line each, for as long as the client listens; `?name=` only those of a name.
    pub const MESSAGES: &str = "/v1/messages";
    /// With POST one is sent.
    pub const MESSAGE: &str = "/v1/messages/{name}";
    /// The node in numbers, for Prometheus.
    pub const METRICS: &str = "/metrics";
    /// Whether the agent answers.
    pub const HEALTH: &str = "/healthz";
    /// With POST the configuration is read again.
    pub const RELOAD: &str = "/v1/reload";
    /// What happens, a JSON line each, for as long as the client listens.
    pub const EVENTS: &str = "/v1/events";
}

/// Where an answer goes.
pub type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// A change that the event loop is asked for.
#[derive(Debug)]
pub enum Request {
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
    /// This node is to contribute a backend.
    Offer {
        /// The service's name.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// Its share of new flows; without it as it is, and 1 of a new one.
        weight: Option<u32>,
        /// Where the answer goes.
        answer: Answer<Contributed>,
    },
    /// This node is to contribute a backend no more.
    Withdraw {
        /// The service's name.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// Where the answer goes.
        answer: Answer<Contributed>,
    },
}

/// What reads are answered from, at one time; clones share everything.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What the kernel was brought to.
    pub desired: Arc<Desired>,
    /// VIPs of services that the kernel does not hold as they are wanted.
    pub failed: Arc<HashSet<Vip>>,
    /// The node's name.
    pub node: Arc<str>,
    /// Its fans.
    pub fans: Arc<[FanRecord]>,
    /// What the kernel holds; `None` while no fan is up.
    pub map: Option<ServiceMap>,
}
