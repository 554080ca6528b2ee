//! The pieces of a fan: looked at, planned ([`control::reconcile::pieces`]), made or repaired.

mod carry_out;
mod look;
mod programs;
mod ways;

use std::path::Path;

use control::{
    model::{Fan, HostFilters, PortRange, UplinkHook},
    observed::{Mark, ObservedHost},
    reconcile,
};
use dataplane_common::outcome::Hook;
use ipnet::Ipv4Net;

pub(super) use self::programs::Programs;
use super::{
    RUN,
    error::Fault,
    firewall, forward,
    memory::{self, Memory},
    uplinks,
};
use crate::{
    kernel::{
        bpf::{Attached, Datapath},
        dhcp,
        netlink::Netlink,
        sysctl::Remembered,
    },
    node::table,
};

/// What a datapath is to be like where the command or the agent says; `None`: as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// Flows that it holds where it is loaded anew; `None`: as the memory allows.
    pub(super) flows: Option<u32>,
    /// Ports that the programs and the host's own translation share out.
    pub(super) ports: Option<PortRange>,
    /// What is asked for at the uplinks.
    pub(super) uplink_hook: Option<UplinkHook>,
    /// What is to be done about others' packet filters.
    pub(super) host_filters: Option<HostFilters>,
}

/// One look at the host, and what was changed since.
pub(super) struct Work<'n> {
    pub(super) netlink: &'n Netlink,
    pub(super) observed: ObservedHost,
    pub(super) memory: Memory,
    pub(super) sysctls: Remembered,
    pub(super) changed: Vec<String>,
    /// What is left as it is, and why.
    pub(super) remarks: Vec<String>,
    /// The maps are ours to remove when the only fan is taken back: there were none, or they could be used.
    pub(super) owns_maps: bool,
}

impl<'n> Work<'n> {
    /// `sought` are overlays of fans that may not stand yet.
    pub(super) async fn begin(netlink: &'n Netlink, sought: &[Ipv4Net]) -> Result<Self, Fault> {
        let run = Path::new(RUN);
        let memory = Memory::load(&run.join("fans.json"))?;
        let observed = memory::observe(netlink, &memory, sought).await?;
        let sysctls = Remembered::load(&run.join("sysctls.json"))?;
        Ok(Self {
            netlink,
            observed,
            memory,
            sysctls,
            changed: Vec::new(),
            remarks: Vec::new(),
            owns_maps: false,
        })
    }

    /// Remembers a fan, loads the programs, and makes everything as it ought to be.
    pub(super) async fn bring_up(&mut self, fan: &Fan, wanted: Wanted) -> Result<Vec<String>, Fault> {
        let Wanted { flows, ports, uplink_hook, host_filters } = wanted;
        let mut programs = Programs::find(flows, uplink_hook)?;
        self.owns_maps = programs.get().is_ok();
        self.ensure(&mut programs, fan).await?;
        let datapath = programs.get()?;
        if let Some(PortRange(first, last)) = ports {
            datapath.config().set_nat_ports([first, last]);
        }
        if let Some(wanted) = host_filters {
            datapath.config().set_host_filters(wanted);
        }
        self.table(datapath)?;
        self.endpoints(datapath).await?;
        self.clear_stale(datapath).await?;
        let observed = memory::observe(self.netlink, &self.memory, &[]).await?;
        let findings = forward::check(&observed)?;
        forward::hold(&findings, datapath);
        let mut warnings = forward::reasons(&findings, Some(datapath));
        let uplinks: Vec<u32> = fan.uplinks().map(|uplink| uplink.index).collect();
        warnings.extend(uplinks::hindered(datapath, &observed.links, &uplinks)?);
        Ok(warnings)
    }

    /// Makes everything of a fan as it ought to be, but for the [table](Self::table), which it shares with all others.
    /// Where it is, nothing is done.
    pub(super) async fn ensure(&mut self, programs: &mut Programs<'_>, fan: &Fan) -> Result<(), Fault> {
        let held = self.look(programs, fan).await?;
        let plan = reconcile::pieces(fan, &self.observed, &held)?;
        tracing::debug!(overlay = %fan.spec.overlay, ops = ?plan.ops, "plan of a fan");
        self.carry_out(programs, fan, &plan).await
    }

    /// Makes the nftables table of all fans as it ought to be.
    pub(super) fn table(&mut self, datapath: &Datapath) -> Result<(), Fault> {
        if firewall::ensure(&self.standing_marks(), datapath.config().nat_ports())? {
            self.did("nftables table written");
        }
        Ok(())
    }

    /// Brings endpoints back that lost their bridge, route or program: the agent does so in its own time.
    async fn endpoints(&mut self, datapath: &Datapath) -> Result<(), Fault> {
        for name in table::prune(self.netlink, datapath).await.map_err(Fault::Endpoints)? {
            self.did(format!("endpoint {name} put back into its bridge"));
        }
        Ok(())
    }

    /// Notes a change.
    pub(super) fn did(&mut self, what: impl Into<String>) {
        self.changed.push(what.into());
    }

    /// The fans that the firewall serves: all that stand and are not stale.
    pub(super) fn standing_marks(&self) -> Vec<&Mark> {
        self.observed.current().collect()
    }

    /// Attaches to every port of a fan's bridge and every routed endpoint, and to nothing else.
    pub(super) fn ports(&mut self, datapath: &Datapath) -> Result<(), Fault> {
        let fans = datapath.config().fans();
        for op in reconcile::ports(&fans, &self.observed.links, &table::attached(datapath)?) {
            self.port(datapath, &op)?;
        }
        Ok(())
    }

    /// Takes programs off uplinks and bridges that none of these fans use.
    pub(super) fn sweep(&mut self, datapath: &Datapath, fans: &[Fan]) -> Result<(), Fault> {
        let bridges = self.observed.standing.iter().filter(|standing| !standing.mark.stale);
        let bridges: Vec<u32> =
            bridges.filter_map(|standing| Some(standing.bridge.as_ref()?.index)).collect();
        let uplinks: Vec<u32> = fans.iter().flat_map(Fan::uplinks).map(|uplink| uplink.index).collect();
        for attachment in datapath.attachments()? {
            let wanted = match attachment.hook {
                Hook::UplinkIngress | Hook::UplinkXdp => uplinks.contains(&attachment.ifindex),
                Hook::BridgeIngress | Hook::EndpointEgress => bridges.contains(&attachment.ifindex),
                Hook::EndpointIngress | Hook::HostEgress => true,
            };
            if !wanted {
                datapath.detach(attachment.hook, attachment.ifindex)?;
                self.did(format!("{} taken off interface {}", attachment.hook.name(), attachment.ifindex));
            }
        }
        Ok(())
    }

    fn did_attach(&mut self, attached: Attached, hook: Hook, name: &str) {
        match attached {
            Attached::Unchanged => {}
            Attached::New => self.did(format!("{} attached to {name}", hook.name())),
            Attached::Replaced => self.did(format!("{} replaced on {name}", hook.name())),
        }
    }
}

/// What DHCP hands out: from the first address that is not reserved to the last.
fn dhcp_server(fan: &Fan) -> dhcp::Server<'_> {
    let base = fan.slice.network().to_bits();
    dhcp::Server {
        bridge: &fan.bridge,
        first: (base + fan.spec.host_reserve.max(1) + 1).into(),
        last: (fan.slice.broadcast().to_bits() - 1).into(),
        mask: fan.slice.netmask(),
        gateway: fan.gateway,
        mtu: fan.mtu,
        resolvers: &fan.spec.dns,
    }
}
