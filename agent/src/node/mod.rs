//! The node: fans, endpoints, routes and flows, observed and changed.

pub mod endpoint;
pub mod fan;
pub(crate) mod flows;
pub(crate) mod routes;
pub mod table;
pub(crate) mod taken;
pub(crate) mod writer;
