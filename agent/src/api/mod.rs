//! The agent's API: HTTP/1.1 with JSON on a Unix socket, for the command line and for scripts.
//!
//! It has a thread of its own ([`Server`]), so that neither waits for the other's work: what only the agent's loop
//! knows is asked for over a bounded channel ([`Request`]) and answered once; what happens is told by a broadcast
//! ([`Events`]) that no reader can slow down.

mod client;
mod events;
mod refusal;
mod server;
mod socket;

use tokio::sync::oneshot;

pub use self::{
    client::{Client, ClientError, Lines},
    events::{Event, Events, Lost, Reader},
    refusal::Refusal,
    server::{App, Server},
    socket::{Socket, SocketError},
};
use crate::status::ServiceState;

/// Where clients find the agent; a socket that is configured elsewhere is reached from here, too.
pub const SOCKET: &str = "/run/fanlight/api.sock";

/// Paths of the API.
pub mod paths {
    /// Services.
    pub const SERVICES: &str = "/v1/services";
    /// What happens, a JSON line each, for as long as the client listens.
    pub const EVENTS: &str = "/v1/events";
}

/// Where an answer goes.
pub type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// What only the agent's loop can answer.
#[derive(Debug)]
pub enum Request {
    /// All services.
    Services(Answer<Vec<ServiceState>>),
}
