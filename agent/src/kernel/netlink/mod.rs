//! Links, addresses, routes, rules, neighbours and bridge forwarding entries by rtnetlink.
//!
//! [`Netlink`] asks and changes, [`Watch`] tells of changes that anybody makes. A socket belongs to the network
//! namespace of the thread that opened it, for as long as it lives. IPv4 only: underlays and overlays are.

mod addresses;
mod links;
pub(super) mod messages;
mod neighbours;
mod route_filter;
mod route_queries;
mod route_table;
mod routes;
mod values;
mod watch;

use std::{
    io,
    sync::{Arc, Mutex},
};

use futures_util::{Stream, TryStreamExt};
pub use links::{BridgeRequest, VethEnd, VethRequest};
use route_table::RouteTable;
pub use watch::{Event, Watch};

/// Why a request failed; `what` names its object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused it.
    #[error("{what}: {source}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no such interface.
    #[error("interface {name}: it does not exist; see `ip link`")]
    NoLink { name: String },
}

impl Error {
    /// The kernel's error number.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::NoLink { .. } => Some(libc::ENODEV),
        }
    }

    /// No route leads to what was asked for, or only one that rejects packets.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL))
    }

    /// What was to be created is there already.
    pub fn already_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// What was to be changed or removed is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL))
    }
}

/// Result of a netlink request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A request socket in the network namespace of the thread that opened it.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    routes: Arc<Mutex<RouteTable>>,
}

impl Netlink {
    /// Opens a socket; a tokio runtime must be running on this thread.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self> {
        // Strict checking makes the kernel apply the filters of a dump (one routing table, one bridge).
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(refused_io("netlink socket"))?;
        tokio::spawn(connection);
        let routes = RouteTable::open().map_err(refused_io("netlink socket for routes"))?;
        Ok(Self { handle, routes: Arc::new(Mutex::new(routes)) })
    }

    /// Opens a stream of changes in the same namespace as [`open`](Self::open) would.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn watch() -> Result<Watch> {
        Watch::open()
    }
}

/// Names the object of a failed request.
fn refused(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |error| {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        };
        Error::Refused { what: what.into(), source }
    }
}

fn refused_io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Refused { what: what.into(), source }
}

/// All values of a dump, without the messages that hold none.
async fn collect<M, T>(
    what: &str,
    dump: impl Stream<Item = std::result::Result<M, rtnetlink::Error>>,
    value: impl Fn(&M) -> Option<T>,
) -> Result<Vec<T>> {
    let messages: Vec<M> = dump.try_collect().await.map_err(refused(format!("list of {what}")))?;
    Ok(messages.iter().filter_map(value).collect())
}
