//! ICMP errors about tunnel packets of ours: they are told to the senders of the packets inside (RFC 2003, section 4).

use network_types::ip::Ipv4Hdr;

use super::{Out, Tables, fan_in, fan_of, host_of, own_fan_of};
use crate::{
    ct::{self, Tuple},
    icmp,
    packet::Packet,
    tunnel,
    wire::{ETH_LEN, IPV4_LEN, IcmpHdr, Ipv4, PLAIN},
};

/// Offset of the tunnel packet that an error quotes.
const OUTER: usize = ETH_LEN + IPV4_LEN + size_of::<IcmpHdr>();
/// Offset of the packet inside.
pub const RELAYED: usize = OUTER + tunnel::OVERHEAD;

/// "Host unreachable" for the sender of a packet that a quoted tunnel packet held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Who tells it.
    pub source: u32,
    /// What answers the packet, as its sender knows the flow; [`Tuple::KEPT`] where that is how it is quoted.
    pub answer: Tuple,
    /// Where its sender lives.
    pub out: Out,
}

/// Who is told; `None` where the error quotes too little (RFC 792 asks for eight bytes behind the outer header), or nothing that
/// this host has sent.
#[inline(always)]
pub fn relayed<P: Packet + ?Sized, T: Tables>(packet: &P, tables: &T) -> Option<Relayed> {
    let config = tables.config()?;
    let outer: Ipv4Hdr = packet.copy(OUTER)?;
    let inner = Ipv4::new(packet.copy::<Ipv4Hdr>(RELAYED)?);
    let [kind, ..]: [u8; 8] = packet.copy(RELAYED + IPV4_LEN)?;
    let to = fan_of(config, inner.dst)?;
    let own = own_fan_of(config, inner.src)?;
    let is_sent = host_of(to, inner.dst) == u32::from_be_bytes(outer.dst_addr);
    if !is_sent || inner.vihl != PLAIN || !icmp::may_answer(&inner, kind) {
        return None;
    }
    let answer = if config.services == 0 { Tuple::KEPT } else { ct::answering(packet, RELAYED, tables) };
    let sender = if answer.is_kept() { inner.src } else { u32::from_be(answer.dst) };
    let Some(fan) = own_fan_of(config, sender) else {
        return Some(Relayed { source: fan_in(config, own.slot).address, answer, out: Out::STACK });
    };
    if let Some(&endpoint) = tables.endpoint(sender) {
        return Some(Relayed { source: fan.gateway, answer, out: Out::endpoint(fan.slot, endpoint, false) });
    }
    // The stack takes no packet from its own addresses where it checks strictly whence packets come.
    Some(Relayed { source: inner.dst, answer, out: Out::STACK })
}
