//! A plan carried out, step by step.

use std::net::Ipv4Addr;

use control::{
    model::{Fan, HELPER, HELPER_MACS, VETH_MTU, inlet_names},
    observed::{Address, Entry, Route, Standing},
    reconcile::{LinkChange, PieceOp, PiecePlan, PortOp, Setting},
};
use dataplane_common::{abi::FanRecord, outcome::Hook};

use super::{Programs, Work, dhcp_server};
use crate::{
    kernel::{
        bpf::Datapath,
        dhcp,
        netlink::{BridgeRequest, VethEnd, VethRequest},
        sysctl::{Before, Key, conf_entries},
    },
    node::{
        fan::{error::Fault, forwarding, memory},
        table,
    },
};

impl Work<'_> {
    /// Does all of a plan, or what comes before the first failure.
    pub(super) async fn carry_out(
        &mut self,
        programs: &mut Programs<'_>,
        fan: &Fan,
        plan: &PiecePlan,
    ) -> Result<(), Fault> {
        if !plan.ops.iter().any(|op| matches!(op, PieceOp::Remember(_))) {
            self.stands(plan.entry.clone());
        }
        for op in &plan.ops {
            self.step(programs, fan, op).await?;
        }
        if !plan.ops.is_empty() {
            // What comes next is planned by what there is now.
            self.observed = memory::observe(self.netlink, &self.memory, &[]).await?;
        }
        Ok(())
    }

    async fn step(&mut self, programs: &mut Programs<'_>, fan: &Fan, op: &PieceOp) -> Result<(), Fault> {
        match op {
            PieceOp::Retire(former) => self.retire(former).await,
            PieceOp::Remember(entry) => self.remember(entry.clone()),
            PieceOp::Load => self.load(programs),
            PieceOp::Forward => self.forward(),
            PieceOp::DeleteHelper(index) => Ok(self.netlink.delete_link(*index).await?),
            PieceOp::CreateHelper => self.create_helper().await,
            PieceOp::CreateBridge { name, mac, mtu } => {
                self.create_bridge(BridgeRequest { name, mac: *mac, mtu: *mtu }).await
            }
            PieceOp::Link(name, change) => self.change_link(name, change).await,
            PieceOp::Address { device, address, prefix_len } => {
                self.add_address(device, *address, *prefix_len).await
            }
            PieceOp::OwnSetting(setting) => self.own_setting(setting),
            PieceOp::Setting(setting) => self.setting(setting),
            PieceOp::KnowHelper => self.know_helper(programs.get()?).await,
            PieceOp::Publish(record) => self.publish(programs.get()?, fan, *record).await,
            PieceOp::Attach(hook, name) => self.attach(programs.get()?, *hook, name).await,
            PieceOp::KnowUplink(..) | PieceOp::AttachEarly { .. } | PieceOp::DetachEarly { .. } => {
                self.early(programs.get()?, op)
            }
            PieceOp::Port(op) => self.port(programs.get()?, op),
            PieceOp::Route(route) => self.route(route).await,
            PieceOp::LoneAddress(address, prefix_len) => self.lone_address(*address, *prefix_len).await,
            PieceOp::TakeAddress(address) => self.take_address(*address).await,
            PieceOp::DeleteInlet(index) => Ok(self.netlink.delete_link(*index).await?),
            PieceOp::CreateInlet { names } => self.create_inlet(names).await,
            PieceOp::JoinInlet { device, bridge } => self.join_inlet(device, bridge).await,
            PieceOp::SmallPath(route) => self.small_path(route).await,
            PieceOp::Rule => self.rule().await,
            PieceOp::Dhcp => self.dhcp(fan),
        }
    }

    /// The index of a device that is there by now.
    async fn index(&self, name: &str) -> Result<u32, Fault> {
        Ok(self.netlink.link(name).await?.index)
    }

    /// Keeps a fan's former bridge for its containers, as stale.
    async fn retire(&mut self, former: &Standing) -> Result<(), Fault> {
        dhcp::stop(&former.mark.bridge())?;
        if let Some(bridge) = former.bridge.as_ref().filter(|_| former.adopted.is_none()) {
            self.netlink.set_alias(bridge.index, &former.mark.to_alias()).await?;
        }
        let entry = Entry { mark: former.mark.clone(), adopted: former.adopted };
        self.memory.put(entry.clone())?;
        self.did(format!("bridge {} kept as stale", former.mark.bridge()));
        self.stands(entry);
        Ok(())
    }

    /// A fan stands, in place of the one of its bridge.
    fn stands(&mut self, Entry { mark, adopted }: Entry) {
        let name = mark.bridge();
        let bridge = self.observed.link(&name).cloned();
        self.observed.standing.retain(|standing| standing.mark.bridge() != name);
        self.observed.standing.push(Standing { mark, adopted, bridge });
    }

    fn remember(&mut self, entry: Entry) -> Result<(), Fault> {
        self.memory.put(entry.clone())?;
        self.stands(entry);
        Ok(())
    }

    fn load(&mut self, programs: &mut Programs<'_>) -> Result<(), Fault> {
        self.owns_maps = matches!(Datapath::open_existing(), Ok(None));
        programs.load()?;
        self.owns_maps = true;
        Ok(())
    }

    /// Lets the stack forward. Along with the switch the kernel changes every interface's own, and whether
    /// redirects are believed.
    fn forward(&mut self) -> Result<(), Fault> {
        let key = forwarding::key();
        let users = forwarding::users(&self.observed.links)?;
        let before = || {
            let interfaces = conf_entries().filter(|name| name != "all");
            let forwarding = interfaces.map(|name| Key::conf(&name, "forwarding"));
            let along = std::iter::once(Key::conf("all", "accept_redirects")).chain(forwarding).collect();
            Before { along, users }
        };
        if self.sysctls.set(&key, Setting::forwarding().value, before)? {
            self.did("forwarding switched on");
        }
        Ok(())
    }

    /// Sets a setting of an interface that is our own: it goes with the interface.
    fn own_setting(&mut self, Setting { path, value }: &Setting) -> Result<(), Fault> {
        match Key::new(path).write(value) {
            Ok(Some(_)) => self.did(format!("{path} set to {value}")),
            Ok(None) => {}
            // A kernel without IPv6 has no settings of it.
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Sets a setting of somebody else's device, or of the host.
    fn setting(&mut self, Setting { path, value }: &Setting) -> Result<(), Fault> {
        if self.sysctls.set(&Key::new(path), value, Before::default)? {
            self.did(format!("{path} set to {value}"));
        }
        Ok(())
    }

    async fn create_bridge(&mut self, request: BridgeRequest<'_>) -> Result<(), Fault> {
        let link = self.netlink.create_bridge(request).await?;
        self.did(format!("bridge {} created", link.name));
        Ok(())
    }

    async fn add_address(&mut self, device: &str, address: Ipv4Addr, prefix_len: u8) -> Result<(), Fault> {
        let index = self.index(device).await?;
        self.netlink.add_address(Address { index, address, prefix_len }).await?;
        self.did(format!("address {address} added to {device}"));
        Ok(())
    }

    async fn create_helper(&mut self) -> Result<(), Fault> {
        let end = |side: usize| VethEnd { name: HELPER[side], mac: HELPER_MACS[side], mtu: VETH_MTU };
        let request = VethRequest { end: end(0), peer: end(1), peer_netns: None };
        let link = self.netlink.create_veth(request).await?;
        self.did(format!("{} created", link.name));
        Ok(())
    }

    async fn change_link(&mut self, name: &str, change: &LinkChange) -> Result<(), Fault> {
        let index = self.index(name).await?;
        let netlink = self.netlink;
        let what = match change {
            LinkChange::Alias(alias) => {
                netlink.set_alias(index, alias).await?;
                format!("{name} marked")
            }
            LinkChange::Mac(mac) => {
                netlink.set_mac(index, *mac).await?;
                format!("MAC address of {name} set")
            }
            LinkChange::Mtu(mtu) => {
                netlink.set_mtu(index, *mtu).await?;
                format!("MTU of {name} set to {mtu}")
            }
            LinkChange::HoldMtu(mtu) => {
                // The same value again would not count as set.
                netlink.set_mtu(index, mtu + 1).await?;
                netlink.set_mtu(index, *mtu).await?;
                format!("MTU of {name} held")
            }
            LinkChange::Up => {
                netlink.set_up(index, true).await?;
                format!("{name} set up")
            }
            LinkChange::Segments => {
                netlink.set_gso_segments(index, 1).await?;
                format!("super-packets kept off {name}")
            }
            LinkChange::NoArp => {
                netlink.set_noarp(index, true).await?;
                format!("address resolution on {name} switched off")
            }
        };
        self.did(what);
        Ok(())
    }

    async fn know_helper(&mut self, datapath: &Datapath) -> Result<(), Fault> {
        datapath.config().set_helper(self.index(HELPER[0]).await?, HELPER_MACS[0]);
        self.did("helper device made known");
        Ok(())
    }

    async fn attach(&mut self, datapath: &Datapath, hook: Hook, name: &str) -> Result<(), Fault> {
        let attached = datapath.attach(hook, self.index(name).await?, name)?;
        self.did_attach(attached, hook, name);
        Ok(())
    }

    async fn publish(&mut self, datapath: &Datapath, fan: &Fan, record: FanRecord) -> Result<(), Fault> {
        let mut record = FanRecord { bridge: self.index(&fan.bridge).await?, ..record };
        let [near, far] = inlet_names(&fan.bridge);
        for (end, name) in [(&mut record.inlet, near), (&mut record.outlet, far)] {
            if *end == PieceOp::INLET_TO_COME {
                *end = self.index(&name).await?;
            }
        }
        if datapath.config().publish(&record)? {
            self.did("fan published");
        }
        Ok(())
    }

    async fn route(&mut self, route: &Route) -> Result<(), Fault> {
        let route = Route { oif: Some(self.index(HELPER[0]).await?), ..route.clone() };
        self.netlink.replace_route(&route).await?;
        self.did(format!("route {} set", route.destination));
        Ok(())
    }

    fn dhcp(&mut self, fan: &Fan) -> Result<(), Fault> {
        if dhcp::ensure(&dhcp_server(fan))? {
            self.did("dnsmasq started");
        }
        Ok(())
    }

    pub(super) fn port(&mut self, datapath: &Datapath, op: &PortOp) -> Result<(), Fault> {
        if let (Some(attached), PortOp::Attach { name, .. }) = (table::change_port(datapath, op)?, op) {
            self.did_attach(attached, Hook::EndpointIngress, name);
        }
        Ok(())
    }
}
