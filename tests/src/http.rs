//! A real HTTP load generator: wrk(1).

use std::{net::SocketAddrV4, time::Duration};

use crate::{command::Process, site::Site};

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
