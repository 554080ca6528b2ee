//! Taking fans down: everything in reverse, all failures collected.

use std::net::Ipv4Addr;

use control::{
    model::{Fan, HELPER, inlet_names},
    observed::{Adopted, Link, Mark, Standing},
    reconcile::{Host, is_helper},
};
use dataplane_common::outcome::Hook;

use super::{error::Fault, firewall, forward, forwarding, pieces::Work};
use crate::kernel::{bpf::Datapath, dhcp};

impl Work<'_> {
    /// Takes back a fan that came up in part. What can't be taken back is left for the next `down`.
    pub(super) async fn take_back(&mut self, uplinks: &[String], fan: &Fan) {
        let victims: Vec<Standing> = self.observed.fan(fan.spec.overlay).cloned().into_iter().collect();
        // Nothing was made of a fan that could not even be remembered.
        if victims.is_empty() {
            return;
        }
        let datapath = if self.owns_maps { Datapath::open_existing().unwrap_or_default() } else { None };
        for fault in self.take_down(uplinks, &victims, datapath).await {
            tracing::warn!("fan {}: not taken back: {fault}", fan.spec.overlay);
        }
    }

    /// Takes fans down. Every step is tried; a fan is forgotten only when all went well.
    pub(super) async fn take_down(
        &mut self,
        uplinks: &[String],
        victims: &[Standing],
        datapath: Option<Datapath>,
    ) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.observed.standing.retain(|standing| !victims.contains(standing));
        let last = self.observed.standing.is_empty();
        for victim in victims {
            note(&mut faults, dhcp::stop(&victim.mark.bridge()).map_err(Fault::from));
            note(&mut faults, self.routes_away(victim).await);
        }
        note(
            &mut faults,
            if last {
                firewall::remove()
            } else {
                let ports = datapath.as_ref().map(|datapath| datapath.config().nat_ports());
                firewall::ensure(&self.standing_marks(), ports.unwrap_or_default()).map(drop)
            },
        );
        if let Some(datapath) = datapath {
            note(&mut faults, self.datapath_away(uplinks, victims, datapath, last));
        }
        for victim in victims {
            note(&mut faults, self.bridge_away(victim).await);
        }
        if last {
            note(&mut faults, forward::undo());
            note(&mut faults, self.netlink.delete_own_rule(HELPER[0]).await.map_err(Fault::from));
            note(&mut faults, self.helper_away().await);
            note(&mut faults, self.settings_back().await);
        } else {
            note(&mut faults, self.addresses_away().await);
            // The accept rules of the others alone.
            note(&mut faults, forward::check(&self.observed).map(drop));
        }
        if faults.is_empty() {
            for victim in victims {
                note(&mut faults, self.memory.remove(&victim.mark.bridge()));
            }
        }
        faults
    }

    /// Takes away what is left of fans under former addresses, as soon as nobody uses it.
    pub(super) async fn clear_stale(&mut self, datapath: &Datapath) -> Result<(), Fault> {
        let is_unused =
            |standing: &&Standing| standing.mark.stale && self.observed.users(standing).is_empty();
        let unused: Vec<Standing> = self.observed.standing.iter().filter(is_unused).cloned().collect();
        for former in unused {
            self.observed.standing.retain(|standing| *standing != former);
            self.leave(&former, datapath)?;
            self.bridge_away(&former).await?;
            self.memory.remove(&former.mark.bridge())?;
            self.did(format!("stale bridge {} removed", former.mark.bridge()));
        }
        Ok(())
    }

    /// The overlay's route, and those of remote hosts with a smaller path.
    async fn routes_away(&self, victim: &Standing) -> Result<(), Fault> {
        let helper = self.netlink.link_by_name(HELPER[0]).await?.map(|link| link.index);
        let overlay = victim.mark.overlay();
        for route in self.netlink.own_routes().await? {
            if route.oif == helper && overlay.contains(&route.destination) {
                self.netlink.delete_route(&route).await?;
            }
        }
        Ok(self.netlink.delete_small_paths(overlay, victim.mark.slice()).await?)
    }

    /// The gateways' addresses of fans that stand no more, from the helper device.
    async fn addresses_away(&mut self) -> Result<(), Fault> {
        match self.netlink.link_by_name(HELPER[0]).await? {
            Some(helper) => {
                let gateways: Vec<Ipv4Addr> = self.standing_marks().into_iter().map(Mark::gateway).collect();
                for address in self.netlink.addresses().await? {
                    if address.index == helper.index && !gateways.contains(&address.address) {
                        self.netlink.delete_address(address).await?;
                    }
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The inlet of a bridge; none there is fine.
    async fn inlet_away(&self, bridge: &str) -> Result<(), Fault> {
        let [near, _] = inlet_names(bridge);
        match self.netlink.link_by_name(&near).await? {
            Some(link) if link.kind.as_deref() == Some("veth") => {
                Ok(self.netlink.delete_link(link.index).await?)
            }
            _ => Ok(()),
        }
    }

    fn datapath_away(
        &mut self,
        uplinks: &[String],
        victims: &[Standing],
        datapath: Datapath,
        last: bool,
    ) -> Result<(), Fault> {
        if last {
            return Ok(datapath.remove()?);
        }
        for victim in victims {
            if !victim.mark.stale {
                datapath.config().withdraw(victim.mark.overlay());
            }
            self.leave(victim, &datapath)?;
        }
        self.ports(&datapath)?;
        let host = Host::of(&self.observed, uplinks);
        let others = self.standing_marks().into_iter().map(|mark| host.resolve(&mark.spec, mark.origin));
        // A fan whose uplink is not known now keeps its programs.
        match others.collect::<Result<Vec<_>, _>>() {
            Ok(fans) => self.sweep(&datapath, &fans),
            Err(_unknown_uplink) => Ok(()),
        }
    }

    /// Takes a fan's endpoints out of their table, and the program off its bridge.
    fn leave(&self, victim: &Standing, datapath: &Datapath) -> Result<(), Fault> {
        for (address, _) in datapath.endpoints().list()? {
            if victim.mark.slice().contains(&address) {
                datapath.endpoints().remove(address)?;
            }
        }
        if let Some(bridge) = &victim.bridge {
            datapath.detach(Hook::BridgeIngress, bridge.index)?;
            datapath.detach(Hook::EndpointEgress, bridge.index)?;
        }
        Ok(())
    }

    /// A bridge of our own goes; an adopted one loses only what we added.
    async fn bridge_away(&mut self, victim: &Standing) -> Result<(), Fault> {
        let name = victim.mark.bridge();
        self.inlet_away(&name).await?;
        let Some(bridge) = self.netlink.link_by_name(&name).await? else { return Ok(()) };
        match victim.adopted {
            None => Ok(self.netlink.delete_link(bridge.index).await?),
            Some(adopted) => self.give_back(victim, &bridge, adopted).await,
        }
    }

    async fn give_back(&mut self, victim: &Standing, bridge: &Link, adopted: Adopted) -> Result<(), Fault> {
        let overlay = victim.mark.overlay();
        for address in self.netlink.addresses().await? {
            if address.index == bridge.index && overlay.contains(&address.address) && !adopted.had_address {
                self.netlink.delete_address(address).await?;
            }
        }
        if let Some(mtu) = adopted.mtu {
            self.netlink.set_mtu(bridge.index, mtu).await?;
        }
        Ok(self.sysctls.restore(|key| key.is_of(&bridge.name))?)
    }

    /// Puts every setting back, except forwarding where others have come that need it.
    async fn settings_back(&mut self) -> Result<(), Fault> {
        let key = forwarding::key();
        if let Some(before) = self.sysctls.users(&key) {
            let users = forwarding::users(&self.netlink.links().await?)?;
            let new: Vec<&str> = users.difference(before).map(String::as_str).collect();
            if !new.is_empty() {
                self.remarks
                    .push(format!("{key} stays 1, because these may need it by now: {}", new.join(", ")));
                self.sysctls.forget(&key)?;
            }
        }
        Ok(self.sysctls.restore(|_| true)?)
    }

    async fn helper_away(&self) -> Result<(), Fault> {
        let far = self.netlink.link_by_name(HELPER[1]).await?;
        match self.netlink.link_by_name(HELPER[0]).await? {
            Some(link) if is_helper(&link, far.as_ref()) => Ok(self.netlink.delete_link(link.index).await?),
            _ => Ok(()),
        }
    }
}

fn note(faults: &mut Vec<Fault>, outcome: Result<(), Fault>) {
    faults.extend(outcome.err());
}
