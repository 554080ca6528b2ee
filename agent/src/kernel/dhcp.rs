//! One dnsmasq a bridge, which hands out a slice's addresses.
//!
//! Its pid file under `/run/fanlight` says which process is ours; a process is ended only when its own command line
//! names that file.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::child::{self, ChildError};

const FOLDER: &str = "/run/fanlight/dhcp";
/// How long dnsmasq may take to go into the background.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a server may take to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why addresses can't be handed out.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// The program is not installed.
    #[error("`dnsmasq` is not installed; install the package dnsmasq-base, or leave out `dhcp`")]
    Missing,
    /// It refuses to start.
    #[error("dnsmasq on {bridge}: {reason}")]
    Refused {
        /// The bridge.
        bridge: String,
        /// Its complaint.
        reason: String,
    },
    /// It can't be run to its end.
    #[error("dnsmasq: {0}")]
    Run(ChildError),
    /// Its files can't be read or written, or it does not end.
    #[error("dnsmasq on {bridge}: {source}")]
    Io {
        /// The bridge.
        bridge: String,
        /// Why.
        source: io::Error,
    },
}

/// What a server hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server<'a> {
    /// The bridge that it serves.
    pub bridge: &'a str,
    /// First address.
    pub first: Ipv4Addr,
    /// Last address.
    pub last: Ipv4Addr,
    /// Network mask.
    pub mask: Ipv4Addr,
    /// Default gateway.
    pub gateway: Ipv4Addr,
    /// MTU.
    pub mtu: u32,
    /// Resolvers; without any none are offered.
    pub resolvers: &'a [Ipv4Addr],
}

/// An address that was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// To whom: its name, or its MAC address.
    pub client: String,
}

/// The leases of a bridge's server that are not over; none where there is no server.
///
/// # Errors
/// Its file can't be read.
pub fn leases(bridge: &str) -> Result<Vec<Lease>, DhcpError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match fs::read_to_string(file(bridge, "leases")) {
        Ok(text) => Ok(text.lines().filter_map(|line| lease(line, now)).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(DhcpError::Io { bridge: bridge.to_owned(), source }),
    }
}

/// `EXPIRY MAC ADDRESS NAME CLIENT-ID`; an expiry of 0 is never, a name of `*` is none.
fn lease(line: &str, now: u64) -> Option<Lease> {
    let mut words = line.split_whitespace();
    let expiry: u64 = words.next()?.parse().ok()?;
    let (mac, address, name) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    let client = if name == "*" { mac } else { name };
    (expiry == 0 || expiry > now).then(|| Lease { address, client: client.to_owned() })
}

/// Whether dnsmasq is installed.
///
/// # Errors
/// It isn't.
pub fn check() -> Result<(), DhcpError> {
    run(&["--version"]).map(drop)
}

/// Whether a server runs with these values.
pub fn serves(server: &Server<'_>) -> bool {
    let is_same = |text: String| text == settings(server);
    running(server.bridge).is_some() && fs::read_to_string(file(server.bridge, "conf")).is_ok_and(is_same)
}

/// Makes a server run with these values. Whether one had to be started is returned.
///
/// # Errors
/// dnsmasq is missing or refuses.
pub fn ensure(server: &Server<'_>) -> Result<bool, DhcpError> {
    let failed = |source| DhcpError::Io { bridge: server.bridge.to_owned(), source };
    let wanted = settings(server);
    let conf = file(server.bridge, "conf");
    if serves(server) {
        return Ok(false);
    }
    end(server.bridge)?;
    fs::create_dir_all(FOLDER).and_then(|()| fs::write(&conf, wanted)).map_err(failed)?;
    let output = run(&[&format!("--conf-file={}", conf.display())])?;
    if output.is_success() {
        return Ok(true);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let reason = complaint.lines().last().unwrap_or("no reason given").trim().to_owned();
    Err(DhcpError::Refused { bridge: server.bridge.to_owned(), reason })
}

fn run(arguments: &[&str]) -> Result<child::Output, DhcpError> {
    child::run("dnsmasq", arguments, "", LIMIT).map_err(|error| match error {
        missing if missing.is_missing() => DhcpError::Missing,
        other => DhcpError::Run(other),
    })
}

/// Ends the server of a bridge, and removes its files. None running is fine.
///
/// # Errors
/// It does not end.
pub fn stop(bridge: &str) -> Result<(), DhcpError> {
    let failed = |source| DhcpError::Io { bridge: bridge.to_owned(), source };
    end(bridge)?;
    for name in ["pid", "conf", "leases"] {
        match fs::remove_file(file(bridge, name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    // Another bridge's files keep the folder.
    let _ = fs::remove_dir(FOLDER);
    Ok(())
}

/// Ends the server of a bridge; its leases are for the next.
fn end(bridge: &str) -> Result<(), DhcpError> {
    let failed = |source| DhcpError::Io { bridge: bridge.to_owned(), source };
    if let Some(pid) = running(bridge) {
        kill(pid, Signal::SIGTERM).map_err(|errno| failed(errno.into()))?;
        let deadline = Instant::now() + PATIENCE;
        while running(bridge).is_some() {
            if Instant::now() > deadline {
                return Err(failed(io::Error::from(io::ErrorKind::TimedOut)));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// The process of a bridge's pid file, if it is a server of ours.
pub fn running(bridge: &str) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(file(bridge, "pid")).ok()?.trim().parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // A number may be another process's by now: ours names its settings.
    let ours = format!("--conf-file={}", file(bridge, "conf").display());
    let named = command.split(|&byte| byte == 0).any(|argument| argument == ours.as_bytes());
    named.then(|| Pid::from_raw(pid))
}

fn file(bridge: &str, extension: &str) -> PathBuf {
    PathBuf::from(FOLDER).join(format!("{bridge}.{extension}"))
}

fn settings(server: &Server<'_>) -> String {
    let Server { bridge, first, last, mask, gateway, mtu, resolvers } = server;
    let resolvers: String = resolvers.iter().map(|resolver| format!(",{resolver}")).collect();
    let dns =
        if resolvers.is_empty() { resolvers } else { format!("dhcp-option=option:dns-server{resolvers}\n") };
    let pid = file(bridge, "pid");
    let leases = file(bridge, "leases");
    format!(
        "interface={bridge}\n\
         bind-interfaces\n\
         except-interface=lo\n\
         port=0\n\
         dhcp-authoritative\n\
         dhcp-range={first},{last},{mask},1h\n\
         dhcp-option=option:router,{gateway}\n\
         dhcp-option=option:mtu,{mtu}\n\
         {dns}\
         dhcp-leasefile={}\n\
         pid-file={}\n",
        leases.display(),
        pid.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_the_range_the_mtu_and_files_of_their_own() {
        let server = Server {
            bridge: "fan-250-0-28",
            first: [250, 0, 28, 10].into(),
            last: [250, 0, 28, 254].into(),
            mask: [255, 255, 255, 0].into(),
            gateway: [250, 0, 28, 1].into(),
            mtu: 1480,
            resolvers: &[[10, 0, 0, 2].into(), [10, 0, 0, 3].into()],
        };
        let text = settings(&server);
        assert!(!settings(&Server { resolvers: &[], ..server.clone() }).contains("dns-server"));
        for line in [
            "interface=fan-250-0-28",
            "dhcp-range=250.0.28.10,250.0.28.254,255.255.255.0,1h",
            "dhcp-option=option:mtu,1480",
            "dhcp-option=option:dns-server,10.0.0.2,10.0.0.3",
            "dhcp-authoritative",
            "pid-file=/run/fanlight/dhcp/fan-250-0-28.pid",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}");
        }
    }

    #[test]
    fn only_leases_that_are_not_over_count() {
        let lease = |line| lease(line, 1_000);
        let named = lease("1001 02:00:00:00:00:02 250.0.28.2 laptop 01:02:00:00:00:00:02").unwrap();
        assert_eq!((named.address, named.client.as_str()), ([250, 0, 28, 2].into(), "laptop"));
        assert_eq!(lease("0 02:00:00:00:00:03 250.0.28.3 * *").unwrap().client, "02:00:00:00:00:03");
        assert_eq!(lease("1000 02:00:00:00:00:04 250.0.28.4 * *"), None);
        assert_eq!(lease("duid 00:01:00:01"), None);
    }

    #[test]
    fn no_pid_file_is_no_server() {
        assert_eq!(running("no-such-bridge"), None);
    }
}
