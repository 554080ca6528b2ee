//! The ways of a fan's packets that the kernel's packet filter sees, and reports of the rules that drop them.

use std::{collections::BTreeSet, fmt::Write as _, net::Ipv4Addr, rc::Rc};

use ipnet::Ipv4Net;

use super::{
    Device, Dropped, Packet, Packets,
    crossing::{Filters, Holds},
    state,
    walk::is_dockers,
};
use crate::{
    model::{Egress, Fan, HELPER},
    observed::{Link, Mark, ObservedHost},
};

/// Addresses that are named; the rest are counted.
const NAMED: usize = 5;

/// Where packets meet a packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before they are routed.
    Prerouting,
    /// On their way to a process of this host.
    Input,
    /// On their way from one device to another.
    Forward,
    /// Before they leave by a device.
    Postrouting,
    /// On a bridge, from one of its ports to this host.
    FromPort,
    /// On a bridge, from this host to one of its ports.
    ToPort,
    /// Where they come in by a device.
    Ingress,
    /// Where they leave by a device.
    Egress,
}

/// What packets of a way are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From other hosts' slices to this one's containers that the programs don't know yet.
    In,
    /// From containers to other slices, where the stack has to do it.
    Out,
    /// From this host's slices to others, out of the helper device and back to it: what is to be fragmented for a service.
    Cut,
    /// From containers to anywhere else.
    Egress,
    /// What comes back to them.
    Answers,
    /// Containers that ask for an address.
    Lease,
}

/// One way of a fan's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// What for.
    pub kind: Kind,
    /// The device that they come in by.
    pub input: String,
    /// The device that they leave by; none for what is for this host.
    pub output: Option<String>,
    /// The fan's overlay.
    pub overlay: Ipv4Net,
    pub(super) packet: Packet,
}

/// The ways of all fans that stand.
pub fn ways(observed: &ObservedHost) -> Vec<Way> {
    observed.current().flat_map(|mark| of_fan(observed, mark)).collect()
}

/// Those whose packets a hook sees, as packets, with the number of the way of each.
pub fn at(ways: &[Way], hook: Hook) -> (Vec<usize>, Packets) {
    let meets = |way: &Way| match hook {
        // There what comes from one device is one.
        Hook::Prerouting => way.kind != Kind::Cut,
        Hook::Input => way.kind == Kind::Lease,
        Hook::Forward => way.kind != Kind::Lease,
        // There only what is carried past a filter counts.
        Hook::Postrouting | Hook::FromPort | Hook::ToPort | Hook::Ingress | Hook::Egress => false,
    };
    let met = ways.iter().enumerate().filter(|(_, way)| meets(way));
    let packet = |way: &Way| match hook {
        // Nobody knows yet where they go.
        Hook::Prerouting => Packet { output: None, ..way.packet.clone() },
        _ => way.packet.clone(),
    };
    let (numbers, packets) = met.map(|(number, way)| (number, packet(way))).unzip();
    (numbers, Packets::new(packets))
}

/// What comes into a fan's bridge by its inlet, where the kernel shows packets on bridges to the chains for those that are
/// forwarded.
pub fn bridged(fan: &Fan) -> Way {
    let ends = |network: Ipv4Net| (network.network().to_bits(), network.broadcast().to_bits());
    // A bridge that is yet to be made has no number; rules that ask for one can't mean it.
    let device = || Some(Device::new(&fan.bridge, 0));
    let packet = Packet {
        source: Some(ends(fan.spec.overlay)),
        input: device(),
        output: device(),
        state: Some(state::UNTRACKED),
        mark: Some(0),
        ..Packet::to(ends(fan.slice), 0, 0)
    };
    let (input, output) = (fan.bridge.clone(), Some(fan.bridge.clone()));
    Way { kind: Kind::In, input, output, overlay: fan.spec.overlay, packet }
}

fn of_fan(observed: &ObservedHost, mark: &Mark) -> Vec<Way> {
    const UDP: u8 = 17;
    const DHCP: u16 = 67;
    let (Some(bridge), Some(helper)) = (observed.link(&mark.bridge()), observed.link(HELPER[0])) else {
        return Vec::new();
    };
    let ends = |network: Ipv4Net| (network.network().to_bits(), network.broadcast().to_bits());
    let (overlay, slice, all) = (ends(mark.overlay()), ends(mark.slice()), (0, u32::MAX));
    let way = |kind, input: &Link, output: Option<&Link>, source, mut packet: Packet, tracked| {
        packet.source = Some(source);
        packet.input = Some(Device::new(&input.name, input.index));
        packet.output = output.map(|link| Device::new(&link.name, link.index));
        packet.state = Some(tracked);
        packet.mark = Some(0);
        let (input, output) = (input.name.clone(), output.map(|link| link.name.clone()));
        Way { kind, input, output, overlay: mark.overlay(), packet }
    };
    let any = |destination| Packet::to(destination, 0, 0);
    let mut ways = vec![
        way(Kind::In, helper, Some(bridge), overlay, any(slice), state::UNTRACKED),
        way(Kind::Out, bridge, Some(helper), slice, any(overlay), state::UNTRACKED),
        way(Kind::Cut, helper, Some(helper), slice, any(overlay), state::UNTRACKED),
    ];
    if mark.spec.egress != Egress::Drop {
        for exit in exits(observed, mark) {
            ways.push(way(Kind::Egress, bridge, Some(exit), slice, any(all), state::NEW));
            ways.push(way(Kind::Answers, exit, Some(bridge), all, any(slice), state::ESTABLISHED));
        }
    }
    if mark.spec.dhcp {
        let request = Packet::to((u32::MAX, u32::MAX), UDP, DHCP);
        ways.push(way(Kind::Lease, bridge, None, (0, 0), request, state::NEW));
    }
    ways
}

/// The devices by which containers reach the rest of the world: that of the default route, and the fan's own.
fn exits<'o>(observed: &'o ObservedHost, mark: &Mark) -> Vec<&'o Link> {
    let holders = observed.addresses.iter().filter(|address| address.address == mark.address);
    let defaults = observed.routes.iter().filter(|route| route.destination.prefix_len() == 0);
    let indexes: BTreeSet<u32> =
        holders.map(|address| address.index).chain(defaults.filter_map(|route| route.oif)).collect();
    observed.links.iter().filter(|link| indexes.contains(&link.index) && !link.loopback).collect()
}

/// A chain that drops packets, and whose words have to be used to change that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The family, as `nft` writes it; empty for iptables beside nf_tables.
    pub family: &'static str,
    /// The table.
    pub table: Rc<str>,
    /// The hook's chain.
    pub base: Rc<str>,
    /// The hook.
    pub hook: Hook,
    /// The program to add a rule with, where the table is iptables'.
    pub iptables: Option<&'static str>,
}

/// Which foreign rules drop a fan's packets, a reason a line.
#[derive(Debug, Default)]
pub struct Findings {
    blocked: Vec<(Owner, Vec<Way>)>,
    docker: BTreeSet<Ipv4Addr>,
    docker_chains: BTreeSet<String>,
    /// Those that filter them.
    pub filters: Filters,
}

impl Findings {
    /// Takes what a base chain drops of ways.
    pub fn add(&mut self, ways: &[Way], numbers: &[usize], owner: &Owner, dropped: &[Dropped]) {
        for found in dropped {
            let Some(way) = numbers.get(found.packet).and_then(|&number| ways.get(number)) else { continue };
            let name = owner.name(&found.chain);
            match (way.kind, found.is_whole, owner.is_dockers(found)) {
                (Kind::In, _, true) => {
                    self.docker.extend(found.address.map(Ipv4Addr::from_bits));
                    self.docker_chains.insert(name);
                }
                // That is no accident.
                (Kind::In | Kind::Out | Kind::Cut, true, false) if found.is_named => {}
                (_, true, _) => self.block(owner, way),
                // A filter; but what leaves the overlay goes by the stack: there the rule holds.
                (_, false, _) => {}
            }
        }
    }

    fn block(&mut self, owner: &Owner, way: &Way) {
        match self.blocked.iter_mut().find(|(other, _)| other == owner) {
            Some((_, ways)) if ways.contains(way) => {}
            Some((_, ways)) => ways.push(way.clone()),
            None => self.blocked.push((owner.clone(), vec![way.clone()])),
        }
    }

    /// Whether a chain of iptables' filter table keeps a fan's packets from being forwarded.
    pub fn is_forwarding_blocked(&self) -> bool {
        let by_docker = self.docker_chains.iter().any(|chain| chain.ends_with(" DOCKER"));
        let is_filter = |owner: &Owner| owner.iptables.is_some() && &*owner.base == "FORWARD";
        by_docker || self.blocked.iter().any(|(owner, _)| is_filter(owner))
    }

    /// Whether nothing is dropped.
    pub fn is_empty(&self) -> bool {
        self.blocked.is_empty() && self.docker_chains.is_empty() && self.filters.overlays().is_empty()
    }

    /// The reasons; `holds` says what becomes of an overlay's packets that filters may drop.
    pub fn reasons(&self, holds: impl Fn(Ipv4Net) -> Holds) -> Vec<String> {
        let mut reasons: Vec<String> =
            self.blocked.iter().map(|(owner, ways)| blocked(owner, ways)).collect();
        reasons.extend(self.docker_reason());
        reasons.extend(self.filters.reasons(holds));
        reasons
    }

    fn docker_reason(&self) -> Option<String> {
        let chains = self.docker_chains.iter().cloned().collect::<Vec<_>>().join(", ");
        let named: Vec<String> = self.docker.iter().take(NAMED).map(Ipv4Addr::to_string).collect();
        let whom = match (named.as_slice(), self.docker.len().saturating_sub(NAMED)) {
            ([], _) => "its containers".to_owned(),
            (_, 0) => named.join(", "),
            (_, more) => format!("{} and {more} more", named.join(", ")),
        };
        (!chains.is_empty()).then(|| {
            format!(
                "docker-blocked: {chains} drops what comes from other hosts to {whom}, until the container has spoken; \
                 run dockerd with `--allow-direct-routing` (28.2 and later), make the network with \
                 `-o com.docker.network.bridge.gateway_mode_ipv4=routed` (28.0), or run dockerd with `--iptables=false`"
            )
        })
    }
}

fn blocked(owner: &Owner, ways: &[Way]) -> String {
    let is_lease = ways.iter().all(|way| way.kind == Kind::Lease);
    let (name, what) = if is_lease {
        ("dhcp-blocked", "requests for addresses")
    } else {
        ("forward-blocked", "forwarded packets")
    };
    let mut text = format!("{name}: {} drops {what}; add", owner.name(&owner.base));
    for way in ways {
        for rule in owner.rules(way) {
            // Writing to a string can't fail.
            let _ = write!(text, " `{rule}`");
        }
    }
    text
}

impl Owner {
    pub(super) fn name(&self, chain: &str) -> String {
        match (self.family, self.iptables) {
            ("", Some(program)) => format!("{program} {} {chain}", self.table),
            (family, _) => format!("{family} {} {chain}", self.table),
        }
    }

    /// Whether it is Docker's rule that drops: by its chains' names, and by the only form that it writes into others'
    /// (from 28.0 on: `raw PREROUTING -d CONTAINER ! -i BRIDGE -j DROP`).
    pub(super) fn is_dockers(&self, found: &Dropped) -> bool {
        let is_raw = &*self.table == "raw" && &*found.chain == "PREROUTING";
        let is_its_form = found.address.is_some() && found.is_from_elsewhere;
        (is_raw && is_its_form) || is_dockers(&found.chain) || &*self.table == "docker-bridges"
    }

    /// What lets packets of a way pass.
    fn rules(&self, way: &Way) -> Vec<String> {
        if &*self.table == "firewalld" {
            return trust(way);
        }
        let (family, table, base) = (self.family, &self.table, &self.base);
        let mut way = way.clone();
        way.output = way.output.filter(|_| self.hook != Hook::Prerouting);
        vec![match self.iptables {
            Some(program) => format!("{program}{} -I {base} {} -j ACCEPT", self.option(), xtables(&way)),
            None => format!("nft insert rule {family} {table} {base} {} accept", nftables(&way)),
        }]
    }

    fn option(&self) -> String {
        if &*self.table == "filter" { String::new() } else { format!(" -t {}", self.table) }
    }
}

/// Packets of a way in the words of iptables.
pub fn xtables(way: &Way) -> String {
    let output = way.output.as_ref().map_or_else(String::new, |output| format!(" -o {output}"));
    let more = match way.kind {
        Kind::In | Kind::Out | Kind::Cut | Kind::Egress => "",
        Kind::Answers => " -m conntrack --ctstate RELATED,ESTABLISHED",
        Kind::Lease => " -p udp -m udp --dport 67",
    };
    format!("-i {}{output}{more}", way.input)
}

/// Packets of a way in the words of nftables.
fn nftables(way: &Way) -> String {
    let output = way.output.as_ref().map_or_else(String::new, |output| format!(" oifname {output}"));
    let more = match way.kind {
        Kind::In | Kind::Out | Kind::Cut | Kind::Egress => "",
        Kind::Answers => " ct state established,related",
        Kind::Lease => " udp dport 67",
    };
    format!("iifname {}{output}{more}", way.input)
}

/// firewalld forgets rules that others add to its chains: its own words last.
fn trust(way: &Way) -> Vec<String> {
    let command = |words: &str| format!("firewall-cmd --permanent {words}");
    match way.kind {
        Kind::In | Kind::Out | Kind::Cut | Kind::Lease => {
            vec![command(&format!("--zone=trusted --add-interface={}", way.input))]
        }
        Kind::Egress => vec![
            command("--new-policy=fanlight"),
            command("--policy=fanlight --add-ingress-zone=trusted"),
            command("--policy=fanlight --add-egress-zone=ANY"),
            command("--policy=fanlight --set-target=ACCEPT"),
        ],
        Kind::Answers => vec!["firewall-cmd --reload".to_owned()],
    }
}

#[cfg(test)]
mod tests;
