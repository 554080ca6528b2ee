//! Addresses and ports rewritten in place.

use dataplane_common::{
    checksum,
    vip::Tuple,
    wire::{IPV4_LEN, Ipv4Ports, PROTO_TCP},
};

use crate::packet::{Frame, Refused};

/// Offsets of the checksum in a TCP and in a UDP header.
const TCP_CHECK: usize = 16;
const UDP_CHECK: usize = 6;

/// Gives the packet, whose IPv4 header at `offset` has no options, its new addresses and ports.
///
/// The transport checksum is the helper's: whether it is complete, pending or checked by hardware stands in the kernel's
/// packet, where programs cannot see it.
#[inline(always)]
pub fn apply(frame: &mut Frame, offset: usize, new: Tuple) -> Result<(), Refused> {
    let header = frame.word::<Ipv4Ports>(offset)?;
    let old = Tuple::of(&header.0);
    let tcp = header.0.protocol == PROTO_TCP;
    let mut check = header.0.check.to_ne_bytes();
    check = checksum::update_word(check, old.src, new.src);
    check = checksum::update_word(check, old.dst, new.dst);
    header.0.check = u16::from_ne_bytes(check);
    (header.0.src, header.0.dst) = (new.src, new.dst);
    (header.0.sport, header.0.dport) = (new.sport, new.dport);
    let at = offset + IPV4_LEN + if tcp { TCP_CHECK } else { UDP_CHECK };
    for (old, new) in [(old.src, new.src), (old.dst, new.dst)] {
        if old != new {
            frame.replace_address_sum(at, old, new, tcp)?;
        }
    }
    for (old, new) in [(old.sport, new.sport), (old.dport, new.dport)] {
        if old != new {
            frame.replace_port_sum(at, old, new, tcp)?;
        }
    }
    Ok(())
}
