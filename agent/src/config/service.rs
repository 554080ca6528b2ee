//! `[[service]]`: text → [`Service`], and what contradicts itself, other services or the fans.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
};

use dataplane_common::abi::{MAX_SERVICE_BACKENDS, MAX_SERVICES};
use ipnet::Ipv4Net;

use super::{
    problem::{Problem, Problems},
    section::{Keys, Section},
};
use crate::service::{Algorithm, Backend, Forward, Service, Vip};

const SERVICE: Keys = Keys {
    known: &["name", "vip", "forward", "algorithm", "affinity", "affinity-timeout", "backends"],
    later: &["check"],
};
const BACKEND: Keys = Keys { known: &["address", "weight"], later: &[] };

/// Longest name of a service: a label of a host name (RFC 1035).
const MAX_NAME: usize = 63;

/// A service, and where its addresses stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) service: Service,
    vip_line: usize,
    backend_lines: Vec<usize>,
}

/// All services that are right.
pub(super) fn services(root: &Section<'_, '_>, problems: &mut Problems<'_>) -> Vec<Placed> {
    let mut services: Vec<Placed> = Vec::new();
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut vips: HashMap<Vip, usize> = HashMap::new();
    for section in root.tables("service", problems) {
        let Some(placed) = service(&section, problems) else { continue };
        let place = services.len();
        let Service { name, vip, .. } = &placed.service;
        if names.insert(name.clone(), place).is_some() {
            let why = format!("'{name}' is another service's name too; give each its own");
            problems.add(&section.place("name"), section.key("name"), why);
        }
        if let Some(other) = vips.insert(*vip, place) {
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
    for (key, such) in [("name", "web"), ("vip", "10.96.0.10:80/tcp")] {
        if section.get(key).is_none() {
            problems.add(&section.span, section.key(key), format!("is missing; add one such as \"{such}\""));
        }
    }
    let name = section.parsed("name", parse_name, problems);
    let vip = section.parsed("vip", parse_vip, problems);
    section.parsed("forward", parse_forward, problems);
    let algorithm = section.parsed("algorithm", parse_algorithm, problems);
    section.parsed("affinity", parse_affinity, problems);
    section.parsed("affinity-timeout", parse_duration, problems);
    let backends = backends(section, vip, problems);
    let (backends, backend_lines) = backends.into_iter().unzip();
    let service = Service { name: name?, vip: vip?, algorithm: algorithm.unwrap_or_default(), backends };
    Some(Placed { service, vip_line: problems.line(&section.place("vip")), backend_lines })
}

/// The backends that are right, each with its line.
fn backends(
    section: &Section<'_, '_>,
    vip: Option<Vip>,
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
        let address = section.parsed("address", |text| parse_backend(text, vip), problems);
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
    Err(format!("'{text}' is no name of a service; use 1 to {MAX_NAME} letters, digits, '-', '_' and '.'"))
}

fn parse_vip(text: &str) -> Result<Vip, String> {
    if text.starts_with("auto:") {
        return Err(format!("'{text}' is not supported by this version; give an address"));
    }
    let vip: Vip = text.parse().map_err(|error: crate::service::VipError| error.to_string())?;
    let IpAddr::V4(address) = vip.address else {
        return Err(format!("'{text}': IPv6 is not supported by this version; give an IPv4 address"));
    };
    match unusable(address) {
        Some(why) => Err(format!("{address} is {why}; give an unused address")),
        None => Ok(vip),
    }
}

/// Why an address can't be a VIP's.
fn unusable(address: Ipv4Addr) -> Option<&'static str> {
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
        other => Err(format!("'{other}' is unknown; use nat")),
    }
}

fn parse_algorithm(text: &str) -> Result<Algorithm, String> {
    match text {
        "maglev" => Ok(Algorithm::Maglev),
        "random" => Ok(Algorithm::Random),
        "least-loaded" => {
            Err("'least-loaded' is not supported by this version; use maglev or random".to_owned())
        }
        other => Err(format!("'{other}' is unknown; use maglev or random")),
    }
}

fn parse_affinity(text: &str) -> Result<(), String> {
    match text {
        "none" => Ok(()),
        "client" => Err("'client' is not supported by this version; use none".to_owned()),
        other => Err(format!("'{other}' is unknown; use none")),
    }
}

/// Checked, so that a slip shows before affinity is used.
fn parse_duration(text: &str) -> Result<(), String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(number).unwrap_or_default();
    if number.parse::<u32>().is_ok_and(|number| number > 0) && ["ms", "s", "m", "h", "d"].contains(&unit) {
        return Ok(());
    }
    Err(format!("'{text}' is no duration; write a number and ms, s, m, h or d, such as 3h"))
}

fn parse_backend(text: &str, vip: Option<Vip>) -> Result<SocketAddr, String> {
    let address = text
        .parse::<SocketAddr>()
        .map_err(|_other| format!("'{text}' is no backend; write ADDRESS:PORT, such as 250.0.27.3:8080"))?;
    if address.is_ipv6() {
        return Err(format!("'{text}': IPv6 is not supported by this version; give an IPv4 address"));
    }
    match vip.map(|vip| (vip.port, address.port())) {
        Some((0, 1..)) => Err(format!(
            "port {} can't serve a VIP of any port; use port 0, which keeps the client's",
            address.port()
        )),
        Some((port @ 1.., 0)) => {
            Err(format!("port 0 is for VIPs of any port; name the one that serves port {port}"))
        }
        _ => Ok(address),
    }
}

/// What contradicts the fans: VIPs that are inside one, and backends that are not.
pub(super) fn check_fans(services: &[Placed], overlays: &[Ipv4Net]) -> Vec<Problem> {
    let overlay_of = |address: IpAddr| match address {
        IpAddr::V4(address) => overlays.iter().find(|overlay| overlay.contains(&address)),
        IpAddr::V6(_) => None,
    };
    let mut problems = Vec::new();
    for Placed { service, vip_line, backend_lines } in services {
        if let Some(overlay) = overlay_of(service.vip.address) {
            let message =
                format!("{} lies in overlay {overlay}; give an unused address", service.vip.address);
            problems.push(Problem { line: Some(*vip_line), key: "service.vip".to_owned(), message });
        }
        for (backend, &line) in service.backends.iter().zip(backend_lines) {
            if overlay_of(backend.address).is_none() {
                let message = format!(
                    "{} lies in no fan of this node; backends elsewhere are not supported by this version",
                    backend.socket()
                );
                problems.push(Problem {
                    line: Some(line),
                    key: "service.backends.address".to_owned(),
                    message,
                });
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests;
