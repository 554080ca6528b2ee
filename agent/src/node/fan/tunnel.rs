//! The tunnel to another host, as probes see it.

use std::{io, net::Ipv4Addr, time::Duration};

use dataplane_common::abi::FanRecord;
use ipnet::Ipv4Net;

use super::probe::beyond;
use crate::kernel::icmp::{self, Answer, Echo};

/// How long an answer may take, a first address resolution included.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of the smallest echo request.
const SMALLEST: usize = 28;

/// The tunnel between the gateways of this host and another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    from: Ipv4Addr,
    to: Ipv4Addr,
    /// The overlay addresses there.
    slice: Ipv4Net,
}

impl Tunnel {
    /// The tunnel of a fan to a host by its underlay address; `None` to this host, or outside the underlay.
    pub fn to(fan: &FanRecord, host: Ipv4Addr) -> Option<Self> {
        let host = host.to_bits();
        if host & fan.underlay_mask != fan.underlay || host == fan.address {
            return None;
        }
        let base = fan.overlay | (host & !fan.underlay_mask) << (fan.shift & 31);
        let slice = Ipv4Net::with_netmask(base.into(), fan.slice_mask.into()).ok()?;
        Some(Self { from: fan.gateway.into(), to: (base | 1).into(), slice })
    }

    /// The overlay addresses at its other end.
    pub fn slice(&self) -> Ipv4Net {
        self.slice
    }

    /// Whether something comes back from the other end. Takes up to some seconds.
    ///
    /// # Errors
    /// No packet could be sent.
    pub fn passes(&self) -> io::Result<bool> {
        let request = Echo { from: self.from, to: self.to, size: SMALLEST, patience: PATIENCE };
        if matches!(icmp::echo(request)?, Answer::Reply(_)) {
            return Ok(true);
        }
        // A host that drops what is meant for itself may carry its containers' packets all the same.
        let last = (self.slice.broadcast().to_bits() - 1).into();
        Ok(match icmp::echo(beyond(self.from, last, SMALLEST))? {
            Answer::Reply(_) => true,
            Answer::Unreachable(by, _) => self.slice.contains(&by),
            Answer::TooBig(_) | Answer::Silence => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    #[test]
    fn the_other_end_is_computed_from_the_hosts_address() {
        let bits = |address: [u8; 4]| Ipv4Addr::from(address).to_bits();
        let fan = FanRecord {
            overlay: bits([250, 0, 0, 0]),
            overlay_mask: 0xff00_0000,
            underlay: bits([172, 30, 0, 0]),
            underlay_mask: 0xffff_0000,
            slice_mask: 0xffff_ff00,
            address: bits([172, 30, 0, 28]),
            gateway: bits([250, 0, 28, 1]),
            shift: 8,
            ..FanRecord::zeroed()
        };
        let tunnel = Tunnel::to(&fan, [172, 30, 0, 27].into()).unwrap();
        assert_eq!(tunnel.from, Ipv4Addr::new(250, 0, 28, 1));
        assert_eq!(tunnel.to, Ipv4Addr::new(250, 0, 27, 1));
        assert_eq!(tunnel.slice().to_string(), "250.0.27.0/24");
        assert_eq!(Tunnel::to(&fan, [172, 30, 0, 28].into()), None);
        assert_eq!(Tunnel::to(&fan, [172, 31, 0, 27].into()), None);
    }
}
