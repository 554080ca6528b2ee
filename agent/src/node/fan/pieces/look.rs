//! What there is of a fan's pieces.

use std::collections::BTreeMap;

use control::{
    model::Fan,
    reconcile::{self, Pieces},
};

use super::{Programs, Work, dhcp_server};
use crate::{
    kernel::{dhcp, sysctl::Key},
    node::fan::error::Fault,
};

impl Work<'_> {
    /// Looks at what [`ObservedHost`](control::observed::ObservedHost) does not hold.
    pub(super) async fn look(&self, programs: &Programs<'_>, fan: &Fan) -> Result<Pieces, Fault> {
        Ok(Pieces {
            entries: self.memory.entries().to_vec(),
            settings: settings(fan)?,
            programs: programs.look()?,
            routes: self.netlink.own_routes().await?,
            serves_dhcp: fan.spec.dhcp && dhcp::serves(&dhcp_server(fan)),
        })
    }
}

/// A kernel without IPv6 has no settings of it, and a device that is not there yet has none.
fn settings(fan: &Fan) -> Result<BTreeMap<String, String>, Fault> {
    let mut values = BTreeMap::new();
    for setting in reconcile::settings(fan) {
        match Key::new(&setting.path).read() {
            Ok(value) => drop(values.insert(setting.path, value)),
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(values)
}
