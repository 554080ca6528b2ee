//! The pieces of a fan, each made or repaired by one idempotent function.

mod bridge;
mod helper;
mod hooks;

pub(super) use helper::is_helper;

use std::path::Path;

use control::{
    model::{Fan, ROUTE_PROTOCOL},
    observed::{Link, Mark, ObservedHost, Route, Standing},
    reconcile::fan_record,
};
use dataplane_common::outcome::Hook;
use ipnet::Ipv4Net;

use super::{
    RUN,
    error::Fault,
    firewall, forward, forwarding,
    memory::{self, Memory},
};
use crate::{
    kernel::{
        bpf::{Attached, Datapath},
        dhcp,
        netlink::Netlink,
        sysctl::{Before, Key, Remembered, conf_entries},
    },
    node::table,
};

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
    pub(super) async fn bring_up(&mut self, fan: &Fan, flows: Option<u32>) -> Result<Vec<String>, Fault> {
        self.remember(fan).await?;
        self.owns_maps = matches!(Datapath::open_existing(), Ok(None));
        let datapath = Datapath::open_for(flows)?;
        self.owns_maps = true;
        self.ensure(&datapath, fan).await?;
        self.table()?;
        self.endpoints(&datapath).await?;
        self.clear_stale(&datapath).await?;
        forward::check(&memory::observe(self.netlink, &self.memory, &[]).await?)
    }

    /// Makes everything of a fan as it ought to be, but for the [table](Self::table), which it shares with all others.
    pub(super) async fn ensure(&mut self, datapath: &Datapath, fan: &Fan) -> Result<(), Fault> {
        self.remember(fan).await?;
        self.forwarding()?;
        let helper = self.helper().await?;
        if datapath.config().helper() != (helper.index, helper.mac) {
            datapath.config().set_helper(helper.index, helper.mac);
            self.did("helper device made known");
        }
        let bridge = self.bridge(fan).await?;
        let record = fan_record(fan, &bridge, &self.observed.routes, &self.observed.rules);
        if datapath.config().publish(&record)? {
            self.did("fan published");
        }
        self.hooks(datapath, fan, &bridge, &helper)?;
        self.route(fan, &helper).await?;
        self.dhcp(fan)
    }

    /// Makes the nftables table of all fans as it ought to be.
    pub(super) fn table(&mut self) -> Result<(), Fault> {
        if firewall::ensure(&self.standing_marks())? {
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

    /// Lets the stack forward. Along with the switch the kernel changes every interface's own, and whether
    /// redirects are believed.
    fn forwarding(&mut self) -> Result<(), Fault> {
        let key = forwarding::key();
        if key.read()? == "1" {
            return Ok(());
        }
        let users = forwarding::users(&self.observed.links)?;
        let before = || {
            let interfaces = conf_entries().filter(|name| name != "all");
            let forwarding = interfaces.map(|name| Key::conf(&name, "forwarding"));
            let along = std::iter::once(Key::conf("all", "accept_redirects")).chain(forwarding).collect();
            Before { along, users }
        };
        if self.sysctls.set(&key, "1", before)? {
            self.did("forwarding switched on");
        }
        Ok(())
    }

    /// Sets a setting of an interface that is our own: it goes with the interface.
    fn own_setting(&mut self, key: &Key, value: &str) -> Result<(), Fault> {
        match key.write(value) {
            Ok(Some(_)) => self.did(format!("{key} set to {value}")),
            Ok(None) => {}
            // A kernel without IPv6 has no settings of it.
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn route(&mut self, fan: &Fan, helper: &Link) -> Result<(), Fault> {
        let wanted = Route {
            destination: fan.spec.overlay,
            oif: Some(helper.index),
            protocol: ROUTE_PROTOCOL,
            prefsrc: Some(fan.gateway),
            mtu: Some(fan.mtu),
            ..Route::default()
        };
        // The kernel drops the route silently when its source address goes: ask anew.
        if !self.netlink.own_routes().await?.contains(&wanted) {
            self.netlink.replace_route(&wanted).await?;
            self.did(format!("route {} set", wanted.destination));
        }
        Ok(())
    }

    fn dhcp(&mut self, fan: &Fan) -> Result<(), Fault> {
        if fan.spec.dhcp && dhcp::ensure(&dhcp_server(fan))? {
            self.did("dnsmasq started");
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
                Hook::UplinkIngress => uplinks.contains(&attachment.ifindex),
                Hook::BridgeIngress => bridges.contains(&attachment.ifindex),
                Hook::EndpointIngress | Hook::HostEgress => true,
            };
            if !wanted {
                datapath.detach(attachment.hook, attachment.ifindex)?;
                self.did(format!("{} taken off interface {}", attachment.hook.name(), attachment.ifindex));
            }
        }
        Ok(())
    }

    fn attach(&mut self, datapath: &Datapath, hook: Hook, index: u32, name: &str) -> Result<(), Fault> {
        self.did_attach(datapath.attach(hook, index, name)?, hook, name);
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

/// Whether a fan's bridge is of our making, judging by its MAC address: for the moment between its creation and the
/// alias that says so.
fn made_by_us(bridge: &Link, standing: Option<&Standing>) -> bool {
    standing.is_some_and(|standing| {
        standing.adopted.is_none() && bridge.mac == bridge::mac(standing.mark.address)
    })
}
