//! `fanlight.toml`: text → [`Config`].

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    path::PathBuf,
};

use control::{
    cluster::identity::NodeName,
    model::{FanSpec, UnderlaySpec, quoted},
};
use dataplane_common::abi::ENTRIES_PER_CPU;
use ipnet::Ipv4Net;

use super::SOCKET;
use super::{
    ApiConfig, Config, DatapathConfig, NodeConfig, PortRange, announce, bgp, check, cluster,
    format::Format,
    operands::{self, DEFAULT_HOST_RESERVE, is_interface_name},
    problem::{Problem, Problems},
    section::{Keys, Section},
    service::{self, Placed},
    source,
    tree::{self, Value},
};

const FILE: Keys = Keys {
    known: &["node", "datapath", "fan", "service", "source", "cluster", "api", "bgp", "announce"],
    later: &["tunnel"],
};
const API: Keys = Keys { known: &["socket", "listen"], later: &["token-file"] };
const NODE: Keys = Keys { known: &["name", "uplink"], later: &[] };
const DATAPATH: Keys = Keys {
    known: &["uplink-hook", "host-filters", "flows", "vip-range", "nat-ports"],
    later: &["rewrite", "cgroup"],
};
const FAN: Keys = Keys {
    known: &["overlay", "underlay", "encapsulation", "host-reserve", "egress", "dhcp", "dns"],
    later: &["vni", "vxlan-port"],
};

/// Tables as the documentation names them, with their keys.
#[cfg(test)]
pub(super) const TABLES: [(&str, &Keys); 9] = [
    ("`[node]`", &NODE),
    ("`[datapath]`", &DATAPATH),
    ("`[[fan]]`", &FAN),
    ("`[[source]]`", &source::SOURCE),
    ("`[cluster]`", &cluster::CLUSTER),
    ("`[api]`", &API),
    ("`[bgp]`", &bgp::BGP),
    ("`[[bgp.peer]]`", &bgp::PEER),
    ("`[[announce]]`", &announce::ANNOUNCE),
];

/// Fewest flows: those of one CPU, two entries each.
const MIN_FLOWS: u32 = ENTRIES_PER_CPU / 2;
/// Shortest prefix of the range of VIPs.
const MIN_VIP_RANGE: u8 = 2;
/// First port that may be a translated one: those below are of services (RFC 6335, section 6).
const FIRST_NAT_PORT: u16 = 1024;
/// Longest path of a socket (`sun_path`), bound under a name that is four characters longer at first.
const MAX_SOCKET: usize = 103;

/// A parsed file: what it says, and where its fans and services stand. The configuration gets the services once they
/// are checked against the fans.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) config: Config,
    pub(super) fan_lines: Vec<usize>,
    pub(super) nat_ports_line: Option<usize>,
    /// Lines of keys that are refused after the file was read, by name.
    pub(super) lines: BTreeMap<String, usize>,
    pub(super) services: Vec<Placed>,
}

/// Parses and checks a whole file, or gives everything that is wrong with it.
pub(super) fn parse(text: &str) -> Result<Document, Vec<Problem>> {
    let mut problems = Problems::new(text, Format::Toml);
    let Some(root) = tree::parse_toml(text, &mut problems) else { return Err(problems.into_sorted()) };
    let Value::Table(table) = &root.value else { return Err(problems.into_sorted()) };
    let root = Section::new("", root.span.clone(), table);
    root.check_keys(&FILE, &mut problems);
    let node =
        root.table("node", &mut problems).map(|section| node(&section, &mut problems)).unwrap_or_default();
    let datapath = root
        .table("datapath", &mut problems)
        .map(|section| datapath(&section, &mut problems))
        .unwrap_or_default();
    let nat_ports = root.table("datapath", &mut Problems::new(text, Format::Toml));
    let nat_ports = nat_ports.and_then(|section| section.get("nat-ports")).map(|(_, span)| span);
    let api =
        root.table("api", &mut problems).map(|section| api(&section, &mut problems)).unwrap_or_default();
    let section = root.table("cluster", &mut problems);
    let cluster = section.as_ref().and_then(|section| cluster::cluster(section, &mut problems));
    let bgp_section = root.table("bgp", &mut problems);
    let bgp = bgp_section.as_ref().and_then(|section| bgp::bgp(section, &mut problems)).map(Box::new);
    // One that can't be read says nothing of what needs it.
    let announcements = match (&bgp, &bgp_section) {
        (None, Some(_)) => Vec::new(),
        (bgp, _) => announce::announcements(&root, bgp.as_deref(), &mut problems),
    };
    let lines = [section, root.table("node", &mut Problems::new(text, Format::Toml)), bgp_section];
    let lines = lines.iter().flatten().flat_map(|section| lines_of(section, &problems)).collect();
    let fans = fans(&root, &node, &mut problems);
    let services = service::services(&root, &mut problems);
    let sources = source::sources(&root, &mut problems);
    if !problems.none() {
        return Err(problems.into_sorted());
    }
    let (fans, fan_lines) = fans.into_iter().map(|(fan, span)| (fan, problems.line(&span))).unzip();
    let nat_ports_line = nat_ports.map(|span| problems.line(&span));
    let cluster = cluster.map(Box::new);
    let services_later = Vec::new();
    let config =
        Config { node, datapath, api, cluster, bgp, announcements, fans, services: services_later, sources };
    Ok(Document { config, fan_lines, nat_ports_line, lines, services })
}

/// The lines of a table and of its keys.
fn lines_of(section: &Section<'_, '_>, problems: &Problems<'_>) -> Vec<(String, usize)> {
    let keys = section.entries().map(|(key, _)| (section.key(&key.name), problems.line(&key.span)));
    [(section.name.clone(), problems.line(&section.span))].into_iter().chain(keys).collect()
}

fn node(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> NodeConfig {
    section.check_keys(&NODE, problems);
    let name = section.parsed("name", node_name, problems);
    let mut uplink: Vec<String> = Vec::new();
    for (device, span) in section.strings("uplink", problems) {
        let why = if !is_interface_name(&device) {
            format!("{} is no name of a device; use a name such as eth0", quoted(&device))
        } else if uplink.contains(&device) {
            format!("'{device}' is listed twice; list it once")
        } else {
            uplink.push(device);
            continue;
        };
        problems.add(&span, section.key("uplink"), why);
    }
    NodeConfig { name, uplink }
}

fn node_name(text: &str) -> Result<String, String> {
    NodeName::new(text).map(|name| name.as_str().to_owned()).map_err(|error| error.to_string())
}

fn datapath(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> DatapathConfig {
    section.check_keys(&DATAPATH, problems);
    DatapathConfig {
        uplink_hook: section.parsed("uplink-hook", str::parse, problems).unwrap_or_default(),
        host_filters: section.parsed("host-filters", str::parse, problems).unwrap_or_default(),
        flows: flows(section, problems),
        vip_range: section.parsed("vip-range", vip_range, problems),
        nat_ports: section.parsed("nat-ports", nat_ports, problems).unwrap_or_default(),
    }
}

fn vip_range(text: &str) -> Result<Ipv4Net, String> {
    let range: Ipv4Net = text
        .parse()
        .map_err(|_other| format!("{} is no IPv4 network; write one such as 11.0.0.0/8", quoted(text)))?;
    if range.trunc() != range {
        return Err(format!("{range} has host bits set; use {}", range.trunc()));
    }
    let least = MIN_VIP_RANGE;
    if range.prefix_len() < least {
        return Err(format!("{range} is more than a quarter of all addresses; use at least a /{least}"));
    }
    let ends = [range.network(), range.broadcast()];
    match ends.into_iter().find_map(service::unusable) {
        Some(why) => Err(format!("{range} holds {why}; use an unused network such as 11.0.0.0/8")),
        None => Ok(range),
    }
}

fn nat_ports(text: &str) -> Result<PortRange, String> {
    let ends = text.split_once('-').map(|(first, last)| (first.trim().parse(), last.trim().parse()));
    let Some((Ok(first), Ok(last))) = ends else {
        return Err(format!("{} is no range of ports; write one such as 61000-65535", quoted(text)));
    };
    if first < FIRST_NAT_PORT {
        return Err(format!("port {first} is a well-known one; start at {FIRST_NAT_PORT} or above"));
    }
    if first > last {
        return Err(format!("{} ends before it starts; write {last}-{first}", quoted(text)));
    }
    Ok(PortRange(first, last))
}

/// How many flows the table holds; `None` where the memory decides.
fn flows(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Option<u32> {
    if let Some((Value::String(_), _)) = section.get("flows") {
        section.parsed(
            "flows",
            |text| match text {
                "auto" => Ok(()),
                other => Err(format!("{} is unknown; use auto or a number, without quotes", quoted(other))),
            },
            problems,
        );
        return None;
    }
    let flows = section.count("flows", problems)?;
    if flows < MIN_FLOWS {
        let why = format!("{flows} flows are too few; use auto, or at least {MIN_FLOWS} a possible CPU");
        problems.add(&section.place("flows"), section.key("flows"), why);
    }
    Some(flows)
}

fn api(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> ApiConfig {
    section.check_keys(&API, problems);
    let default = ApiConfig::default();
    ApiConfig {
        socket: section.parsed("socket", socket, problems).unwrap_or(default.socket),
        listen: section.parsed("listen", listen, problems),
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() > 0);
    address.ok_or_else(|| format!("{} is no ADDRESS:PORT; write one such as 127.0.0.1:7480", quoted(text)))
}

fn socket(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') || text.ends_with('/') {
        return Err(format!(
            "{} is no path of a file from the root on; write one such as {SOCKET}",
            quoted(text)
        ));
    }
    if text.len() > MAX_SOCKET {
        return Err(format!(
            "{} is too long for a socket; use at most {MAX_SOCKET} characters",
            quoted(text)
        ));
    }
    Ok(PathBuf::from(text))
}

/// All fans that are right, each with its place.
fn fans(
    root: &Section<'_, '_>,
    node: &NodeConfig,
    problems: &mut Problems<'_>,
) -> Vec<(FanSpec, Range<usize>)> {
    let mut fans: Vec<(FanSpec, Range<usize>)> = Vec::new();
    for section in root.tables("fan", problems) {
        let Some(spec) = fan(&section, node, problems) else { continue };
        let overlay = section.get("overlay").map_or_else(|| section.span.clone(), |(_, span)| span);
        if let Some(why) = fans.iter().find_map(|(other, _)| check::conflict(other, &spec)) {
            problems.add(&overlay, section.key("overlay"), format!("{why}; {}", check::APART));
            continue;
        }
        fans.push((spec, overlay));
    }
    if let (Some(why), Some((_, span))) = (check::too_many(fans.len()), fans.last()) {
        problems.add(span, "fan", why);
    }
    fans
}

fn fan(section: &Section<'_, '_>, node: &NodeConfig, problems: &mut Problems<'_>) -> Option<FanSpec> {
    section.check_keys(&FAN, problems);
    if section.get("overlay").is_none() {
        problems.add(
            &section.span,
            section.key("overlay"),
            "is missing; add a network such as \"250.0.0.0/8\"",
        );
    }
    let overlay = section.parsed("overlay", operands::parse_overlay, problems);
    let underlay = section.parsed("underlay", operands::parse_underlay, problems);
    let encapsulation = section.parsed("encapsulation", operands::parse_encapsulation, problems);
    let host_reserve = section.count("host-reserve", problems);
    let egress = section.parsed("egress", operands::parse_egress, problems);
    let wrong = section.get("underlay").is_some() && underlay.is_none();
    let spec = FanSpec {
        overlay: overlay?,
        underlay: underlay.unwrap_or_else(|| default_underlay(node)),
        encapsulation: encapsulation.unwrap_or_default(),
        host_reserve: host_reserve.unwrap_or(DEFAULT_HOST_RESERVE),
        egress: egress.unwrap_or_default(),
        bridge: None,
        dhcp: section.switch("dhcp", problems).unwrap_or_default(),
        dns: dns(section, problems),
    };
    if wrong {
        return None;
    }
    let place = |key| section.get(key).map_or_else(|| section.span.clone(), |(_, span)| span);
    if let UnderlaySpec::Device { name, .. } = &spec.underlay
        && !node.uplink.is_empty()
        && !node.uplink.contains(name)
    {
        let why = format!("device {name} is not among node.uplink; name one of {}", node.uplink.join(", "));
        problems.add(&place("underlay"), section.key("underlay"), why);
        return None;
    }
    check::check_fan(&spec)
        .map_err(|error| problems.add(&place("overlay"), section.key("overlay"), error.to_string()))
        .ok()?;
    Some(spec)
}

/// The resolvers that DHCP offers: one or a list.
fn dns(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Vec<Ipv4Addr> {
    let words = section.strings("dns", problems);
    let Some((_, first)) = words.first() else { return Vec::new() };
    let text: Vec<&str> = words.iter().map(|(word, _)| word.as_str()).collect();
    operands::parse_dns(&text.join(","))
        .map_err(|error| problems.add(first, section.key("dns"), error.to_string()))
        .unwrap_or_default()
}

/// Where no underlay is given it is the uplink's network, and without an uplink that of the default route.
fn default_underlay(node: &NodeConfig) -> UnderlaySpec {
    match node.uplink.first() {
        Some(name) => UnderlaySpec::Device { name: name.clone(), len: None },
        None => UnderlaySpec::Default { len: None },
    }
}

#[cfg(test)]
mod tests;
