//! TCP resets made by the datapath itself (RFC 9293, section 3.10.7.1).

use crate::{
    checksum,
    wire::{IPV4_LEN, Ipv4, PLAIN, PROTO_TCP, TcpHdr},
};

/// Bytes of a reset: IPv4 and TCP header.
pub const RESET_LEN: usize = IPV4_LEN + 20;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const TTL: u8 = 64;

/// The reset that answers a segment: in its sender's sequence space, from the address it was sent to.
#[inline(always)]
pub fn reset(ip: &Ipv4, tcp: &TcpHdr) -> [u8; RESET_LEN] {
    let opens = u32::from(tcp.flags & SYN != 0) + u32::from(tcp.flags & FIN != 0);
    let headers = ip.header_len + u32::from(tcp.offset >> 4) * 4;
    let next = u32::from_be(tcp.sequence)
        .wrapping_add(ip.total_len.wrapping_sub(headers))
        .wrapping_add(opens)
        .to_be_bytes();
    let (sequence, acknowledgement, flags) = if tcp.flags & ACK != 0 {
        (tcp.acknowledgement.to_ne_bytes(), [0; 4], RST)
    } else {
        ([0; 4], next, RST | ACK)
    };
    let (dst, src) = (ip.dst.to_be_bytes(), ip.src.to_be_bytes());
    let mut bytes = [0u8; RESET_LEN];
    [bytes[0], bytes[3], bytes[6], bytes[8], bytes[9]] = [PLAIN, RESET_LEN as u8, 0x40, TTL, PROTO_TCP];
    [bytes[12], bytes[13], bytes[14], bytes[15]] = dst;
    [bytes[16], bytes[17], bytes[18], bytes[19]] = src;
    [bytes[20], bytes[21]] = tcp.ports[1].to_ne_bytes();
    [bytes[22], bytes[23]] = tcp.ports[0].to_ne_bytes();
    [bytes[24], bytes[25], bytes[26], bytes[27]] = sequence;
    [bytes[28], bytes[29], bytes[30], bytes[31]] = acknowledgement;
    [bytes[32], bytes[33]] = [5 << 4, flags];
    // Pseudo-header: addresses, protocol, length of the segment.
    let pseudo = [0, PROTO_TCP, 0, 20];
    let mut sum = checksum::add(&pseudo, 0);
    sum = checksum::add(&dst, sum);
    sum = checksum::add(&src, sum);
    sum = checksum::add(&tcp.ports[0].to_ne_bytes(), sum);
    sum = checksum::add(&tcp.ports[1].to_ne_bytes(), sum);
    sum = checksum::add(&sequence, sum);
    sum = checksum::add(&acknowledgement, sum);
    sum = checksum::add(&[5 << 4, flags], sum);
    [bytes[36], bytes[37]] = checksum::finish(sum);
    let mut header = checksum::add(&[PLAIN, 0, 0, RESET_LEN as u8, 0x40, 0, TTL, PROTO_TCP], 0);
    header = checksum::add(&dst, header);
    header = checksum::add(&src, header);
    [bytes[10], bytes[11]] = checksum::finish(header);
    bytes
}

#[cfg(test)]
mod tests {
    use network_types::ip::Ipv4Hdr;

    use super::*;
    use crate::packet::Packet;

    fn answered(flags: u8, payload: u8) -> (Ipv4, TcpHdr) {
        let mut bytes = [0u8; 40];
        bytes[0] = 0x45;
        bytes[3] = 40 + payload;
        bytes[9] = PROTO_TCP;
        bytes[12..16].copy_from_slice(&[250, 0, 28, 2]);
        bytes[16..20].copy_from_slice(&[10, 96, 0, 10]);
        bytes[20..24].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        bytes[24..28].copy_from_slice(&1000u32.to_be_bytes());
        bytes[28..32].copy_from_slice(&5000u32.to_be_bytes());
        bytes[32..34].copy_from_slice(&[5 << 4, flags]);
        let header: Ipv4Hdr = bytes.read(0).expect("a header");
        let reset = reset(&Ipv4::new(header), &bytes.read(IPV4_LEN).expect("a header"));
        let mut summed = [0u8; 32];
        summed[..8].copy_from_slice(&reset[12..20]);
        summed[8..12].copy_from_slice(&[0, PROTO_TCP, 0, 20]);
        summed[12..].copy_from_slice(&reset[20..]);
        assert_eq!(checksum::finish(checksum::add(&summed, 0)), [0, 0], "TCP checksum");
        assert!(checksum::intact(&reset.read(0).expect("a header")), "IPv4 checksum");
        let header: Ipv4Hdr = reset.read(0).expect("a header");
        (Ipv4::new(header), reset.read(IPV4_LEN).expect("a header"))
    }

    #[test]
    fn an_attempt_to_connect_is_reset_with_its_acknowledgement() {
        let (ip, tcp) = answered(SYN, 0);
        assert_eq!((ip.src, ip.dst), (0x0a60_000a, 0xfa00_1c02));
        assert_eq!(tcp.ports.map(u16::from_be), [80, 40_000]);
        assert_eq!((u32::from_be(tcp.sequence), u32::from_be(tcp.acknowledgement)), (0, 1001));
        assert_eq!(tcp.flags, RST | ACK);
    }

    #[test]
    fn a_segment_of_a_connection_is_reset_where_its_sender_expects_the_next_byte() {
        let (_, tcp) = answered(ACK, 10);
        assert_eq!((u32::from_be(tcp.sequence), tcp.flags), (5000, RST));
        let (_, tcp) = answered(FIN, 10);
        assert_eq!((u32::from_be(tcp.acknowledgement), tcp.flags), (1011, RST | ACK));
    }
}
