//! Contradictions that can be seen without looking at the host.

use control::model::{FanSpec, UnderlaySpec};
use dataplane_common::{
    abi::MAX_FANS,
    fan::{FanMap, overlaps},
};
use ipnet::Ipv4Net;

use super::operands::OperandError;

/// What to do about overlapping overlays.
pub(super) const APART: &str = "give each fan addresses of its own";

/// Checks one fan by itself: arithmetic where the underlay's length is known, and its reserve.
pub fn check_fan(spec: &FanSpec) -> Result<(), OperandError> {
    let FanSpec { overlay, underlay, host_reserve, bridge, .. } = spec;
    let contradiction = |why: String| Err(OperandError::Contradiction(why));
    if overlay.trunc() != *overlay {
        return contradiction(format!("overlay {overlay} has host bits set; use {}", overlay.trunc()));
    }
    if let (UnderlaySpec::Device { name, .. }, Some(bridge)) = (underlay, bridge)
        && name == bridge
    {
        return contradiction(format!("{name} is both underlay and bridge; name another bridge"));
    }
    if let (false, Some(resolver)) = (spec.dhcp, spec.dns.first()) {
        return contradiction(format!("dns {resolver} is offered by DHCP only; add dhcp, or leave dns out"));
    }
    let Some(network) = known_underlay(underlay) else { return Ok(()) };
    let pair = |net: Ipv4Net| (net.addr(), net.prefix_len());
    let map = FanMap::new(pair(*overlay), pair(network))
        .map_err(|error| OperandError::Contradiction(format!("{overlay} over {underlay}: {error}")))?;
    if matches!(underlay, UnderlaySpec::Network(_) | UnderlaySpec::Host(_))
        && share_addresses(*overlay, network)
    {
        return contradiction(format!(
            "overlay {overlay} overlaps the underlay {network}; use an unused network such as 250.0.0.0/8"
        ));
    }
    // The slice's first address is the network's, its last the broadcast address, and one is left to give.
    let most = (1_u32 << (32 - map.slice_len())) - 3;
    if *host_reserve > most {
        return contradiction(format!(
            "host-reserve {host_reserve} leaves no address of a /{} slice; use at most {most}",
            map.slice_len()
        ));
    }
    Ok(())
}

/// Why `second` can't stand beside `first`, which came before it; `None` when it can.
pub fn conflict(first: &FanSpec, second: &FanSpec) -> Option<String> {
    share_addresses(first.overlay, second.overlay)
        .then(|| format!("overlay {} overlaps {}", second.overlay, first.overlay))
}

/// Why another fan is one too many.
pub fn too_many(count: usize) -> Option<String> {
    (count > MAX_FANS).then(|| format!("a node has at most {MAX_FANS} fans; remove {}", count - MAX_FANS))
}

/// Whether two networks share an address.
pub fn share_addresses(a: Ipv4Net, b: Ipv4Net) -> bool {
    overlaps((a.network().to_bits(), a.prefix_len()), (b.network().to_bits(), b.prefix_len()))
}

/// The underlay network, as far as the specification tells: with only a length known, one of that length.
fn known_underlay(underlay: &UnderlaySpec) -> Option<Ipv4Net> {
    match *underlay {
        UnderlaySpec::Default { len } | UnderlaySpec::Device { len, .. } => {
            len.and_then(|len| Ipv4Net::new(std::net::Ipv4Addr::UNSPECIFIED, len).ok())
        }
        UnderlaySpec::Network(net) | UnderlaySpec::Host(net) => Some(net.trunc()),
    }
}

#[cfg(test)]
mod tests;
