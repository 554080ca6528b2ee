//! `[bgp]` and `[[bgp.peer]]`: this node as a speaker, and its peers.

use std::{
    fmt, fs,
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use control::{bgp::Ttl, model::quoted};

use super::{
    problem::{Problem, Problems},
    section::{Keys, Section},
};

pub(super) const BGP: Keys = Keys {
    known: &["asn", "router-id", "hold-time", "graceful-restart", "listen", "drain", "peer"],
    later: &[],
};
pub(super) const PEER: Keys = Keys {
    known: &["address", "asn", "port", "source", "password-file", "ttl-security", "multihop"],
    later: &[],
};

const HOLD_TIME: u16 = 9;
/// Shortest hold time but none (RFC 4271, section 4.2).
const MIN_HOLD_TIME: u16 = 3;
const GRACEFUL_RESTART: u16 = 120;
/// Longest time that fits into the capability's 12 bits (RFC 4724, section 3).
const MAX_GRACEFUL_RESTART: u16 = 4095;
const DRAIN: Duration = Duration::from_secs(10);
const MAX_DRAIN: u16 = 600;
const PORT: u16 = 179;
const MAX_PEERS: usize = 64;
/// `TCP_MD5SIG_MAXKEYLEN`
const MAX_PASSWORD: u64 = 80;

/// `[bgp]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpConfig {
    pub asn: u32,
    /// The BGP identifier; the uplink's address when absent.
    pub router_id: Option<Ipv4Addr>,
    /// Seconds that are offered; 0 for none.
    pub hold_time: u16,
    /// Seconds that peers keep routes while the agent is away; 0: they don't.
    pub graceful_restart: u16,
    /// Where peers may connect, one address a family; nowhere when empty.
    pub listen: Vec<SocketAddr>,
    /// From GRACEFUL_SHUTDOWN to the withdrawal.
    pub drain: Duration,
    pub peers: Vec<PeerConfig>,
}

/// `[[bgp.peer]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    pub address: IpAddr,
    pub asn: u32,
    pub port: u16,
    /// Our end's address; the routing table's choice when absent.
    pub source: Option<IpAddr>,
    pub ttl: Ttl,
    pub password_file: Option<PathBuf>,
    /// What is in it.
    pub password: Option<Password>,
}

/// A key of TCP-MD5 (RFC 2385). `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Arc<[u8]>);

impl Password {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password")
    }
}

/// Reads the table, as far as it can be read; files of passwords are still to be read.
pub(super) fn bgp(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Option<BgpConfig> {
    section.check_keys(&BGP, problems);
    let asn = asn(section, problems);
    let hold_time = section.parsed("hold-time", hold_time, problems).unwrap_or(HOLD_TIME);
    let graceful_restart = |text: &str| seconds(text, MAX_GRACEFUL_RESTART);
    let graceful_restart = section.parsed("graceful-restart", graceful_restart, problems);
    let drain = section.parsed("drain", |text| seconds(text, MAX_DRAIN), problems);
    let config = BgpConfig {
        router_id: section.parsed("router-id", router_id, problems),
        hold_time,
        graceful_restart: graceful_restart.unwrap_or(GRACEFUL_RESTART),
        listen: listen(section, problems),
        drain: drain.map_or(DRAIN, |drain| Duration::from_secs(drain.into())),
        peers: peers(section, asn, problems),
        asn: asn?,
    };
    Some(config)
}

fn asn(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Option<u32> {
    if section.get("asn").is_none() {
        problems.add(&section.span, section.key("asn"), "is missing; add a number such as 65147");
    }
    let asn = section.count("asn", problems)?;
    if asn == 0 {
        let why = format!("0 is no number of an AS; use 1 to {}", u32::MAX);
        problems.add(&section.place("asn"), section.key("asn"), why);
        return None;
    }
    Some(asn)
}

/// Whole seconds such as `9s`.
pub(super) fn seconds(text: &str, most: u16) -> Result<u16, String> {
    let number = text.strip_suffix('s').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = number.and_then(|digits| digits.parse::<u64>().ok());
    let number =
        number.ok_or_else(|| format!("{} is no time; write whole seconds such as 9s", quoted(text)))?;
    u16::try_from(number)
        .ok()
        .filter(|seconds| *seconds <= most)
        .ok_or_else(|| format!("{number}s is too long; use at most {most}s"))
}

fn hold_time(text: &str) -> Result<u16, String> {
    match seconds(text, u16::MAX)? {
        0 => Ok(0),
        short if short < MIN_HOLD_TIME => {
            Err(format!("{short}s is too short; use at least {MIN_HOLD_TIME}s, or 0s for none"))
        }
        hold_time => Ok(hold_time),
    }
}

fn router_id(text: &str) -> Result<Ipv4Addr, String> {
    let address = text.parse::<Ipv4Addr>().ok();
    let usable = address.filter(|id| !id.is_unspecified() && !id.is_multicast() && !id.is_broadcast());
    usable.ok_or_else(|| {
        format!("{} is no IPv4 address of one host; write one such as 10.20.151.147", quoted(text))
    })
}

fn listen(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for (text, span) in section.strings("listen", problems) {
        let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() > 0);
        let why = match address {
            None => {
                format!("{} is no ADDRESS:PORT; write one such as 10.20.151.147:179", quoted(&text))
            }
            Some(address) if found.iter().any(|other| other.is_ipv4() == address.is_ipv4()) => {
                "has two addresses of one family; use one".to_owned()
            }
            Some(address) => {
                found.push(address);
                continue;
            }
        };
        problems.add(&span, section.key("listen"), why);
    }
    found
}

fn peers(section: &Section<'_, '_>, own: Option<u32>, problems: &mut Problems<'_>) -> Vec<PeerConfig> {
    let mut peers: Vec<PeerConfig> = Vec::new();
    for section in section.tables("peer", problems) {
        let Some(peer) = peer(&section, own, problems) else { continue };
        if peers.iter().any(|other| other.address == peer.address) {
            let why = format!("{} is another peer's too; list it once", peer.address);
            problems.add(&section.place("address"), section.key("address"), why);
        } else if peers.len() == MAX_PEERS {
            let why = format!("a node has at most {MAX_PEERS} peers; use route reflectors");
            problems.add(&section.span, "bgp.peer", why);
            break;
        } else {
            peers.push(peer);
        }
    }
    peers
}

fn peer(section: &Section<'_, '_>, own: Option<u32>, problems: &mut Problems<'_>) -> Option<PeerConfig> {
    section.check_keys(&PEER, problems);
    if section.get("address").is_none() {
        let why = "is missing; add the peer's address, such as \"10.20.151.129\"";
        problems.add(&section.span, section.key("address"), why);
    }
    let address = section.parsed("address", host, problems);
    let asn = asn(section, problems);
    let source = section.parsed("source", host, problems);
    if let (Some(address), Some(source)) = (address, source)
        && address.is_ipv4() != source.is_ipv4()
    {
        let why = format!("{source} is of another family than {address}; use one of the peer's");
        problems.add(&section.place("source"), section.key("source"), why);
    }
    let path = |text: &str| match text.starts_with('/') {
        true => Ok(PathBuf::from(text)),
        false => Err(format!(
            "{} is no path of a file from the root on; write one such as /etc/fanlight/bgp.key",
            quoted(text)
        )),
    };
    let password_file = section.parsed("password-file", path, problems);
    let ttl = ttl(section, asn.is_some() && asn == own, problems);
    let port = port(section, problems);
    Some(PeerConfig { address: address?, asn: asn?, port, source, ttl, password_file, password: None })
}

fn host(text: &str) -> Result<IpAddr, String> {
    let address = text.parse::<IpAddr>().map_err(|_other| {
        format!("{} is no address; write one such as 10.20.151.129 or 2001:db8::1", quoted(text))
    })?;
    let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    if address.is_unspecified() || address.is_multicast() || is_link_local {
        return Err(format!("{address} names no host by itself; use a global address"));
    }
    Ok(address)
}

fn port(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> u16 {
    let Some(port) = section.count("port", problems) else { return PORT };
    u16::try_from(port).ok().filter(|port| *port > 0).unwrap_or_else(|| {
        let why = format!("{port} is no port; use 1 to 65535");
        problems.add(&section.place("port"), section.key("port"), why);
        PORT
    })
}

fn ttl(section: &Section<'_, '_>, is_internal: bool, problems: &mut Problems<'_>) -> Ttl {
    let is_secure = section.switch("ttl-security", problems).unwrap_or_default();
    let hops = section.count("multihop", problems);
    let mut refuse = |why: String| problems.add(&section.place("multihop"), section.key("multihop"), why);
    match hops {
        Some(_) if is_secure => {
            refuse("contradicts ttl-security, which is for peers on the same wire; remove one".to_owned());
        }
        Some(_) if is_internal => {
            refuse("is for peers of another AS; remove it: those of ours may be any way off".to_owned());
        }
        Some(hops) => match u8::try_from(hops).ok().filter(|hops| *hops > 0) {
            Some(hops) => return Ttl::Hops(hops),
            None => refuse(format!("{hops} is no number of hops; use 1 to 255")),
        },
        None => {}
    }
    match (is_secure, is_internal) {
        (true, _) => Ttl::Security,
        (false, true) => Ttl::System,
        (false, false) => Ttl::Hops(1),
    }
}

/// Reads a file of a password. The message of an error names the file, and never shows what is in it.
pub(super) fn read_password(path: &Path) -> Result<Password, String> {
    let shown = path.display();
    let failed = |error: io::Error| format!("{shown}: {error}; put the password in it, in one line");
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "{shown} has mode {mode:04o}, which lets others than its owner at the password; chmod 600 {shown}"
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_PASSWORD + 2).read_to_end(&mut bytes).map_err(failed)?;
    let password = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if password.is_empty() || password.len() as u64 > MAX_PASSWORD || password.contains(&b'\n') {
        return Err(format!("{shown}: a password has 1 to {MAX_PASSWORD} bytes in one line; put one in it"));
    }
    Ok(Password(password.into()))
}

/// Reads the passwords that the table names; gives what is wrong.
pub(super) fn with_passwords(config: &mut BgpConfig, line: Option<usize>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for peer in &mut config.peers {
        match peer.password_file.as_deref().map(read_password).transpose() {
            Ok(password) => peer.password = password,
            Err(message) => {
                problems.push(Problem { line, key: "bgp.peer.password-file".to_owned(), message });
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests;
