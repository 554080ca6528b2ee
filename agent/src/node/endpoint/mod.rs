//! Endpoints: namespaces wired into fans by `endpoint add`, and the table that the programs deliver by.
//!
//! An endpoint's record is the alias of its host-side device: when the namespace dies, the kernel takes device, record
//! and routes along. What stays (table entries, routes by a bridge, pins) goes with the next command or by the agent.

mod add;
mod address;
mod dead;
mod error;
mod inside;
mod list;
mod remove;

use std::{net::Ipv4Addr, path::Path};

pub use add::{Added, Request, add};
pub use dead::forget_dead;
pub use error::Error;
pub use inside::follow_mtu;
pub use list::{Row, Source, list};
pub use remove::remove;

use crate::{kernel::lock::Lock, node::fan};

/// Longest name of an endpoint.
pub const MAX_NAME: usize = 63;

fn lock() -> Result<Lock, Error> {
    Ok(Lock::wait(Path::new(fan::LOCK), fan::PATIENCE)?)
}

/// Name of an endpoint's host-side device: the address tells which, and no other has it.
fn device_name(address: Ipv4Addr) -> String {
    format!("fl{:08x}", address.to_bits())
}
