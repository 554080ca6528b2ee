//! Pure values of the configuration path.

mod bridge_name;
mod fan;
mod resolve;
mod resolve_error;

pub(crate) use bridge_name::fnv1a;
pub use bridge_name::{HELPER, bridge_name};
pub use fan::{Egress, Encapsulation, Fan, FanSpec, Origin, UnderlaySpec, Uplink};
pub use ipnet::Ipv4Net;
pub use resolve::{Host, ROUTE_PROTOCOL};
pub use resolve_error::ResolveError;
