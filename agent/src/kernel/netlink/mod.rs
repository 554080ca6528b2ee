//! Links, addresses, routes, rules, neighbours and bridge forwarding entries by rtnetlink.
//!
//! [`Netlink`] asks and changes, [`Watch`] tells of changes that anybody makes. A socket belongs to the network
//! namespace of the thread that opened it, for as long as it lives. IPv4 only: underlays and overlays are.

mod addresses;
mod announced;
mod devices;
mod links;
mod loopback;
pub(super) mod messages;
mod neighbours;
mod route_filter;
mod route_queries;
mod route_table;
mod routes;
mod small_paths;
mod values;
mod watch;

use std::{
    io,
    sync::{Arc, Mutex},
};

pub use devices::{Device, DeviceWatch, devices};
use futures_util::{Stream, TryStreamExt};
pub use links::{BridgeRequest, VethEnd, VethRequest};
pub use loopback::LoopbackAddress;
use route_table::RouteTable;
use tokio::task::AbortHandle;
pub(in crate::kernel) use values::xdp_programs;
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
    /// The task that reads and writes the socket. It ends when the socket breaks.
    connection: AbortHandle,
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
        let connection = tokio::spawn(connection).abort_handle();
        let routes = RouteTable::open().map_err(refused_io("netlink socket for routes"))?;
        Ok(Self { handle, connection, routes: Arc::new(Mutex::new(routes)) })
    }

    /// Whether it can be used: once its socket broke, every request fails.
    pub fn is_open(&self) -> bool {
        !self.connection.is_finished()
    }

    /// All values of a dump, without the messages that hold none.
    async fn collect<M, T>(
        &self,
        what: &str,
        dump: impl Stream<Item = std::result::Result<M, rtnetlink::Error>>,
        value: impl Fn(&M) -> Option<T>,
    ) -> Result<Vec<T>> {
        let what = || format!("list of {what}");
        let messages: Vec<M> = dump.try_collect().await.map_err(|error| refused(what())(error))?;
        // A socket that breaks ends the stream like the last message does.
        if !self.is_open() {
            return Err(refused_io(what())(io::ErrorKind::BrokenPipe.into()));
        }
        Ok(messages.iter().filter_map(value).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_broke_says_so_and_is_no_empty_list() {
        let netlink = Netlink::open().unwrap();
        assert!(netlink.is_open() && !netlink.links().await.unwrap().is_empty());
        netlink.connection.abort();
        while netlink.is_open() {
            tokio::task::yield_now().await;
        }
        netlink.clone().links().await.unwrap_err();
        let cut = futures_util::stream::empty::<std::result::Result<u8, rtnetlink::Error>>();
        let error = netlink.collect("interfaces", cut, |&byte| Some(byte)).await.unwrap_err();
        assert_eq!(error.to_string(), "list of interfaces: broken pipe");
    }
}
