//! Questions about routes: all of one maker, and the one to a destination.

use std::{collections::HashSet, io};

use control::observed::Route;
use ipnet::Ipv4Net;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    messages::{Message, Requests, unreadable},
    route_filter::{self, MAIN},
    values::FromMessage as _,
};

/// `RTM_GETROUTE`.
const GET_ROUTE: u16 = 26;

/// A socket that asks.
#[derive(Debug)]
pub(super) struct RouteQueries(Requests);

impl RouteQueries {
    pub(super) fn open() -> io::Result<Self> {
        let requests = Requests::open(NETLINK_ROUTE)?;
        requests.check_strictly()?;
        Ok(Self(requests))
    }

    /// Reads routes of one maker, 0 for all, with the devices of those that have several next hops; the rest is not even
    /// looked at where `matters` says so.
    pub(super) fn list(&self, protocol: u8, matters: impl Fn(Ipv4Net, u8) -> bool) -> io::Result<List> {
        let request = get(Ipv4Net::default(), protocol, 0);
        let list = self.0.list(GET_ROUTE, &request, |(routes, all_hops): &mut List, message| {
            let Some((destination, protocol)) = route_filter::peek(message.payload) else { return Ok(()) };
            if !matters(destination, protocol) {
                return Ok(());
            }
            match read(message) {
                Ok(Some(RouteNetlinkMessage::NewRoute(route))) => {
                    routes.extend(Route::from_message(&route));
                    all_hops.extend(hops(&route));
                }
                Ok(_) => {}
                // The others must not be lost for it.
                Err(error) => tracing::warn!("route {destination}: {error}"),
            }
            Ok(())
        });
        match list {
            // No route was ever made: there is no table yet.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(List::default()),
            other => other,
        }
    }

    /// The routes of a table of our own.
    pub(super) fn of_table(&self, table: u8) -> io::Result<Vec<Route>> {
        let mut request = get(Ipv4Net::default(), 0, 0);
        if let Some(field) = request.get_mut(4) {
            *field = table;
        }
        let list = self.0.list(GET_ROUTE, &request, |routes: &mut Vec<Route>, message| {
            if let Some(RouteNetlinkMessage::NewRoute(route)) = read(message)? {
                routes.extend(Route::from_message(&route));
            }
            Ok(())
        });
        match list {
            // There is no such table yet.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
            other => other,
        }
    }

    /// The route to one address, if it is the main table's and leads to nothing else.
    pub(super) fn look_up(&self, destination: Ipv4Net) -> io::Result<Found> {
        /// `RTM_F_FIB_MATCH | RTM_F_LOOKUP_TABLE`: the entry itself, and where it stands.
        const ENTRY: u32 = 0x3000;
        const LOCAL: u32 = 255;
        let found = self.0.one(GET_ROUTE, &get(destination, 0, ENTRY), |message| {
            let Some(RouteNetlinkMessage::NewRoute(route)) = read(message)? else {
                return Ok(Found::Nothing);
            };
            Ok(match u32::from(route.header.table) {
                MAIN if route.header.destination_prefix_length == 32 => {
                    Route::from_message(&route).map_or(Found::Nothing, Found::Route)
                }
                MAIN | LOCAL => Found::Nothing,
                _ => Found::Hidden,
            })
        });
        match found {
            Ok(found) => Ok(found.unwrap_or(Found::Nothing)),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENETUNREACH) => Ok(Found::Nothing),
                // A route that rejects, of whatever length.
                Some(libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => Ok(Found::Hidden),
                _ => Err(error),
            },
        }
    }
}

/// Routes, and the devices of those that have several next hops.
pub(super) type List = (Vec<Route>, HashSet<u32>);

/// The devices of a route with several next hops.
pub(super) fn hops(message: &RouteMessage) -> impl Iterator<Item = u32> {
    let several = message.attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    several.flatten().map(|hop| hop.interface_index)
}

/// What a look-up says of a destination.
pub(super) enum Found {
    Route(Route),
    Nothing,
    /// There may be a route: another answers in its place.
    Hidden,
}

/// A `struct rtmsg` and, for a look-up, its destination.
fn get(destination: Ipv4Net, protocol: u8, flags: u32) -> Vec<u8> {
    const DESTINATION: u16 = 1;
    let is_list = flags == 0;
    let (length, table) = if is_list { (0, MAIN as u8) } else { (destination.prefix_len(), 0) };
    let mut request = vec![libc::AF_INET as u8, length, 0, 0, table, protocol, 0, 0];
    request.extend(flags.to_ne_bytes());
    if !is_list {
        request.extend(8u16.to_ne_bytes());
        request.extend(DESTINATION.to_ne_bytes());
        request.extend(destination.addr().octets());
    }
    request
}

/// A message in full; `None` for one that only says how a request went.
pub(super) fn read(message: Message<'_>) -> io::Result<Option<RouteNetlinkMessage>> {
    let read = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message.bytes).map_err(unreadable)?;
    Ok(match read.payload {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    })
}
