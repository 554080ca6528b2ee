//! Fans as they are.

use std::net::Ipv4Addr;

use control::{
    model::{Egress, Encapsulation, Origin, PortRange, ROUTE_PROTOCOL, dns_words},
    observed::{Mark, ObservedHost, Standing},
};
use dataplane_common::{abi::FanRecord, outcome::Hook};
use ipnet::Ipv4Net;
use serde::Serialize;

use super::{
    HELPER, Node,
    error::{Error, Fault},
    firewall,
};
use crate::kernel::{
    bpf::{Attachment, Datapath},
    dhcp,
};

/// A fan as it is, with the keys of `fanlight fan show --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FanState {
    /// Overlay network.
    pub overlay: Ipv4Net,
    /// Underlay network.
    pub underlay: Ipv4Net,
    /// This host's address in the underlay.
    pub address: Ipv4Addr,
    /// This host's slice.
    pub slice: Ipv4Net,
    /// Name of the bridge.
    pub bridge: String,
    /// This host's address in the slice.
    pub gateway: Ipv4Addr,
    /// How packets are carried.
    pub encapsulation: Encapsulation,
    /// Largest inner packet; 0 while unknown.
    pub mtu: u32,
    /// `up`, `degraded` (a piece is missing), or `stale` (the host has another address by now).
    pub state: &'static str,
    /// Where it was asked for, and what differs from the usual.
    pub flags: Vec<String>,
    /// Pieces that are not as they ought to be.
    pub missing: Vec<String>,
    /// Where it was asked for.
    pub origin: Origin,
    /// What happens to packets that leave the overlay.
    pub egress: Egress,
}

/// What the datapath holds.
#[derive(Default)]
struct Programs {
    records: Vec<FanRecord>,
    filtered: Vec<Ipv4Net>,
    attachments: Vec<Attachment>,
    nat_ports: PortRange,
}

impl Node {
    /// All fans, as they are now. Needs no agent and no fan.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub async fn show(&self) -> Result<Vec<FanState>, Error> {
        let observed = self.observe().await?;
        if observed.standing.is_empty() {
            return Ok(Vec::new());
        }
        let programs = match Datapath::open_existing().map_err(Fault::from)? {
            Some(datapath) => Programs {
                records: datapath.config().fans(),
                filtered: datapath.config().filtered(),
                attachments: datapath.attachments().map_err(Fault::from)?,
                nat_ports: datapath.config().nat_ports(),
            },
            None => Programs::default(),
        };
        let marks: Vec<&Mark> =
            observed.standing.iter().map(|it| &it.mark).filter(|mark| !mark.stale).collect();
        let filtered = firewall::is_in_place(&marks, programs.nat_ports)?;
        let mut states: Vec<FanState> = observed
            .standing
            .iter()
            .map(|standing| {
                let mut missing = missing(&observed, &programs, standing);
                if !filtered && !standing.mark.stale {
                    missing.push("nftables table".to_owned());
                }
                state(standing, &programs, missing)
            })
            .collect();
        states.sort_by_key(|state| (state.overlay, state.state == "stale"));
        Ok(states)
    }
}

fn state(standing: &Standing, programs: &Programs, missing: Vec<String>) -> FanState {
    let mark = &standing.mark;
    let published = programs.records.iter().find(|record| record.gateway == mark.gateway().to_bits());
    let mtu = published.map(|record| record.mtu).or(standing.bridge.as_ref().map(|bridge| bridge.mtu));
    FanState {
        overlay: mark.overlay(),
        underlay: mark.underlay(),
        address: mark.address,
        slice: mark.slice(),
        bridge: mark.bridge(),
        gateway: mark.gateway(),
        encapsulation: mark.spec.encapsulation,
        mtu: mtu.unwrap_or(0),
        state: match (mark.stale, missing.is_empty()) {
            (true, _) => "stale",
            (false, true) => "up",
            (false, false) => "degraded",
        },
        flags: flags(standing, programs),
        missing: if mark.stale { Vec::new() } else { missing },
        origin: mark.origin,
        egress: mark.spec.egress,
    }
}

fn flags(standing: &Standing, programs: &Programs) -> Vec<String> {
    let Mark { spec, origin, stale, .. } = &standing.mark;
    let origin = match origin {
        Origin::Manual => "manual",
        Origin::File => "file",
        Origin::Config => "config",
    };
    let mut flags = vec![origin.to_owned()];
    let is_filtered = !stale && programs.filtered.contains(&spec.overlay);
    let named = [
        (standing.adopted.is_some(), "adopted"),
        (spec.dhcp, "dhcp"),
        (*stale, "stale"),
        (is_filtered, "filtered"),
    ];
    flags.extend(named.iter().filter(|(set, _)| *set).map(|&(_, name)| name.to_owned()));
    if spec.host_reserve != 1 {
        flags.push(format!("host-reserve {}", spec.host_reserve));
    }
    if !spec.dns.is_empty() {
        flags.push(format!("dns {}", dns_words(&spec.dns)));
    }
    if spec.egress != Egress::default() {
        flags.push(format!("egress {}", spec.egress));
    }
    flags
}

/// Pieces of a fan that are not as they ought to be.
fn missing(observed: &ObservedHost, programs: &Programs, standing: &Standing) -> Vec<String> {
    let mark = &standing.mark;
    let mut missing = Vec::new();
    let mut need = |there: bool, what: &str| {
        if !there {
            missing.push(what.to_owned());
        }
    };
    let attached = |hook: Hook, index: u32| {
        programs.attachments.iter().any(|attachment| attachment.hook == hook && attachment.ifindex == index)
    };
    let bridge = standing.bridge.as_ref();
    need(bridge.is_some_and(|bridge| bridge.up), "bridge");
    let gateway =
        |index: u32| observed.addresses.iter().any(|it| it.index == index && it.address == mark.gateway());
    need(bridge.is_some_and(|bridge| gateway(bridge.index)), "gateway address");
    for (hook, what) in
        [(Hook::BridgeIngress, "bridge-ingress program"), (Hook::EndpointEgress, "endpoint-egress program")]
    {
        need(bridge.is_some_and(|bridge| attached(hook, bridge.index)), what);
    }
    let holder = observed.addresses.iter().any(|address| address.address == mark.address);
    need(holder, "underlay address");
    let record = programs.records.iter().find(|record| {
        record.gateway == mark.gateway().to_bits() && record.address == mark.address.to_bits()
    });
    need(record.is_some(), "published record");
    let uplink = record.map_or(0, |record| record.uplink);
    let any_uplink = programs.attachments.iter().any(|attachment| attachment.hook == Hook::UplinkIngress);
    need(
        if uplink == 0 { any_uplink } else { attached(Hook::UplinkIngress, uplink) },
        "uplink-ingress program",
    );
    let helper = observed.link(HELPER).map(|link| link.index);
    need(helper.is_some(), "helper device");
    need(helper.is_some_and(|index| attached(Hook::HostEgress, index)), "host-egress program");
    let route = observed.routes.iter().any(|route| {
        route.destination == mark.overlay() && route.protocol == ROUTE_PROTOCOL && route.oif == helper
    });
    need(route, "route");
    need(!mark.spec.dhcp || dhcp::running(&mark.bridge()).is_some(), "dnsmasq");
    missing
}
