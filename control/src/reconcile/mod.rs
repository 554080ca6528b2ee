//! Desired and observed state in, ordered operations out. Nothing here does I/O or reads a clock: what the kernel
//! holds and the time come in as values, so that every rule is a test without a kernel.
//!
//! Applying the operations and planning again yields none (property-tested): a plan is never flushed and rebuilt.

mod beyond;
mod early;
mod endpoints;
mod fan_record;
mod fans;
mod mtus;
mod paths;
mod pieces;
mod ports;
mod resolve;
mod resolve_error;
mod routes;
mod services;
mod vips;

use std::net::Ipv4Addr;

pub use beyond::Surroundings;
use dataplane_common::abi::FanRecord;
pub use early::{Modes, WithoutXdp, early};
pub use endpoints::{
    EndpointOp, Findings, Inquiry, Learning, ObservedEndpoints, Question, devices, plan as endpoints,
    suspects,
};
pub use fan_record::fan_record;
pub use fans::{FanOp, plan as fans};
pub use mtus::{mtu_of, outdated, small};
pub use paths::{PathPlan, plan as paths};
pub use pieces::{
    LinkChange, PieceError, PieceOp, PiecePlan, Pieces, Programs, Setting, is_helper, plan as pieces,
    settings,
};
pub use ports::{PortOp, plan as ports, strays};
pub use resolve::Host;
pub use resolve_error::ResolveError;
pub use routes::{RouteOp, plan as routes};
pub use services::{ServiceOp, plan as services, plan_some as some_services};
pub use vips::{VipPlan, Vips, plan as vips};

/// Whether an address is one that an endpoint of this fan can have: in the slice, and neither its network address,
/// nor the gateway, nor its broadcast address.
pub fn endpoint_address(fan: &FanRecord, address: Ipv4Addr) -> bool {
    let address = address.to_bits();
    let in_slice = fan.in_use() && address & fan.slice_mask == fan.slice;
    in_slice && address != fan.slice && address != fan.gateway && address != fan.slice | !fan.slice_mask
}

/// The fan of which an endpoint can have an address.
pub fn fan_of_endpoint(fans: &[FanRecord], address: Ipv4Addr) -> Option<&FanRecord> {
    fans.iter().find(|fan| endpoint_address(fan, address))
}

#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
