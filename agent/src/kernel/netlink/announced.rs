//! Routes in tables of their own, for a BIRD or FRR beside us: they lead nowhere, and no rule of ours has packets look there.

use std::{collections::BTreeSet, net::IpAddr};

use control::{announce::TableRoute, model::ROUTE_PROTOCOL};
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rtnetlink::RouteMessageBuilder;

use super::{Netlink, Result, refused};

/// `RT_TABLE_COMPAT`: the number does not fit into the header.
const MAIN: u32 = 254;

impl Netlink {
    /// Our routes in other tables than the main one.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn announced_routes(&self) -> Result<BTreeSet<TableRoute>> {
        let mut found = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
            let what = || "list of announced routes".to_owned();
            let dump = self.handle.route().get(message).execute();
            let routes: Vec<RouteMessage> = dump.try_collect().await.map_err(refused(what()))?;
            found.extend(routes.iter().filter_map(read));
        }
        Ok(found)
    }

    /// Adds one.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn announce_route(&self, route: &TableRoute) -> Result<()> {
        let request = self.handle.route().add(message_of(route)).replace();
        request.execute().await.map_err(refused(format!("route {} of table {}", route.prefix, route.table)))
    }

    /// Deletes one; one that is not there is fine.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn withdraw_route(&self, route: &TableRoute) -> Result<()> {
        let what = format!("deletion of route {} of table {}", route.prefix, route.table);
        match self.handle.route().del(message_of(route)).execute().await.map_err(refused(what)) {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }
}

fn message_of(route: &TableRoute) -> RouteMessage {
    let (address, length) = (route.prefix.addr(), route.prefix.prefix_len());
    let mut message = match address {
        IpAddr::V4(address) => {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(address, length).build()
        }
        IpAddr::V6(address) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(address, length).build()
        }
    };
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    message.header.kind = RouteType::BlackHole;
    message.header.scope = RouteScope::Universe;
    message.header.table = u8::try_from(route.table).unwrap_or(0);
    message.attributes.push(RouteAttribute::Table(route.table));
    message.attributes.push(RouteAttribute::Priority(route.metric));
    message
}

/// One of ours that leads nowhere; the others are not announced.
fn read(message: &RouteMessage) -> Option<TableRoute> {
    let header = &message.header;
    if header.protocol != RouteProtocol::from(ROUTE_PROTOCOL) || header.kind != RouteType::BlackHole {
        return None;
    }
    let (mut table, mut metric, mut address) = (u32::from(header.table), 0, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(own) => table = *own,
            RouteAttribute::Priority(own) => metric = *own,
            RouteAttribute::Destination(RouteAddress::Inet(own)) => address = Some(IpAddr::V4(*own)),
            RouteAttribute::Destination(RouteAddress::Inet6(own)) => address = Some(IpAddr::V6(*own)),
            _ => {}
        }
    }
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        _ => IpAddr::from([0; 16]),
    };
    let prefix = IpNet::new(address.unwrap_or(any), header.destination_prefix_length).ok()?;
    (table != MAIN).then_some(TableRoute { table, prefix, metric })
}
