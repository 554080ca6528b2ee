//! Changes that anybody makes, as they happen.

use std::{collections::VecDeque, os::fd::AsRawFd};

use control::observed::{Address, FdbEntry, Link, Neighbour, Route};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;

use super::{Result, refused_io, values::FromMessage as _};

/// A change in the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface is new or has changed.
    Link(Link),
    /// An interface is gone.
    LinkGone(Link),
    /// An IPv4 address is new or has changed.
    Address(Address),
    /// An IPv4 address is gone.
    AddressGone(Address),
    /// A route (of any table) is new or has changed.
    Route(Route),
    /// A route is gone.
    RouteGone(Route),
    /// The policy rules have changed.
    Rules,
    /// A neighbour is new or has changed.
    Neighbour(Neighbour),
    /// A neighbour entry is gone.
    NeighbourGone(Neighbour),
    /// A bridge forwarding entry is new or has moved to another port.
    Fdb(FdbEntry),
    /// A bridge forwarding entry is gone.
    FdbGone(FdbEntry),
    /// The kernel had to leave out changes: everything must be read anew.
    Resync,
}

/// A stream of [`Event`]s of one network namespace.
pub struct Watch {
    socket: TokioSocket,
    events: VecDeque<Event>,
}

impl Watch {
    /// A burst (a thousand veths coming up) must fit: the default holds some two hundred messages.
    const RECEIVE_BUFFER: usize = 4 << 20;

    const GROUPS: [MulticastGroup; 5] = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Neigh,
    ];

    /// Starts watching the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(refused_io("netlink socket for changes"))?;
        setsockopt(&borrowed(&socket), sockopt::RcvBufForce, &Self::RECEIVE_BUFFER)
            .map_err(|errno| refused_io("buffer of the netlink socket for changes")(errno.into()))?;
        let groups = Self::GROUPS.iter().fold(0, |groups, &group| groups | (1 << (group as u32 - 1)));
        let bound = socket.socket_mut().bind(&SocketAddr::new(0, groups));
        bound.map_err(refused_io("netlink multicast groups"))?;
        Ok(Self { socket, events: VecDeque::new() })
    }

    /// The next change. Dropping the future loses none.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            match self.socket.recv_from_full().await {
                Ok((datagram, _)) => self.events.extend(messages(&datagram).filter_map(event)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Event::Resync),
                Err(error) => return Err(refused_io("netlink socket for changes")(error)),
            }
        }
    }
}

fn borrowed(socket: &TokioSocket) -> std::os::fd::BorrowedFd<'_> {
    // SAFETY: the descriptor is the socket's own and open for as long as the socket is borrowed.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// The messages of a datagram, up to the first that cannot be read.
fn messages(datagram: &[u8]) -> impl Iterator<Item = RouteNetlinkMessage> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).ok()?;
        // Messages are aligned to four bytes.
        let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
        rest = rest.get(length.max(1)..)?;
        Some(message.payload)
    })
    .filter_map(|payload| match payload {
        NetlinkPayload::InnerMessage(message) => Some(message),
        _ => None,
    })
}

fn event(message: RouteNetlinkMessage) -> Option<Event> {
    Some(match message {
        RouteNetlinkMessage::NewLink(message) => Event::Link(Link::from_message(&message)?),
        RouteNetlinkMessage::DelLink(message) => Event::LinkGone(Link::from_message(&message)?),
        RouteNetlinkMessage::NewAddress(message) => Event::Address(Address::from_message(&message)?),
        RouteNetlinkMessage::DelAddress(message) => Event::AddressGone(Address::from_message(&message)?),
        RouteNetlinkMessage::NewRoute(message) => Event::Route(Route::from_message(&message)?),
        RouteNetlinkMessage::DelRoute(message) => Event::RouteGone(Route::from_message(&message)?),
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => Event::Rules,
        RouteNetlinkMessage::NewNeighbour(message) if message.header.family == AddressFamily::Bridge => {
            Event::Fdb(FdbEntry::from_message(&message)?)
        }
        RouteNetlinkMessage::DelNeighbour(message) if message.header.family == AddressFamily::Bridge => {
            Event::FdbGone(FdbEntry::from_message(&message)?)
        }
        RouteNetlinkMessage::NewNeighbour(message) => Event::Neighbour(Neighbour::from_message(&message)?),
        RouteNetlinkMessage::DelNeighbour(message) => {
            Event::NeighbourGone(Neighbour::from_message(&message)?)
        }
        _ => return None,
    })
}
