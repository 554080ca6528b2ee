//! A policy rule and a table of our own: what comes out of the helper device is cut small.

use std::{io, net::Ipv4Addr};

use control::{
    model::{ROUTE_PROTOCOL, SMALL_PATHS},
    observed::Route,
};
use ipnet::Ipv4Net;
use netlink_packet_route::{
    route::{RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute},
};
use rtnetlink::{RouteMessageBuilder, RuleAddRequest};

use super::{Netlink, Result, refused, refused_io, route_queries::RouteQueries};

impl Netlink {
    /// Adds the rule: what comes out of `device` is routed by our table first.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn add_own_rule(&self, device: &str) -> Result<()> {
        match self.own_rule(device).execute().await.map_err(refused("policy rule of our own")) {
            Err(error) if error.already_exists() => Ok(()),
            other => other,
        }
    }

    /// Deletes the rule; none there is fine.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn delete_own_rule(&self, device: &str) -> Result<()> {
        let message = self.own_rule(device).message_mut().clone();
        let request = self.handle.rule().del(message).execute().await;
        match request.map_err(refused("deletion of the policy rule of our own")) {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }

    fn own_rule(&self, device: &str) -> RuleAddRequest<Ipv4Addr> {
        let request = self.handle.rule().add().v4().input_interface(device);
        let mut request = request.table_id(SMALL_PATHS).priority(SMALL_PATHS).action(RuleAction::ToTable);
        let protocol = RouteProtocol::from(ROUTE_PROTOCOL);
        request.message_mut().attributes.push(RuleAttribute::Protocol(protocol));
        request
    }

    /// The routes of our table.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn small_paths(&self) -> Result<Vec<Route>> {
        let asked = tokio::task::spawn_blocking(|| RouteQueries::open()?.of_table(SMALL_PATHS as u8));
        asked
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(refused_io("list of small paths"))
    }

    /// Adds a route to our table, or changes the one of the same destination.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn replace_small_path(&self, route: &Route) -> Result<()> {
        let kind = if route.rejects { RouteType::Throw } else { RouteType::Unicast };
        let mut message = of_our_table(route.destination, kind);
        if let Some(helper) = route.oif {
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::Oif(helper));
        }
        message.attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
        let request = self.handle.route().add(message).replace();
        request.execute().await.map_err(refused(format!("small paths of {}", route.destination)))
    }

    /// Takes an overlay out of our table; nothing there is fine.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn delete_small_paths(&self, overlay: Ipv4Net, slice: Ipv4Net) -> Result<()> {
        for (network, kind) in [(slice, RouteType::Throw), (overlay, RouteType::Unicast)] {
            let mut message = of_our_table(network, kind);
            // "Nowhere" matches every scope.
            message.header.scope = RouteScope::NoWhere;
            let request = self.handle.route().del(message).execute().await;
            match request.map_err(refused(format!("deletion of the route of small packets to {network}"))) {
                Err(error) if error.is_missing() => {}
                other => other?,
            }
        }
        Ok(())
    }
}

fn of_our_table(network: Ipv4Net, kind: RouteType) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(network.addr(), network.prefix_len())
        .table_id(SMALL_PATHS)
        .protocol(RouteProtocol::from(ROUTE_PROTOCOL))
        .kind(kind)
        .build()
}
