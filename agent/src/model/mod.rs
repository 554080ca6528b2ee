//! Pure values of the configuration path.

mod fan;

pub use fan::{Egress, Encapsulation, Fan, FanSpec, Origin, UnderlaySpec, Uplink};
pub use ipnet::Ipv4Net;
