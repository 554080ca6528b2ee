//! Endpoints: namespaces wired into fans by `endpoint add`, and the table that the programs deliver by.

mod record;

pub use record::{Record, TooLong, Wired};
