//! The helper device's ways into a fan beside its route: the gateways' addresses, and the table that has packets cut small.

use dataplane_common::abi::MIN_PATH_MTU;

use super::{PieceOp, Pieces};
use crate::{
    model::{Fan, ROUTE_PROTOCOL},
    observed::{Address, Mark, ObservedHost, Route},
};

/// The helper device has the gateways' addresses and no other: a source that the kernel chooses by device, as masquerading
/// does, is one that has a way back then. Their length is the overlay's, by which the kernel knows which to choose.
pub(super) fn addresses(fan: &Fan, helper: Option<u32>, observed: &ObservedHost) -> Vec<PieceOp> {
    let index = helper.unwrap_or_default();
    let of = |address, prefix_len| Address { index, address, prefix_len };
    let others = observed.current().filter(|mark| mark.overlay() != fan.spec.overlay);
    let others = others.map(|mark: &Mark| of(mark.gateway(), mark.overlay().prefix_len()));
    let wanted: Vec<Address> = others.chain([of(fan.gateway, fan.spec.overlay.prefix_len())]).collect();
    let is_there = |address: &&Address| helper.is_some() && address.index == index;
    let present: Vec<Address> = observed.addresses.iter().filter(is_there).copied().collect();
    let over = present.iter().filter(|address| !wanted.contains(address));
    let missing = wanted.iter().filter(|address| !present.contains(address));
    over.map(|&address| PieceOp::TakeAddress(address))
        .chain(missing.map(|missing| PieceOp::LoneAddress(missing.address, missing.prefix_len)))
        .collect()
}

/// The programs give packets that are too large for a path they learnt back to the stack by the helper device; without an
/// agent nobody makes a route for that path. This host's slice is looked up in the main table as ever.
pub(super) fn small_paths(
    fan: &Fan,
    helper: Option<u32>,
    observed: &ObservedHost,
    held: &Pieces,
) -> Vec<PieceOp> {
    let route = Route { protocol: ROUTE_PROTOCOL, ..Route::default() };
    let wanted = [
        Route { destination: fan.slice, rejects: true, ..route.clone() },
        Route {
            destination: fan.spec.overlay,
            oif: helper,
            mtu: Some(MIN_PATH_MTU - fan.spec.encapsulation.overhead()),
            ..route
        },
    ];
    let is_missing = |route: &Route| helper.is_none() || !held.small_paths.contains(route);
    let routes = wanted.into_iter().filter(is_missing).map(PieceOp::SmallPath);
    let rule = (!observed.rules.iter().any(|rule| rule.is_ours())).then_some(PieceOp::Rule);
    routes.chain(rule).collect()
}
