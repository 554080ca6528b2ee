//! What there is of a fan's pieces.

use std::collections::BTreeMap;

use control::{
    model::Fan,
    reconcile::{self, Pieces},
};

use super::{Programs, Work, dhcp_server};
use crate::{
    kernel::{dhcp, sysctl::Key},
    node::fan::{error::Fault, forward},
};

impl Work<'_> {
    /// Looks at what [`ObservedHost`](control::observed::ObservedHost) does not hold.
    pub(super) async fn look(&self, programs: &Programs<'_>, fan: &Fan) -> Result<Pieces, Fault> {
        Ok(Pieces {
            entries: self.memory.entries().to_vec(),
            settings: settings(fan)?,
            programs: programs.look()?,
            uplink_hook: programs.asked(),
            routes: self.netlink.own_routes().await?,
            small_paths: self.netlink.small_paths().await?,
            bars_inlet: self.bars_inlet(programs, fan)?,
            serves_dhcp: fan.spec.dhcp && dhcp::serves(&dhcp_server(fan)),
        })
    }
}

impl Work<'_> {
    /// Whether others' packet filters would drop what comes into the bridge by its inlet: where the kernel shows them what is
    /// bridged. Reading them takes a while beside many rules: a command does so, the agent goes by what it finds.
    fn bars_inlet(&self, programs: &Programs<'_>, fan: &Fan) -> Result<bool, Fault> {
        if programs.are_given() {
            let fans = programs.get()?.config().fans();
            let published = fans.iter().find(|record| record.gateway == fan.gateway.to_bits());
            return Ok(published.is_some_and(|record| record.inlet == 0));
        }
        let shown = Key::new("net/bridge/bridge-nf-call-iptables").read().is_ok_and(|value| value == "1");
        Ok(shown && forward::bars_bridged(fan)?)
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
