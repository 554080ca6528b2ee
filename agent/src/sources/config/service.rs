//! Services as text, in `fanlight.toml` or by themselves: text → [`Service`], and what contradicts itself, other
//! services or the fans.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    sync::Arc,
};

use control::{
    desired::NO_RANGE,
    model::quoted,
    service::{Algorithm, Backend, Declared, Forward, Protocol, Vip, VipSpec},
};
use dataplane_common::abi::{MAX_SERVICE_BACKENDS, MAX_SERVICES};
use ipnet::Ipv4Net;

use super::{
    format::Format,
    health::{self, Of},
    json,
    problem::{Problem, Problems},
    section::{Keys, Section},
    tree::{self, Value},
    yaml,
};

mod addresses;

pub use addresses::{check_addresses, check_beside};

/// Services by themselves.
const DOCUMENT: Keys = Keys { known: &["service"], later: &[] };

const SERVICE: Keys = Keys {
    known: &["name", "vip", "forward", "algorithm", "affinity", "check", "on-down", "backends", "labels"],
    later: &["affinity-timeout"],
};
const BACKEND: Keys = Keys { known: &["address", "weight"], later: &[] };

/// Tables as the documentation names them, with their keys.
#[cfg(test)]
pub(super) const TABLES: [(&str, &Keys); 3] =
    [("`[[service]]`", &SERVICE), ("backend", &BACKEND), ("check", &health::CHECK)];

/// Longest name of a service: a label of a host name (RFC 1035).
const MAX_NAME: usize = 63;

/// A service, and where its addresses stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The service.
    pub service: Declared,
    name_line: usize,
    vip_line: usize,
    backend_lines: Vec<usize>,
}

impl Placed {
    /// What is wrong with its name.
    pub fn wrong_name(&self, message: impl Into<String>) -> Problem {
        Problem { line: Some(self.name_line), key: "service.name".to_owned(), message: message.into() }
    }

    /// What is wrong with its VIP.
    pub fn wrong_vip(&self, message: impl Into<String>) -> Problem {
        Problem { line: Some(self.vip_line), key: "service.vip".to_owned(), message: message.into() }
    }

    /// What is wrong with one of its backends, by place.
    pub fn wrong_backend(&self, place: usize, message: String) -> Problem {
        let line = self.backend_lines.get(place).copied();
        Problem { line, key: "service.backends.address".to_owned(), message }
    }
}

/// Parses and checks services that stand by themselves, or gives everything that is wrong with them.
pub fn parse(text: &str, format: Format) -> Result<Vec<Placed>, Vec<Problem>> {
    let mut problems = Problems::new(text, format);
    let root = match format {
        Format::Toml => tree::parse_toml(text, &mut problems),
        Format::Yaml => yaml::parse(text, &mut problems),
        Format::Json => json::parse(text, &mut problems),
    };
    let mut found = Vec::new();
    if let Some(root) = &root {
        if let Value::Table(table) = &root.value {
            let root = Section::new("", root.span.clone(), table);
            root.check_keys(&DOCUMENT, &mut problems);
            if root.get("service").is_none() {
                problems.add(
                    &root.span,
                    "service",
                    format!("is missing; write {} of services", format.list()),
                );
            }
            found = services(&root, &mut problems);
        } else {
            let (kind, table, list) = (root.value.kind(format), format.table(), format.list());
            let message = format!("is {kind}, must be {table} with {list} 'service'");
            problems.add(&root.span, "", message);
        }
    }
    if problems.none() { Ok(found) } else { Err(problems.into_sorted()) }
}

/// All services that are right.
pub(super) fn services(root: &Section<'_, '_>, problems: &mut Problems<'_>) -> Vec<Placed> {
    let mut services: Vec<Placed> = Vec::new();
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut vips: HashMap<VipSpec, usize> = HashMap::new();
    for section in root.tables("service", problems) {
        let Some(placed) = service(&section, problems) else { continue };
        let place = services.len();
        let Declared { name, vip, .. } = &placed.service;
        if names.insert(name.clone(), place).is_some() {
            let why = format!("'{name}' is another service's name too; give each its own");
            problems.add(&section.place("name"), section.key("name"), why);
        }
        if let Some(other) = vips.insert(vip.clone(), place) {
            let other = services.get(other).map_or("another", |other| other.service.name.as_str());
            let why = format!("{vip} is the VIP of service {other}; give each its own");
            problems.add(&section.place("vip"), section.key("vip"), why);
        }
        services.push(placed);
        if services.len() == MAX_SERVICES as usize + 1 {
            problems.add(
                &section.span,
                "service",
                format!("a node has at most {MAX_SERVICES} services; remove some"),
            );
        }
    }
    services
}

fn service(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Option<Placed> {
    section.check_keys(&SERVICE, problems);
    if section.get("name").is_none() {
        problems.add(&section.span, section.key("name"), "is missing; add one such as \"web\"");
    }
    let name = section.parsed("name", parse_name, problems);
    let (vip, vip_place) = vip(section, name.as_deref(), problems);
    section.parsed("forward", parse_forward, problems);
    let algorithm = section.parsed("algorithm", parse_algorithm, problems);
    section.parsed("affinity", parse_affinity, problems);
    if section.get("backends").is_none() {
        let why = format!(
            "is missing; list the backends, or write {} for a service that has none",
            problems.format.empty("backends")
        );
        problems.add(&section.span, section.key("backends"), why);
    }
    let has_ports = vip.as_ref().is_none_or(|vip| vip.port() > 0);
    let checking = health::checking(section, Of::Backends { has_ports }, problems).map(Arc::new);
    let backends = backends(section, vip.as_ref().map(VipSpec::port), problems);
    let (backends, backend_lines) = backends.into_iter().unzip();
    let algorithm = algorithm.unwrap_or_default();
    let service = Declared { name: name?, vip: vip?, algorithm, checking, backends };
    let name_line = problems.line(&section.place("name"));
    Some(Placed { service, name_line, vip_line: problems.line(&vip_place), backend_lines })
}

/// The VIP, given as such or by labels, and where it stands. All that name one name the same.
fn vip(
    section: &Section<'_, '_>,
    name: Option<&str>,
    problems: &mut Problems<'_>,
) -> (Option<VipSpec>, Range<usize>) {
    let mut found: Vec<(Option<VipSpec>, Range<usize>)> = Vec::new();
    if section.get("vip").is_some() {
        found.push((section.parsed("vip", |text| parse_vip(text, name), problems), section.place("vip")));
    }
    if let Some(table) = section.table("labels", problems) {
        let is_vip = |name: &str| name.to_ascii_uppercase().contains("VIP");
        for (key, _) in table.entries().filter(|(key, _)| is_vip(&key.name)) {
            let vip = table.parsed(&key.name, parse_label, problems);
            if let (Some(vip), Some(former)) = (&vip, found.iter().find_map(|(former, _)| former.as_ref()))
                && vip != former
            {
                let why = format!("{vip} is another VIP than {former}; make a service of each");
                problems.add(&key.span, table.key(&key.name), why);
            }
            found.push((vip, key.span.clone()));
        }
    }
    if found.is_empty() {
        let why = "is missing; add one such as \"10.96.0.10:80/tcp\"";
        problems.add(&section.span, section.key("vip"), why);
    }
    let place = found.first().map_or_else(|| section.place("vip"), |(_, place)| place.clone());
    (found.into_iter().find_map(|(vip, _)| vip), place)
}

/// The backends that are right, each with its line.
fn backends(
    section: &Section<'_, '_>,
    vip_port: Option<u16>,
    problems: &mut Problems<'_>,
) -> Vec<(Backend, usize)> {
    let mut backends = Vec::new();
    let mut sockets: HashMap<SocketAddr, Range<usize>> = HashMap::new();
    for section in section.tables("backends", problems) {
        section.check_keys(&BACKEND, problems);
        let place = section.place("address");
        if section.get("address").is_none() {
            problems.add(&place, section.key("address"), "is missing; add one such as \"250.0.27.3:8080\"");
        }
        let address = section.parsed("address", |text| parse_backend(text, vip_port), problems);
        let weight = section.count("weight", problems).unwrap_or(1);
        let Some(address) = address else { continue };
        if sockets.insert(address, place.clone()).is_some() {
            problems.add(&place, section.key("address"), format!("{address} is listed twice; list it once"));
            continue;
        }
        backends
            .push((Backend { address: address.ip(), port: address.port(), weight }, problems.line(&place)));
    }
    let most = MAX_SERVICE_BACKENDS as usize;
    if backends.len() > most {
        let why = format!("a service has at most {most} backends; remove {}", backends.len() - most);
        problems.add(&section.place("backends"), section.key("backends"), why);
    }
    backends
}

fn parse_name(text: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !text.is_empty() && text.len() <= MAX_NAME && text.chars().all(valid) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} is no name of a service; use 1 to {MAX_NAME} letters, digits, '-', '_' and '.'",
        quoted(text)
    ))
}

/// A VIP of a service of this name.
fn parse_vip(text: &str, name: Option<&str>) -> Result<VipSpec, String> {
    if let Some(place) = text.strip_prefix("auto:") {
        let parts = place.split_once('/');
        let parts =
            parts.and_then(|(port, protocol)| Some((port.parse().ok()?, Protocol::from_name(protocol)?)));
        let (port, protocol) = parts.ok_or_else(|| {
            format!("{} is no VIP; write auto:PORT/tcp or auto:PORT/udp, such as auto:80/tcp", quoted(text))
        })?;
        // A service without a name is refused for that.
        return VipSpec::named(name.unwrap_or("-"), port, protocol).map_err(|error| error.to_string());
    }
    let vip: Vip = text.parse().map_err(|error: control::service::VipError| error.to_string())?;
    let IpAddr::V4(address) = vip.address else {
        return Err(format!("{}: IPv6 is not supported by this version; give an IPv4 address", quoted(text)));
    };
    match unusable(address) {
        Some(why) => Err(format!("{address} is {why}; give an unused address")),
        None => Ok(vip.into()),
    }
}

/// A VIP as Minuteman's labels have it: `ADDRESS:PORT` or `/NAME:PORT`, with `tcp://` or `udp://` before it; TCP without.
fn parse_label(text: &str) -> Result<VipSpec, String> {
    let (protocol, socket) = text.split_once("://").unwrap_or(("tcp", text));
    let vip = format!("{socket}/{protocol}");
    match vip.parse() {
        Ok(VipSpec::At(_)) => parse_vip(&vip, None),
        Ok(named) => Ok(named),
        Err(_other) => Err(format!(
            "{} is no VIP; write ADDRESS:PORT or /NAME:PORT, with tcp:// or udp:// before it, such as 10.96.0.10:80",
            quoted(text)
        )),
    }
}

/// Named VIPs where no range has addresses for them.
pub fn check_range(services: &[Placed], range: Option<Ipv4Net>) -> Vec<Problem> {
    let named = services.iter().filter(|placed| range.is_none() && placed.service.vip.at().is_none());
    named.map(|placed| placed.wrong_vip(NO_RANGE)).collect()
}

/// Why an address can't be a VIP's or a backend's.
pub(super) fn unusable(address: Ipv4Addr) -> Option<&'static str> {
    let [first, ..] = address.octets();
    match first {
        0 => Some("no host's address (RFC 1122)"),
        127 => Some("a loopback address"),
        224..=239 => Some("a multicast address"),
        240..=255 if address.is_broadcast() => Some("the broadcast address"),
        _ => None,
    }
}

fn parse_forward(text: &str) -> Result<Forward, String> {
    match text {
        "nat" => Ok(Forward::Nat),
        "tunnel" => Err("'tunnel' is not supported by this version; use nat".to_owned()),
        other => Err(format!("{} is unknown; use nat", quoted(other))),
    }
}

fn parse_algorithm(text: &str) -> Result<Algorithm, String> {
    match text {
        "maglev" => Ok(Algorithm::Maglev),
        "random" => Ok(Algorithm::Random),
        "least-loaded" => {
            Err("'least-loaded' is not supported by this version; use maglev or random".to_owned())
        }
        other => Err(format!("{} is unknown; use maglev or random", quoted(other))),
    }
}

fn parse_affinity(text: &str) -> Result<(), String> {
    match text {
        "none" => Ok(()),
        "client" => Err("'client' is not supported by this version; use none".to_owned()),
        other => Err(format!("{} is unknown; use none", quoted(other))),
    }
}

/// A backend of a service whose VIP has this port.
fn parse_backend(text: &str, vip_port: Option<u16>) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().map_err(|_other| {
        format!("{} is no backend; write ADDRESS:PORT, such as 250.0.27.3:8080", quoted(text))
    })?;
    check_backend(address, vip_port).map(|()| address)
}

/// Whether an address can be a backend of a service whose VIP has a port, where that is known.
///
/// # Errors
/// It can't, and why.
pub fn check_backend(address: SocketAddr, vip_port: Option<u16>) -> Result<(), String> {
    let IpAddr::V4(host) = address.ip() else {
        return Err(format!("'{address}': IPv6 is not supported by this version; give an IPv4 address"));
    };
    if let Some(why) = unusable(host) {
        return Err(format!("{host} is {why}; give an address of the backend that other hosts reach"));
    }
    match vip_port.map(|port| (port, address.port())) {
        Some((0, 1..)) => Err(format!(
            "port {} can't serve a VIP of any port; use port 0, which keeps the client's",
            address.port()
        )),
        Some((port @ 1.., 0)) => {
            Err(format!("port 0 is for VIPs of any port; name the one that serves port {port}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
