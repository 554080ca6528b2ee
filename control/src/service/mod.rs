//! Services as values: what is asked for, and the ring that spreads flows over backends.

mod model;
pub mod ring;
mod state;

pub use model::{
    Algorithm, Backend, Declared, Definition, Forward, Protocol, Service, Vip, VipError, VipSpec,
};
pub use state::{BackendLife, BackendState, Down, Outage, ServiceLife, ServiceState, against};
