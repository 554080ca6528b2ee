//! HTTP load: as much as there can be, by wrk(1), or requests at a steady pace.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddrV4, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{command::Process, site::Site};

/// Longer than a request may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two requests.
const PACE: Duration = Duration::from_millis(5);

/// Requests at a steady pace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paced {
    /// Requests that were answered.
    pub answered: u64,
    /// What became of the others, each with the time since the first one.
    pub failed: Vec<(Duration, String)>,
    /// The longest that an answered one took.
    pub longest: Duration,
}

impl Paced {
    /// Sends requests, one after the other, a connection each, until it is over.
    pub fn run(from: &Site, to: SocketAddrV4, is_over: &AtomicBool) -> Self {
        from.inside(|| {
            let (mut paced, start) = (Self::default(), Instant::now());
            while !is_over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                match request(to) {
                    Ok(()) => paced.answered += 1,
                    Err(error) => paced.failed.push((start.elapsed(), error.to_string())),
                }
                paced.longest = paced.longest.max(asked.elapsed());
                thread::sleep(PACE);
            }
            paced
        })
    }
}

fn request(to: SocketAddrV4) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to.into(), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /name HTTP/1.0\r\nhost: x\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match answer.starts_with(b"HTTP/1.1 200") {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned())),
    }
}

/// Requests, a connection each, in the background.
pub struct HttpLoad {
    process: Process,
    length: Duration,
}

/// How requests fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// Requests that were answered.
    pub answered: u64,
    /// Connections that failed, and answers that were none.
    pub failed: u64,
}

impl HttpLoad {
    /// Starts `clients` clients, each with one request after the other, for some seconds.
    #[track_caller]
    pub fn start(from: &Site, to: SocketAddrV4, clients: u32, seconds: u32) -> Self {
        // The client closes first. After some 80,000 requests within the minute of TIME_WAIT it would spend its
        // processor on looking for a free port, and requests fell from 13,000 to 400 a second, to any server.
        from.sysctl("net.ipv4.tcp_tw_reuse", "1");
        let (clients, length) = (clients.to_string(), format!("{seconds}s"));
        let url = format!("http://{to}/name");
        let command = from.command("wrk").args(["-t", "1", "-c", &clients, "-d", &length]);
        let command = command.args(["--timeout", "3s", "-H", "Connection: close", &url]);
        Self { process: command.spawn_heard(), length: Duration::from_secs(seconds.into()) }
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(self) -> Requested {
        let output = self.process.finish(self.length + Duration::from_secs(20));
        assert!(output.status.success(), "{output}");
        Requested::read(&output.stdout).unwrap_or_else(|| panic!("no summary: {output}"))
    }
}

impl Requested {
    fn read(text: &str) -> Option<Self> {
        let answered = text.lines().find_map(|line| line.split_once(" requests in "));
        let answered: u64 = answered?.0.trim().parse().ok()?;
        let errors = text.lines().find_map(|line| line.trim().strip_prefix("Socket errors:"));
        let numbers =
            errors.unwrap_or_default().split([' ', ',']).filter_map(|word| word.parse::<u64>().ok());
        let refused = text.lines().find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses:"));
        let refused = refused.map_or(Some(0), |number| number.trim().parse().ok())?;
        Some(Self { answered: answered - refused, failed: numbers.sum::<u64>() + refused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_every_kind_are_added_up() {
        let report = "Running 1s test @ http://10.96.0.10:80/name\n  1 threads and 4 connections\n\
                      \x20 9341 requests in 1.00s, 2.07MB read\n";
        assert_eq!(Requested::read(report), Some(Requested { answered: 9341, failed: 0 }));
        let more = "  Socket errors: connect 1, read 2, write 0, timeout 3\n  Non-2xx or 3xx responses: 4\n";
        let report = format!("{report}{more}Requests/sec:   9341.00\n");
        assert_eq!(Requested::read(&report), Some(Requested { answered: 9337, failed: 10 }));
        assert_eq!(Requested::read("unable to connect"), None);
    }
}
