//! Addresses and ports rewritten in place.

use dataplane_common::{
    checksum,
    codegen::cold_path,
    ct::Tuple,
    packet::Packet,
    wire::{IPV4_LEN, IcmpHdr, Ipv4Ports, Ipv4Words, PROTO_ICMP, PROTO_TCP},
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
    if new.is_addresses() {
        cold_path();
        return addresses(frame, offset, new.src, new.dst);
    }
    let header = frame.word::<Ipv4Ports>(offset)?;
    let old = Tuple::of(&header.0);
    if header.0.protocol == PROTO_ICMP {
        cold_path();
        return error(frame, offset, old, new);
    }
    let tcp = header.0.protocol == PROTO_TCP;
    let difference = checksum::difference([(old.src, new.src), (old.dst, new.dst)]);
    header.0.check = checksum::change(header.0.check, difference);
    (header.0.src, header.0.dst) = (new.src, new.dst);
    (header.0.sport, header.0.dport) = (new.sport, new.dport);
    let at = offset + IPV4_LEN + if tcp { TCP_CHECK } else { UDP_CHECK };
    frame.change_address_sum(at, difference, tcp)?;
    let ports = |tuple: Tuple| u32::from(tuple.sport) << 16 | u32::from(tuple.dport);
    if ports(old) != ports(new) {
        cold_path();
        frame.change_port_sum(at, checksum::difference([(ports(old), ports(new))]), tcp)?;
    }
    Ok(())
}

/// Gives a packet other addresses whose transport header, if it has one, does not count them.
#[inline(always)]
fn addresses(frame: &mut Frame, offset: usize, src: u32, dst: u32) -> Result<(), Refused> {
    let Ipv4Words(words) = &mut frame.word::<Ipv4Words>(offset)?.0;
    let [_, _, life, old_src, old_dst] = words;
    // The checksum is the second half of its word.
    let [ttl, protocol, high, low] = life.to_ne_bytes();
    let check = checksum::update_word([high, low], *old_src, src);
    let [high, low] = checksum::update_word(check, *old_dst, dst);
    *life = u32::from_ne_bytes([ttl, protocol, high, low]);
    (*old_src, *old_dst) = (src, dst);
    Ok(())
}

/// Gives an ICMP error the addresses that its receiver knows, and the packet that it quotes those under which it was
/// sent: `new` answers the quoted packet. The transport checksum that may be quoted is left: nobody can check it, and what
/// stands behind the first eight bytes is optional (RFC 792).
#[inline(always)]
fn error(frame: &mut Frame, offset: usize, old: Tuple, new: Tuple) -> Result<(), Refused> {
    let message = offset + IPV4_LEN;
    let quote = message + size_of::<IcmpHdr>();
    let icmp: IcmpHdr = frame.copy(message).ok_or(Refused)?;
    let quoted: Ipv4Ports = frame.copy(quote).ok_or(Refused)?;
    // From somebody on the way, it stays from there.
    let src = if old.src == quoted.dst { new.src } else { old.src };
    addresses(frame, offset, src, new.dst)?;
    // The sum over the quoted header, its own checksum included, stays as it was; that over the ports does not.
    let mut check = checksum::update(icmp.check, quoted.sport.to_ne_bytes(), new.dport.to_ne_bytes());
    check = checksum::update(check, quoted.dport.to_ne_bytes(), new.sport.to_ne_bytes());
    frame.store(message + 2, &check)?;
    let mut header = checksum::update_word(quoted.check.to_ne_bytes(), quoted.src, new.dst);
    header = checksum::update_word(header, quoted.dst, new.src);
    let [c0, c1] = header;
    let [s0, s1, s2, s3] = new.dst.to_ne_bytes();
    let [d0, d1, d2, d3] = new.src.to_ne_bytes();
    let ([p0, p1], [q0, q1]) = (new.dport.to_ne_bytes(), new.sport.to_ne_bytes());
    frame.store(quote + 10, &[c0, c1, s0, s1, s2, s3, d0, d1, d2, d3, p0, p1, q0, q1])
}
