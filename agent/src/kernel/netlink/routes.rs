//! IPv4 routes of the main table, and policy rules.

use std::{
    collections::BTreeSet,
    io,
    net::Ipv4Addr,
    sync::{Arc, PoisonError},
};

use control::observed::{Route, Rule};
use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
};
use rtnetlink::{IpVersion, RouteMessageBuilder};

use super::{Error, Netlink, Result, refused, refused_io, route_table::RouteTable, values::FromMessage as _};

impl Netlink {
    /// Our IPv4 routes of the main table.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn own_routes(&self) -> Result<Vec<Route>> {
        self.with_table(RouteTable::own).await
    }

    /// The IPv4 routes of the main table that are ours, default routes, or overlap these networks.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn routes_near(&self, networks: Vec<Ipv4Net>) -> Result<Vec<Route>> {
        self.with_table(move |table| table.near(&networks)).await
    }

    /// The IPv4 routes of the main table that are ours, and those to exactly these destinations, which alone are followed
    /// from now on.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn routes_to(&self, destinations: BTreeSet<Ipv4Net>) -> Result<Vec<Route>> {
        self.with_table(move |table| table.only_to(&destinations)).await
    }

    /// The IPv4 routes of the main table to exactly these destinations, which are followed from now on as well.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn routes_of(&self, destinations: BTreeSet<Ipv4Net>) -> Result<Vec<Route>> {
        self.with_table(move |table| table.also_to(&destinations)).await
    }

    /// Reading all routes of a router takes seconds: another thread does so.
    async fn with_table<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut RouteTable) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let table = Arc::clone(&self.routes);
        let asked = tokio::task::spawn_blocking(move || {
            ask(&mut table.lock().unwrap_or_else(PoisonError::into_inner))
        });
        asked.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(refused_io("list of routes"))
    }

    /// The route that a packet to `destination` would take now, policy rules included.
    ///
    /// # Errors
    /// There is none, or the kernel refuses the request.
    pub async fn route_to(&self, destination: Ipv4Addr) -> Result<Route> {
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(destination, 32).build();
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.header.protocol = RouteProtocol::Unspec;
        message.header.kind = netlink_packet_route::route::RouteType::Unspec;
        let what = || format!("route to {destination}");
        let mut answers = std::pin::pin!(self.handle.route().get(message).execute());
        let answer = answers.try_next().await.map_err(refused(what()))?;
        answer
            .and_then(|mut answer| {
                // The answer of a look-up is marked as cloned, and as local where it leads to this host.
                answer.header.flags = netlink_packet_route::route::RouteFlags::empty();
                answer.header.kind = netlink_packet_route::route::RouteType::Unicast;
                Route::from_message(&answer)
            })
            .ok_or_else(|| Error::Refused {
                what: what(),
                source: io::Error::from_raw_os_error(libc::ENETUNREACH),
            })
    }

    /// Adds a route to the main table, or changes the one of the same destination and metric.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn replace_route(&self, route: &Route) -> Result<()> {
        let request = self.handle.route().add(message_of(route)).replace();
        request.execute().await.map_err(refused(format!("route {}", route.destination)))
    }

    /// Deletes a route of the main table (destination, metric, protocol and interface must agree where given);
    /// one that is not there is fine.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn delete_route(&self, route: &Route) -> Result<()> {
        let mut message = message_of(route);
        // "Nowhere" matches every scope.
        message.header.scope = RouteScope::NoWhere;
        message.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Metrics(_)));
        let request = self.handle.route().del(message).execute().await;
        match request.map_err(refused(format!("deletion of route {}", route.destination))) {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }

    /// The IPv4 policy rules.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn rules(&self) -> Result<Vec<Rule>> {
        let dump = self.handle.rule().get(IpVersion::V4).execute();
        self.collect("policy rules", dump, Rule::from_message).await
    }
}

fn message_of(route: &Route) -> RouteMessage {
    let scope = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.destination.addr(), route.destination.prefix_len())
        .protocol(RouteProtocol::from(route.protocol))
        .scope(scope);
    if let Some(gateway) = route.gateway {
        builder = builder.gateway(gateway);
    }
    if let Some(oif) = route.oif {
        builder = builder.output_interface(oif);
    }
    if let Some(source) = route.prefsrc {
        builder = builder.pref_source(source);
    }
    if route.metric != 0 {
        builder = builder.priority(route.metric);
    }
    if route.onlink {
        builder = builder.onlink();
    }
    let mut message = builder.build();
    if let Some(mtu) = route.mtu {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    message
}
