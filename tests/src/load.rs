//! Traffic: pings in the background, iperf3 runs, servers.

use std::{fs, net::Ipv4Addr, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    command::{Cmd, Process, eventually},
    site::Site,
};

/// Pings in the background, until it is asked how they fared.
pub struct Ping {
    process: Process,
}

/// How pings fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinged {
    /// Requests.
    pub sent: u32,
    /// Replies.
    pub received: u32,
}

impl Ping {
    /// Starts them at so many a second.
    #[track_caller]
    pub fn start(from: &Site, to: Ipv4Addr, per_second: u32) -> Self {
        let interval = format!("{:.4}", 1.0 / f64::from(per_second));
        let process = from.command("ping").args(["-q", "-i", &interval, &to.to_string()]).spawn_heard();
        Self { process }
    }

    /// Starts a given number of them at so many a second; see [`Ping::finish`].
    #[track_caller]
    pub fn start_counted(from: &Site, to: Ipv4Addr, per_second: u32, count: u32) -> Self {
        let (interval, count) = (format!("{:.4}", 1.0 / f64::from(per_second)), count.to_string());
        let command =
            from.command("ping").args(["-q", "-W", "2", "-i", &interval, "-c", &count, &to.to_string()]);
        Self { process: command.spawn_heard() }
    }

    /// Waits until all of a given number are through.
    #[track_caller]
    pub fn finish(self) -> Pinged {
        let output = self.process.finish(Duration::from_secs(60));
        Pinged::read(&output.stdout).unwrap_or_else(|| panic!("no summary: {output}"))
    }

    /// Ends them. The last one may still be on its way then, and does not count as lost.
    #[track_caller]
    pub fn stop(self) -> Pinged {
        self.process.signal(Signal::SIGINT);
        let output = self.process.finish(Duration::from_secs(10));
        Pinged::read(&output.stdout).unwrap_or_else(|| panic!("no summary: {output}"))
    }
}

impl Pinged {
    fn read(text: &str) -> Option<Self> {
        let line = text.lines().find(|line| line.contains("packets transmitted"))?;
        let mut numbers = line.split(", ").map(|part| part.split(' ').next()?.parse().ok());
        Some(Self { sent: numbers.next()??, received: numbers.next()?? })
    }

    /// How many got no reply.
    pub fn lost(&self) -> u32 {
        self.sent - self.received
    }
}

/// Sends `count` pings, 10 ms apart, with more options for ping(8); how they fared.
#[track_caller]
pub fn ping(from: &Site, to: Ipv4Addr, count: u32, options: &[&str]) -> Pinged {
    let count = count.to_string();
    let command = from.command("ping").args(["-q", "-i", "0.01", "-W", "2", "-c", &count]).args(options);
    let output = command.arg(to.to_string()).run();
    Pinged::read(&output.stdout).unwrap_or_else(|| panic!("no summary: {output}"))
}

/// Asserts that a ping gets through; the first may have to wait for neighbours to be found.
#[track_caller]
pub fn assert_reaches(from: &Site, to: Ipv4Addr) {
    let output = from.command("ping").args(["-c", "2", "-i", "0.05", "-W", "2", &to.to_string()]).run();
    let received = Pinged::read(&output.stdout).map_or(0, |pinged| pinged.received);
    assert!(received > 0, "{} does not reach {to}\n{output}", from.name());
}

/// Waits until a TCP socket of a site listens on a port.
#[track_caller]
pub fn wait_until_listening(site: &Site, port: u16) {
    let listens = || {
        let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default();
        let table6 = fs::read_to_string("/proc/thread-self/net/tcp6").unwrap_or_default();
        let local = format!(":{port:04X}");
        let mut rows = table.lines().chain(table6.lines()).map(|row| row.split_whitespace().skip(1));
        // Columns: number, local address, remote address, state; state 0A is LISTEN.
        rows.any(|mut row| row.next().is_some_and(|own| own.ends_with(&local)) && row.nth(1) == Some("0A"))
    };
    let what = format!("{} listens on port {port}", site.name());
    eventually(&what, Duration::from_secs(10), || site.inside(listens).then_some(()));
}

/// An iperf3 server.
pub struct IperfServer {
    _process: Process,
}

impl IperfServer {
    /// Starts one on the usual port.
    #[track_caller]
    pub fn start(site: &Site) -> Self {
        let process = site.command("iperf3").arg("-s").spawn();
        wait_until_listening(site, 5201);
        Self { _process: process }
    }
}

/// What an iperf3 run reported.
#[derive(Clone, Debug)]
pub struct Iperf {
    report: Value,
}

impl Iperf {
    /// Runs a client with more options for iperf3(1), which say how long or how much.
    #[track_caller]
    pub fn run(from: &Site, to: Ipv4Addr, options: &[&str]) -> Self {
        Self::read(&Self::client(from, to, options).ok())
    }

    /// Starts a client in the background; see [`Iperf::read`].
    #[track_caller]
    pub fn start(from: &Site, to: Ipv4Addr, options: &[&str]) -> Process {
        Self::client(from, to, options).spawn_heard()
    }

    fn client(from: &Site, to: Ipv4Addr, options: &[&str]) -> Cmd {
        from.command("iperf3")
            .args(["-J", "-c", &to.to_string()])
            .args(options)
            .limit(Duration::from_secs(60))
    }

    /// Reads a report.
    #[track_caller]
    pub fn read(text: &str) -> Self {
        let report: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("iperf3: {error}: {text}"));
        assert!(report.get("error").is_none(), "iperf3: {text}");
        Self { report }
    }

    /// Bits a second that arrived.
    pub fn bits_per_second(&self) -> f64 {
        let end = &self.report["end"];
        let sum = end.get("sum_received").or_else(|| end.get("sum"));
        sum.and_then(|sum| sum["bits_per_second"].as_f64()).unwrap_or_default()
    }

    /// The least that was sent in any of the intervals, in bits a second: 0 when the run stood still.
    pub fn slowest_interval(&self) -> f64 {
        let intervals = self.report["intervals"].as_array().into_iter().flatten();
        let rates = intervals.filter_map(|interval| interval["sum"]["bits_per_second"].as_f64());
        rates.fold(f64::INFINITY, f64::min)
    }
}

/// A TCP server inside the test that sends every byte back, for as long as the value lives.
pub struct Echo {
    port: u16,
}

impl Echo {
    /// Starts one on an address of the site; its port is chosen.
    #[track_caller]
    pub fn start(site: &Site, address: Ipv4Addr) -> Self {
        let listener =
            site.inside(|| std::net::TcpListener::bind((address, 0)).expect("an address of the site"));
        let port = listener.local_addr().expect("a bound socket").port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let Ok(mut back) = stream.try_clone() else { return };
                    let _ = std::io::copy(&mut stream, &mut back);
                });
            }
        });
        Self { port }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}
