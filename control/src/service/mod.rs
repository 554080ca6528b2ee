//! Services as values: what is asked for, and the ring that spreads flows over backends.

mod book;
mod model;
pub mod ring;
mod state;

pub use book::{Book, BookError, Change, Entry, Origin};
pub use model::{Algorithm, Backend, Forward, Protocol, Service, Vip, VipError};
pub use state::{BackendLife, BackendState, ServiceLife, ServiceState, against};
