//! The steps for inlets, the helper device's addresses, the table of small paths, and the program in front of
//! `uplink-ingress`.

use std::net::Ipv4Addr;

use control::{
    model::{HELPER, INLET_MACS, VETH_MTU},
    observed::{Address, Route},
    reconcile::PieceOp,
};
use dataplane_common::outcome::Hook;

use super::Work;
use crate::{
    kernel::{
        bpf::Datapath,
        netlink::{VethEnd, VethRequest},
    },
    node::fan::error::Fault,
};

impl Work<'_> {
    /// tc refuses the same: an uplink that does not run the program is told of, and no fan is less for it.
    pub(super) fn early(&mut self, datapath: &Datapath, op: &PieceOp) -> Result<(), Fault> {
        match op {
            PieceOp::KnowUplink(index, mac) => datapath.know_uplink(*index, *mac)?,
            PieceOp::AttachEarly { index, .. } if datapath.is_refused(*index) => {}
            PieceOp::AttachEarly { name, index, modes } => match datapath.attach_early(*index, name, modes) {
                Ok(attached) => self.did_attach(attached, Hook::UplinkXdp, name),
                Err(error) => tracing::info!("{error}; tunnel packets are refused by tc alone"),
            },
            PieceOp::DetachEarly { name, index } => {
                datapath.detach(Hook::UplinkXdp, *index)?;
                self.did(format!("{} taken off {name}", Hook::UplinkXdp.name()));
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn lone_address(&mut self, address: Ipv4Addr, prefix_len: u8) -> Result<(), Fault> {
        let index = self.netlink.link(HELPER[0]).await?.index;
        self.netlink.add_lone_address(Address { index, address, prefix_len }).await?;
        self.did(format!("address {address} added to {}", HELPER[0]));
        Ok(())
    }

    pub(super) async fn take_address(&mut self, address: Address) -> Result<(), Fault> {
        self.netlink.delete_address(address).await?;
        self.did(format!("address {} removed from {}", address.address, HELPER[0]));
        Ok(())
    }

    pub(super) async fn create_inlet(&mut self, names: &[String; 2]) -> Result<(), Fault> {
        let [near, far] = names;
        let end = |name, mac| VethEnd { name, mac, mtu: VETH_MTU };
        let request =
            VethRequest { end: end(near, INLET_MACS[0]), peer: end(far, INLET_MACS[1]), peer_netns: None };
        self.netlink.create_veth(request).await?;
        self.did(format!("{near} created"));
        Ok(())
    }

    pub(super) async fn join_inlet(&mut self, device: &str, bridge: &str) -> Result<(), Fault> {
        let (port, bridge_index) =
            (self.netlink.link(device).await?.index, self.netlink.link(bridge).await?.index);
        self.netlink.set_inlet_of(port, bridge_index).await?;
        self.did(format!("{device} made a port of {bridge}"));
        Ok(())
    }

    pub(super) async fn small_path(&mut self, route: &Route) -> Result<(), Fault> {
        let helper = self.netlink.link(HELPER[0]).await?.index;
        let route = Route { oif: (!route.rejects).then_some(helper), ..route.clone() };
        self.netlink.replace_small_path(&route).await?;
        self.did(format!("small paths of {} set", route.destination));
        Ok(())
    }

    pub(super) async fn rule(&mut self) -> Result<(), Fault> {
        self.netlink.add_own_rule(HELPER[0]).await?;
        self.did("policy rule set");
        Ok(())
    }
}
