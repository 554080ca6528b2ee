//! What is to be done so that a fan's pieces are as they ought to be: its bridge, the helper device, settings, what the
//! programs know, hooks, the overlay's route, the DHCP server. The packet filter is of all fans together.
//!
//! A plan is carried out in order: what is to be remembered comes before anything is made, so that a call that dies can be
//! repaired or taken back, and a fan is published once packets for it have somewhere to go.

mod bridge;
mod early;
mod helper;
mod inlet;
mod stand;
mod ways;

use std::{collections::BTreeMap, net::Ipv4Addr};

use dataplane_common::{abi::FanRecord, outcome::Hook};
use ipnet::Ipv4Net;

pub use self::helper::is_helper;
use super::{Modes, PortOp, fan_record, ports};
use crate::{
    model::{Fan, HELPER, HELPER_MACS, ROUTE_PROTOCOL, UplinkHook},
    observed::{Address, Entry, Link, ObservedHost, Route, Standing},
};

/// Why a fan's pieces can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    /// Something of another kind has the helper device's name.
    #[error("interface {name} exists and is not fanlight's; rename or delete it")]
    Foreign {
        /// The name.
        name: String,
    },
    /// The bridge serves another fan.
    #[error("bridge {name} serves the fan {overlay}; give another with `bridge NAME`")]
    BridgeTaken {
        /// The bridge.
        name: String,
        /// Whose it is.
        overlay: Ipv4Net,
    },
}

/// A setting below `/proc/sys`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// As `net/ipv4/ip_forward`; dots may stand in a device's name.
    pub path: String,
    /// What it is to be.
    pub value: &'static str,
}

impl Setting {
    fn new(path: &str, value: &'static str) -> Self {
        Self { path: path.to_owned(), value }
    }

    /// Forwarding by the host's stack. The kernel changes every device's own along with it.
    pub fn forwarding() -> Self {
        Self::new("net/ipv4/ip_forward", "1")
    }
}

/// All settings that a fan needs.
pub fn settings(fan: &Fan) -> Vec<Setting> {
    let mut all = vec![Setting::forwarding()];
    all.extend(helper::settings());
    all.extend(bridge::settings(&fan.bridge));
    all.extend(inlet::settings(&fan.bridge));
    all
}

/// What the programs hold.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// The helper device that they know: its index and MAC address.
    pub helper: (u32, [u8; 6]),
    /// The fans that they see.
    pub fans: Vec<FanRecord>,
    /// Where those of this version run.
    pub hooks: Vec<(Hook, u32)>,
    /// Devices that run the endpoints' program, of any version.
    pub ports: Vec<u32>,
    /// Uplinks that run the program in front of `uplink-ingress`, of any version: the device and the program's number.
    pub early: Vec<(u32, u32)>,
    /// The MAC addresses that this one knows of its devices.
    pub macs: Vec<(u32, [u8; 6])>,
    /// Uplinks that the kernel would not let run it, as they are now.
    pub refused: Vec<u32>,
}

/// What there is of a fan's pieces, beside what [`ObservedHost`] holds.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// What is remembered of fans.
    pub entries: Vec<Entry>,
    /// The values of its settings; a path without one is none that this kernel has, or its device is not there.
    pub settings: BTreeMap<String, String>,
    /// `None`: they are not loaded.
    pub programs: Option<Programs>,
    /// What is asked for at the uplinks.
    pub uplink_hook: UplinkHook,
    /// Our routes, asked for anew: the kernel drops one silently along with its source address.
    pub routes: Vec<Route>,
    /// Those of our table of small paths.
    pub small_paths: Vec<Route>,
    /// Others' packet filters would drop what comes into the bridge by the inlet.
    pub bars_inlet: bool,
    /// Addresses are handed out as the fan wants.
    pub serves_dhcp: bool,
}

/// A change of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// What its alias says.
    Alias(String),
    /// Its MAC address.
    Mac([u8; 6]),
    /// Its MTU.
    Mtu(u32),
    /// Its MTU, which it has already, as one that somebody set: a bridge follows its ports until then.
    HoldMtu(u32),
    /// It is switched on.
    Up,
    /// It resolves no addresses.
    NoArp,
    /// It takes no super-packets: the kernel cuts what is sent through it into segments.
    Segments,
}

/// One change. Devices go by their names, because a plan may make them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PieceOp {
    /// A fan's former bridge is kept for its containers.
    Retire(Standing),
    /// A fan is remembered, in place of what was of its bridge.
    Remember(Entry),
    /// The programs are loaded.
    Load,
    /// The host's stack forwards.
    Forward,
    /// What is left of a helper device goes: its index.
    DeleteHelper(u32),
    /// The helper device is made.
    CreateHelper,
    /// A bridge is made.
    CreateBridge {
        /// Its name.
        name: String,
        /// Its MAC address.
        mac: [u8; 6],
        /// Its MTU.
        mtu: u32,
    },
    /// A device is changed.
    Link(String, LinkChange),
    /// A device gets an address.
    Address {
        /// Which.
        device: String,
        /// The address.
        address: Ipv4Addr,
        /// The length of its network.
        prefix_len: u8,
    },
    /// The helper device gets an address without a route to its network.
    LoneAddress(Ipv4Addr, u8),
    /// The helper device loses an address.
    TakeAddress(Address),
    /// What is left of an inlet goes: its index.
    DeleteInlet(u32),
    /// A bridge's inlet is made.
    CreateInlet {
        /// Names of its ends.
        names: [String; 2],
    },
    /// An inlet becomes its bridge's port.
    JoinInlet {
        /// The end that is the port.
        device: String,
        /// The bridge.
        bridge: String,
    },
    /// A route of our table of small paths, which leads through the helper device unless it ends the search there.
    SmallPath(Route),
    /// The policy rule that leads to this table.
    Rule,
    /// A setting of our own device is made; it goes with that.
    OwnSetting(Setting),
    /// A setting is made, and what it was is kept.
    Setting(Setting),
    /// The programs learn of the helper device.
    KnowHelper,
    /// The programs see the fan. Its bridge's index is 0 where the plan makes that, its inlet's
    /// [`PieceOp::INLET_TO_COME`].
    Publish(FanRecord),
    /// A device runs a hook's program.
    Attach(Hook, String),
    /// The program in front of `uplink-ingress` learns an uplink's MAC address.
    KnowUplink(u32, [u8; 6]),
    /// An uplink runs that program, in the first of these modes that it can.
    AttachEarly {
        /// The uplink.
        name: String,
        /// Its index.
        index: u32,
        /// Ways to run it.
        modes: Modes,
    },
    /// An uplink runs it no more.
    DetachEarly {
        /// The uplink.
        name: String,
        /// Its index.
        index: u32,
    },
    /// A port of a fan gets its program, or loses it.
    Port(PortOp),
    /// The overlay's route. It leads through the helper device, which has no index where the plan makes it.
    Route(Route),
    /// Addresses are handed out.
    Dhcp,
}

impl PieceOp {
    /// Stands for the index of an end of an inlet that a plan makes.
    pub const INLET_TO_COME: u32 = u32::MAX;
}

/// What makes a fan's pieces as they ought to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PiecePlan {
    /// What is remembered of the fan before anything is made.
    pub entry: Entry,
    /// The changes, in order.
    pub ops: Vec<PieceOp>,
}

/// The changes that make a fan's pieces as they ought to be; none where they are.
///
/// # Errors
/// Something that is not ours has a name that the fan needs.
pub fn plan(fan: &Fan, observed: &ObservedHost, held: &Pieces) -> Result<PiecePlan, PieceError> {
    let entry = stand::entry(fan, observed)?;
    let mut ops = stand::plan(fan, observed, held, &entry);
    if held.programs.is_none() {
        ops.push(PieceOp::Load);
    }
    let forwarding = Setting::forwarding();
    if held.differs(&forwarding) {
        ops.push(PieceOp::Forward);
    }
    let helper = helper::plan(observed, held, &mut ops)?;
    let programs = held.programs.clone().unwrap_or_default();
    if helper.is_none_or(|index| programs.helper != (index, HELPER_MACS[0])) {
        ops.push(PieceOp::KnowHelper);
    }
    let bridge = bridge::plan(fan, observed, held, &entry, &mut ops);
    let inlet = inlet::plan(&bridge, entry.adopted.is_none(), observed, held, &mut ops)?;
    let record = fan_record(fan, &bridge, inlet, &observed.routes, &observed.rules);
    if !programs.fans.contains(&record) {
        ops.push(PieceOp::Publish(record));
    }
    ops.extend(hooks(fan, &programs, &bridge, helper));
    ops.extend(early::plan(fan, observed, held.uplink_hook, &programs));
    ops.extend(port_ops(&programs, &record, &observed.links));
    ops.extend(ways::addresses(fan, helper, observed));
    ops.extend(route(fan, helper, &held.routes).map(PieceOp::Route));
    ops.extend(ways::small_paths(fan, helper, observed, held));
    if fan.spec.dhcp && !held.serves_dhcp {
        ops.push(PieceOp::Dhcp);
    }
    Ok(PiecePlan { entry, ops })
}

impl Pieces {
    /// Whether a setting that this kernel has is another.
    fn differs(&self, setting: &Setting) -> bool {
        self.settings.get(&setting.path).is_some_and(|value| *value != setting.value)
    }
}

/// Ports that join later are served by the bridge's program until somebody attaches theirs.
fn hooks<'f>(
    fan: &'f Fan,
    programs: &'f Programs,
    bridge: &'f Link,
    helper: Option<u32>,
) -> impl Iterator<Item = PieceOp> + 'f {
    let uplinks = fan.uplinks().map(|uplink| (Hook::UplinkIngress, uplink.index, uplink.name.as_str()));
    uplinks
        .chain([
            (Hook::BridgeIngress, bridge.index, bridge.name.as_str()),
            (Hook::EndpointEgress, bridge.index, bridge.name.as_str()),
            (Hook::HostEgress, helper.unwrap_or_default(), HELPER[0]),
        ])
        .filter(|&(hook, index, _)| !programs.hooks.contains(&(hook, index)))
        .map(|(hook, _, name)| PieceOp::Attach(hook, name.to_owned()))
}

/// Every port of a fan's bridge and every routed endpoint runs the endpoints' program, and nothing else does.
fn port_ops(programs: &Programs, record: &FanRecord, links: &[Link]) -> Vec<PieceOp> {
    let is_other =
        |other: &&FanRecord| (other.overlay, other.overlay_mask) != (record.overlay, record.overlay_mask);
    let fans: Vec<FanRecord> = programs.fans.iter().filter(is_other).chain([record]).copied().collect();
    ports(&fans, links, &programs.ports).into_iter().map(PieceOp::Port).collect()
}

/// The overlay's route, where there is another or none.
fn route(fan: &Fan, helper: Option<u32>, routes: &[Route]) -> Option<Route> {
    let wanted = Route {
        destination: fan.spec.overlay,
        oif: helper,
        protocol: ROUTE_PROTOCOL,
        prefsrc: Some(fan.gateway),
        mtu: Some(fan.mtu),
        ..Route::default()
    };
    (helper.is_none() || !routes.contains(&wanted)).then_some(wanted)
}

/// The gateway's address on the bridge.
fn gateway(fan: &Fan, index: u32) -> Address {
    Address { index, address: fan.gateway, prefix_len: fan.slice.prefix_len() }
}

#[cfg(test)]
mod tests;
