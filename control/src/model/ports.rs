//! Ranges of ports.

use dataplane_common::abi;

/// Ports that a host's own sockets need, where it shares them: those of a thousand connections to each of four services.
const LEAST: u32 = 4_096;

/// The first port that needs no privilege.
const UNPRIVILEGED: u16 = 1_024;

/// Ports, first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange(pub u16, pub u16);

impl Default for PortRange {
    /// Above those that Linux gives to sockets.
    fn default() -> Self {
        let [first, last] = abi::Config::NAT_PORTS;
        Self(first, last)
    }
}

impl PortRange {
    /// The other ports that are not privileged, in up to two ranges.
    pub fn others(self) -> Vec<Self> {
        let below = (self.0 > UNPRIVILEGED).then(|| Self(UNPRIVILEGED, self.0 - 1));
        let above = (self.1 < u16::MAX).then(|| Self(UNPRIVILEGED.max(self.1 + 1), u16::MAX));
        below.into_iter().chain(above).collect()
    }

    fn len(self) -> u32 {
        u32::from(self.1) + 1 - u32::from(self.0.min(self.1))
    }

    /// Whether enough of the ports that the kernel gives to sockets (`local`) are left beside these; else why not, and
    /// what to use.
    ///
    /// # Errors
    /// Too few are left.
    pub fn check_beside(self, local: Self) -> Result<(), String> {
        let (first, last) = (self.0.max(local.0), self.1.min(local.1));
        let shared = if first <= last { Self(first, last).len() } else { 0 };
        let left = local.len() - shared;
        if shared == 0 || left >= LEAST {
            return Ok(());
        }
        let remedy = match (local.0, local.1) {
            (_, last) if u16::MAX - last >= 1_024 => format!("use {}-{}", last + 1, u16::MAX),
            (first, _) if first >= 2_048 => format!("use 1024-{}", first - 1),
            (first, last) => {
                format!("make that range smaller, such as 32768-60999 instead of {first}-{last}")
            }
        };
        Err(format!(
            "{}-{} leaves this host's sockets {left} of their ports {}-{} (net.ipv4.ip_local_port_range), fewer than \
             {LEAST}; {remedy}",
            self.0, self.1, local.0, local.1
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_ports_are_those_below_and_above() {
        assert_eq!(PortRange(61_000, 65_535).others(), [PortRange(1_024, 60_999)]);
        assert_eq!(PortRange(1_024, 9_999).others(), [PortRange(10_000, 65_535)]);
        assert_eq!(PortRange(20_000, 29_999).others(), [PortRange(1_024, 19_999), PortRange(30_000, 65_535)]);
        assert_eq!(PortRange(1_024, 65_535).others(), []);
    }

    #[test]
    fn a_range_that_leaves_the_host_too_few_ports_is_refused_with_one_that_does_not() {
        let linux = PortRange(32_768, 60_999);
        let check = |first, last, local| PortRange(first, last).check_beside(local);
        for (first, last) in [(61_000, 65_535), (1_024, 32_767), (36_864, 65_535), (40_000, 41_000)] {
            assert_eq!(check(first, last, linux), Ok(()), "{first}-{last}");
        }
        assert_eq!(
            check(1_024, 65_535, linux).unwrap_err(),
            "1024-65535 leaves this host's sockets 0 of their ports 32768-60999 (net.ipv4.ip_local_port_range), fewer \
             than 4096; use 61000-65535"
        );
        assert!(check(36_863, 65_535, linux).unwrap_err().contains("leaves this host's sockets 4095 of"));
        // Hosts with other ranges of their own.
        assert!(check(60_000, 65_535, PortRange(61_000, 65_535)).unwrap_err().ends_with("use 1024-60999"));
        assert!(
            check(1_024, 65_535, PortRange(1_024, 65_535)).unwrap_err().contains("make that range smaller")
        );
        assert_eq!(check(61_000, 65_535, PortRange(1_024, 65_535)), Ok(()));
        assert_eq!(check(61_000, 65_535, PortRange(40_000, 40_010)), Ok(()));
    }
}
