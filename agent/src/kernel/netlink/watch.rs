//! Changes that anybody makes, as they happen.

use std::{
    collections::VecDeque,
    io,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use control::observed::{Address, FdbEntry, Link, Neighbour, Route};
use ipnet::Ipv4Net;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;

use super::{
    Result,
    messages::{Message, messages, unreadable},
    refused_io,
    route_filter::{self, Interest, Others},
    values::FromMessage as _,
};

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
    /// A route is new or has changed: one of ours, a default route, or one that overlaps the networks that matter.
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

/// A burst (a thousand veths coming up) must fit: the default holds some two hundred messages.
pub(super) const RECEIVE_BUFFER: usize = 4 << 20;

/// The bits of multicast groups in a socket's address.
pub(super) fn groups(groups: &[MulticastGroup]) -> u32 {
    groups.iter().fold(0, |bits, &group| bits | (1 << (group as u32 - 1)))
}

/// A stream of [`Event`]s of one network namespace.
pub struct Watch {
    socket: TokioSocket,
    inbox: Inbox,
}

impl Watch {
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
        setsockopt(&socket.socket_ref().as_fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER)
            .map_err(|errno| refused_io("buffer of the netlink socket for changes")(errno.into()))?;
        let bound = socket.socket_mut().bind(&SocketAddr::new(0, groups(&Self::GROUPS)));
        bound.map_err(refused_io("netlink multicast groups"))?;
        let mut watch = Self { socket, inbox: Inbox::default() };
        watch.follow_routes(&[])?;
        Ok(watch)
    }

    /// Tells of routes that overlap these networks from now on, beside ours and default routes; a router's others do not
    /// even wake this process.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn follow_routes(&mut self, networks: &[Ipv4Net]) -> Result<()> {
        let interest = Interest { near: networks.to_vec(), ..Interest::default() };
        let attached = route_filter::attach(self.socket.socket_ref(), &interest.networks(), Others::All);
        attached.map_err(refused_io("filter of the netlink socket for changes"))
    }

    /// Why changes can't be read that the kernel has told of in the last minute.
    pub fn unreadable(&self) -> Option<&str> {
        self.inbox.unreadable.last(Instant::now())
    }

    /// The next change. Dropping the future loses none.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.inbox.events.pop_front() {
                return Ok(event);
            }
            match self.socket.recv_from_full().await {
                Ok((datagram, _)) => self.inbox.take(&datagram, Instant::now()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Event::Resync),
                Err(error) => return Err(refused_io("netlink socket for changes")(error)),
            }
        }
    }
}

/// What was received.
#[derive(Debug, Default)]
struct Inbox {
    events: VecDeque<Event>,
    unreadable: Unreadable,
}

impl Inbox {
    /// Takes the changes of a datagram. One that can't be read does not hide those behind it, and everything is read anew.
    fn take(&mut self, datagram: &[u8], now: Instant) {
        for message in messages(datagram) {
            match message.map_err(unreadable).and_then(read) {
                Ok(event) => self.events.extend(event),
                Err(error) => {
                    if self.unreadable.note(&error, now) {
                        self.events.push_back(Event::Resync);
                    }
                }
            }
        }
    }
}

/// Messages that can't be read: what they are about is found by reading everything anew, at once but not all the time.
#[derive(Debug, Default)]
struct Unreadable {
    resynced: Option<Instant>,
    last: Option<(Instant, String)>,
}

impl Unreadable {
    const REST: Duration = Duration::from_secs(5);
    const TOLD: Duration = Duration::from_secs(60);

    /// Notes one; says whether everything must be read anew for it.
    fn note(&mut self, error: &io::Error, now: Instant) -> bool {
        self.last = Some((now, error.to_string()));
        let is_due = self.resynced.is_none_or(|resynced| now >= resynced + Self::REST);
        if is_due {
            self.resynced = Some(now);
        }
        is_due
    }

    fn last(&self, now: Instant) -> Option<&str> {
        self.last.as_ref().filter(|(noted, _)| now < *noted + Self::TOLD).map(|(_, error)| error.as_str())
    }
}

fn read(message: Message<'_>) -> io::Result<Option<Event>> {
    let read = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message.bytes).map_err(unreadable)?;
    Ok(match read.payload {
        NetlinkPayload::InnerMessage(inner) => event(inner),
        // The kernel says so in a message, too.
        NetlinkPayload::Overrun(_) => Some(Event::Resync),
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

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLMSG_DONE, NLMSG_OVERRUN};

    use super::*;
    use crate::kernel::netlink::messages::tests::message;

    /// `RTM_NEWRULE` and `RTM_NEWLINK`.
    const RULE: u16 = 32;
    const LINK: u16 = 16;

    fn events(inbox: &mut Inbox) -> Vec<Event> {
        inbox.events.drain(..).collect()
    }

    #[test]
    fn a_change_that_cannot_be_read_hides_none_behind_it() {
        let rule = message(RULE, 0, 0, &[2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0]);
        // A link's structure takes 16 bytes.
        let cut = message(LINK, 0, 0, &[0; 3]);
        let mut inbox = Inbox::default();
        inbox.take(&[rule.clone(), cut, rule].concat(), Instant::now());
        assert_eq!(events(&mut inbox), [Event::Rules, Event::Resync, Event::Rules]);
    }

    #[test]
    fn everything_is_read_anew_for_a_damaged_datagram_and_for_changes_that_were_left_out() {
        let mut inbox = Inbox::default();
        inbox.take(&[1; 9], Instant::now());
        assert_eq!(events(&mut inbox), [Event::Resync]);
        inbox.take(&message(NLMSG_OVERRUN, 0, 0, &[]), Instant::now());
        assert_eq!(events(&mut inbox), [Event::Resync]);
        inbox.take(&message(NLMSG_DONE, 0, 0, &[0; 4]), Instant::now());
        assert_eq!(events(&mut inbox), []);
    }

    #[test]
    fn a_kernel_that_is_never_understood_causes_no_storm_and_is_told_of() {
        let start = Instant::now();
        let mut inbox = Inbox::default();
        let mut count = 0;
        for milliseconds in 0..10_000 {
            inbox.take(&message(LINK, 0, 0, &[0; 3]), start + Duration::from_millis(milliseconds));
            count += events(&mut inbox).len();
        }
        assert_eq!(count, 2);
        let end = start + Duration::from_secs(10);
        assert!(inbox.unreadable.last(end).unwrap().starts_with("a netlink message can't be read"));
        assert_eq!(inbox.unreadable.last(end + Unreadable::TOLD), None);
    }
}
