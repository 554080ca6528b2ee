//! Programs on uplinks, bridge, ports and helper device.

use control::{
    model::Fan,
    observed::Link,
    reconcile::{self, PortOp},
};
use dataplane_common::outcome::Hook;

use super::Work;
use crate::{
    kernel::bpf::Datapath,
    node::{fan::error::Fault, table},
};

impl Work<'_> {
    /// Attaches what a fan needs. Ports that join later are served by the bridge's program until somebody attaches
    /// theirs.
    pub(super) fn hooks(
        &mut self,
        datapath: &Datapath,
        fan: &Fan,
        bridge: &Link,
        helper: &Link,
    ) -> Result<(), Fault> {
        for uplink in fan.uplinks() {
            self.attach(datapath, Hook::UplinkIngress, uplink.index, &uplink.name)?;
        }
        self.attach(datapath, Hook::BridgeIngress, bridge.index, &bridge.name)?;
        self.attach(datapath, Hook::HostEgress, helper.index, &helper.name)?;
        self.ports(datapath)
    }

    /// Attaches to every port of a fan's bridge and every routed endpoint, and to nothing else.
    pub(in crate::node::fan) fn ports(&mut self, datapath: &Datapath) -> Result<(), Fault> {
        for op in
            reconcile::ports(&datapath.config().fans(), &self.observed.links, &table::attached(datapath)?)
        {
            if let (Some(attached), PortOp::Attach { name, .. }) = (table::change_port(datapath, &op)?, &op) {
                self.did_attach(attached, Hook::EndpointIngress, name);
            }
        }
        Ok(())
    }
}
