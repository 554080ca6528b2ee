//! fanctl's operands: `OVERLAY UNDERLAY FLAGS...`, on the command line and in the file of fans.

use std::net::Ipv4Addr;

use control::model::{Egress, Encapsulation, FanSpec, UnderlaySpec, dns_words, quoted};
use ipnet::Ipv4Net;
use thiserror::Error;

/// Addresses of a slice that are left alone unless asked otherwise: the gateway.
pub const DEFAULT_HOST_RESERVE: u32 = 1;
/// Length of an underlay that is given as an address alone, as fanctl has it.
const CLASSIC_UNDERLAY_LEN: u8 = 16;
/// Resolvers that a client asks (`MAXNS`).
const MAX_RESOLVERS: usize = 3;
/// Bytes of the longest interface name (`IFNAMSIZ` less the terminator).
const MAX_INTERFACE_NAME: usize = 15;

/// What is wrong with operands; the message says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OperandError {
    /// The words can't be parsed.
    #[error("{0}")]
    Words(String),
    /// They can be parsed, but contradict each other or ask for what this version lacks.
    #[error("{0}")]
    Contradiction(String),
}

/// The operands of one fan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FanLine {
    /// The fan.
    pub spec: FanSpec,
    /// `off`: the line is there, the fan is not wanted.
    pub off: bool,
    /// `auto`: the fan belongs to `up -a` and `down -a`, as every line of the file does.
    pub auto: bool,
}

/// Parses `OVERLAY UNDERLAY FLAGS...`; only the words, not whether they make a fan.
pub fn parse_fan<S: AsRef<str>>(words: &[S]) -> Result<FanLine, OperandError> {
    let mut words = words.iter().map(AsRef::as_ref);
    let missing = |what: &str| {
        OperandError::Words(format!(
            "{what} is missing; give OVERLAY UNDERLAY, such as '250.0.0.0/8 eth0/16'"
        ))
    };
    let overlay = parse_overlay(words.next().ok_or_else(|| missing("the overlay"))?)?;
    let underlay = parse_underlay(words.next().ok_or_else(|| missing("the underlay"))?)?;
    let mut flags = Flags::default();
    while let Some(word) = words.next() {
        flags.take(word, &mut words)?;
    }
    Ok(FanLine {
        spec: FanSpec {
            overlay,
            underlay,
            encapsulation: flags.encapsulation.unwrap_or_default(),
            host_reserve: flags.host_reserve.unwrap_or(DEFAULT_HOST_RESERVE),
            egress: flags.egress.unwrap_or_default(),
            bridge: flags.bridge,
            dhcp: flags.dhcp.is_some(),
            dns: flags.dns.unwrap_or_default(),
        },
        off: flags.off.is_some(),
        auto: flags.auto.is_some(),
    })
}

/// The operands that [`parse_fan`] reads back as `line`.
pub fn format_fan(line: &FanLine) -> String {
    let FanSpec { overlay, underlay, encapsulation, host_reserve, egress, bridge, dhcp, dns } = &line.spec;
    let mut words = format!("{overlay} {underlay}");
    for (given, word) in [(*dhcp, "dhcp"), (line.off, "off"), (line.auto, "auto")] {
        if given {
            words.push_str(&format!(" {word}"));
        }
    }
    if !dns.is_empty() {
        words.push_str(&format!(" dns {}", dns_words(dns)));
    }
    if *host_reserve != DEFAULT_HOST_RESERVE {
        words.push_str(&format!(" host-reserve {host_reserve}"));
    }
    if let Some(bridge) = bridge {
        words.push_str(&format!(" bridge {bridge}"));
    }
    if *encapsulation != Encapsulation::default() {
        words.push_str(&format!(" encap {encapsulation}"));
    }
    if *egress != Egress::default() {
        words.push_str(&format!(" egress {egress}"));
    }
    words
}

/// Flags that follow the two networks; each may be given once.
#[derive(Default)]
struct Flags {
    dhcp: Option<()>,
    dns: Option<Vec<Ipv4Addr>>,
    off: Option<()>,
    auto: Option<()>,
    host_reserve: Option<u32>,
    bridge: Option<String>,
    encapsulation: Option<Encapsulation>,
    egress: Option<Egress>,
}

impl Flags {
    const NAMES: [&str; 8] = ["dhcp", "dns", "off", "auto", "host-reserve", "bridge", "encap", "egress"];

    fn take<'a>(&mut self, flag: &str, rest: &mut impl Iterator<Item = &'a str>) -> Result<(), OperandError> {
        let mut value = |example: &str| {
            rest.next().ok_or_else(|| {
                OperandError::Words(format!("'{flag}' needs a value; write '{flag} {example}'"))
            })
        };
        match flag {
            "dhcp" => once(&mut self.dhcp, (), flag),
            "off" => once(&mut self.off, (), flag),
            "auto" => once(&mut self.auto, (), flag),
            "dns" => once(&mut self.dns, parse_dns(value("10.0.0.2")?)?, flag),
            // fanctl's first word for it was 'local'.
            "host-reserve" | "local" => {
                once(&mut self.host_reserve, parse_host_reserve(value("1")?)?, "host-reserve")
            }
            "bridge" => once(&mut self.bridge, parse_bridge(value("fan-250-0-28")?)?, flag),
            "encap" => once(&mut self.encapsulation, parse_encapsulation(value("ipip")?)?, flag),
            "egress" => once(&mut self.egress, parse_egress(value("masquerade")?)?, flag),
            other => Err(OperandError::Words(format!(
                "{} is no flag of a fan; {}",
                quoted(other),
                super::suggest(other, &Self::NAMES).unwrap_or_else(|| {
                    "use dhcp, dns ADDRESS, host-reserve N, bridge NAME, encap KIND, egress KIND, off or auto".to_owned()
                })
            ))),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T, flag: &str) -> Result<(), OperandError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(OperandError::Words(format!("'{flag}' is given twice; give it once"))),
    }
}

/// Parses an overlay: `N` is N.0.0.0/8, anything else is `ADDRESS/LENGTH`.
pub fn parse_overlay(text: &str) -> Result<Ipv4Net, OperandError> {
    if let Ok(first) = text.parse::<u8>() {
        return Ok(Ipv4Net::new_assert(Ipv4Addr::new(first, 0, 0, 0), 8));
    }
    if text.contains(':') {
        return Err(OperandError::Contradiction(format!(
            "overlay {}: IPv6 overlays are not supported by this version; \
             use an IPv4 network such as 250.0.0.0/8",
            quoted(text)
        )));
    }
    text.parse().map_err(|_reason| {
        OperandError::Words(format!(
            "{} is no overlay; use N for N.0.0.0/8, or a network such as 250.0.0.0/8",
            quoted(text)
        ))
    })
}

/// Parses an underlay: `default`, a device, or an address, each with an optional `/LENGTH`.
///
/// An address alone is /16, and so is `default`, as fanctl has them. An address with host bits is this host's own ([`UnderlaySpec::Host`]).
pub fn parse_underlay(text: &str) -> Result<UnderlaySpec, OperandError> {
    let wrong = || {
        OperandError::Words(format!(
            "{} is no underlay; use a network such as 172.30.0.0/16, \
             a device such as eth0 or eth0/16, or default",
            quoted(text)
        ))
    };
    if text.contains(':') {
        return Err(OperandError::Contradiction(format!(
            "underlay {}: underlays are IPv4; use a network such as 172.30.0.0/16",
            quoted(text)
        )));
    }
    let (name, len) = match text.split_once('/') {
        Some((name, len)) => (name, Some(parse_len(len).ok_or_else(wrong)?)),
        None => (text, None),
    };
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        let net = Ipv4Net::new(address, len.unwrap_or(CLASSIC_UNDERLAY_LEN)).map_err(|_reason| wrong())?;
        return Ok(if net.trunc() == net { UnderlaySpec::Network(net) } else { UnderlaySpec::Host(net) });
    }
    // No device has such a name; it is an address with a slip in it.
    if name.bytes().all(|b| b.is_ascii_digit() || b == b'.') || !is_interface_name(name) {
        return Err(wrong());
    }
    Ok(match name {
        "default" => UnderlaySpec::Default { len: len.or(Some(CLASSIC_UNDERLAY_LEN)) },
        name => UnderlaySpec::Device { name: name.to_owned(), len },
    })
}

/// A prefix length, written as the kernel prints it.
fn parse_len(text: &str) -> Option<u8> {
    text.parse().ok().filter(|&len| len <= 32 && text.bytes().all(|b| b.is_ascii_digit()))
}

fn parse_host_reserve(text: &str) -> Result<u32, OperandError> {
    text.parse().map_err(|_reason| {
        OperandError::Words(format!(
            "host-reserve {} is no number of addresses; use a number such as 1",
            quoted(text)
        ))
    })
}

/// Parses the resolvers that DHCP offers: addresses with commas between.
pub fn parse_dns(text: &str) -> Result<Vec<Ipv4Addr>, OperandError> {
    let mut resolvers: Vec<Ipv4Addr> = Vec::new();
    for word in text.split(',') {
        let resolver: Ipv4Addr = word.parse().map_err(|_reason| {
            OperandError::Words(format!(
                "dns {} is no address of a resolver; use IPv4 addresses such as 10.0.0.2,10.0.0.3",
                quoted(word)
            ))
        })?;
        if resolvers.contains(&resolver) {
            return Err(OperandError::Words(format!("dns {resolver} is listed twice; list it once")));
        }
        resolvers.push(resolver);
    }
    if resolvers.len() > MAX_RESOLVERS {
        return Err(OperandError::Words(format!(
            "dns names {} resolvers; use at most {MAX_RESOLVERS}, as many as a client asks (resolv.conf(5))",
            resolvers.len()
        )));
    }
    Ok(resolvers)
}

/// Parses the name of a bridge.
pub fn parse_bridge(text: &str) -> Result<String, OperandError> {
    if is_interface_name(text) {
        return Ok(text.to_owned());
    }
    Err(OperandError::Words(format!(
        "{} is no name of a device; \
         use 1 to {MAX_INTERFACE_NAME} characters without '/', ':' and spaces",
        quoted(text)
    )))
}

/// Parses an encapsulation; known ones that this version lacks are a contradiction, not a slip.
pub fn parse_encapsulation(text: &str) -> Result<Encapsulation, OperandError> {
    text.parse().map_err(|reason: String| match text {
        "gre" | "vxlan" | "gue" => OperandError::Contradiction(reason),
        _ => OperandError::Words(reason),
    })
}

/// Parses what happens to packets that leave the overlay.
pub fn parse_egress(text: &str) -> Result<Egress, OperandError> {
    text.parse().map_err(OperandError::Words)
}

/// Whether the kernel takes `name` as an interface's (`dev_valid_name`).
pub fn is_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_INTERFACE_NAME
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests;
