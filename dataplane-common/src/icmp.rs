//! ICMP errors made by the datapath itself (RFC 792, RFC 1191, RFC 1812 section 4.3).

use crate::{
    checksum,
    wire::{IPV4_LEN, Ipv4, PROTO_ICMP},
};

/// Bytes of the answer's own IPv4 and ICMP headers.
pub const HEADERS_LEN: usize = IPV4_LEN + 8;
/// Bytes quoted of the packet that is answered: its IPv4 header and the eight bytes behind it.
pub const QUOTE_LEN: usize = IPV4_LEN + 8;

/// An error that a packet is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Type 3, code 4, with the largest packet that would get through.
    FragmentationNeeded,
    /// Type 11, code 0.
    TtlExceeded,
    /// Type 3, code 1.
    HostUnreachable,
    /// Type 3, code 3.
    PortUnreachable,
}

/// Type of an echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Type of "destination unreachable".
pub const UNREACHABLE: u8 = 3;
/// Type of "time exceeded".
pub const TIME_EXCEEDED: u8 = 11;
/// The code of "unreachable" that says "fragmentation needed and don't-fragment set".
pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;

/// DSCP CS6, as Linux marks its own ICMP errors (RFC 1812, section 4.3.2.5: precedence 6).
const TOS: u8 = 0xc0;
const TTL: u8 = 64;

impl Error {
    const fn kind_and_code(self) -> (u8, u8) {
        match self {
            Self::FragmentationNeeded => (UNREACHABLE, CODE_FRAGMENTATION_NEEDED),
            Self::TtlExceeded => (TIME_EXCEEDED, 0),
            Self::HostUnreachable => (UNREACHABLE, 1),
            Self::PortUnreachable => (UNREACHABLE, 3),
        }
    }

    /// IPv4 and ICMP header of the answer, from `source` to the sender of the quoted packet; `mtu` is 0 for all but
    /// [`FragmentationNeeded`](Self::FragmentationNeeded).
    #[inline(always)]
    pub fn headers(self, mtu: u16, source: u32, quote: &[u8; QUOTE_LEN]) -> [u8; HEADERS_LEN] {
        let (kind, code) = self.kind_and_code();
        let [src0, src1, src2, src3] = source.to_be_bytes();
        let [mtu0, mtu1] = mtu.to_be_bytes();
        let mut ip = [0u8; IPV4_LEN];
        ip[0] = 0x45;
        ip[1] = TOS;
        ip[3] = (HEADERS_LEN + QUOTE_LEN) as u8;
        ip[8] = TTL;
        ip[9] = PROTO_ICMP;
        [ip[12], ip[13], ip[14], ip[15]] = [src0, src1, src2, src3];
        [ip[16], ip[17], ip[18], ip[19]] = [quote[12], quote[13], quote[14], quote[15]];
        [ip[10], ip[11]] = checksum::finish(checksum::add(&ip, 0));
        let mut icmp = [kind, code, 0, 0, 0, 0, mtu0, mtu1];
        [icmp[2], icmp[3]] = checksum::finish(checksum::add(quote, checksum::add(&icmp, 0)));
        let mut headers = [0u8; HEADERS_LEN];
        let (front, back) = headers.split_at_mut(IPV4_LEN);
        front.copy_from_slice(&ip);
        back.copy_from_slice(&icmp);
        headers
    }
}

/// Whether a source is a single host's: not multicast, broadcast, loopback, or in 0.0.0.0/8 (RFC 1122, section 3.2.1.3).
#[inline(always)]
pub const fn names_a_host(source: u32) -> bool {
    source >> 28 != 0xe && source != u32::MAX && source >> 24 != 0 && source >> 24 != 127
}

/// Whether a message of this type is about a packet that it quotes (RFC 792): unreachable, time exceeded, parameter
/// problem.
#[inline(always)]
pub const fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | TIME_EXCEEDED | 12)
}

/// Whether RFC 1812, section 4.3.2.7, allows an ICMP error about this packet: not about a later fragment, nor to
/// a source that names no single host, nor about an ICMP error (`icmp_kind`: first byte behind the IPv4 header).
#[inline(always)]
pub fn may_answer(ip: &Ipv4, icmp_kind: u8) -> bool {
    let unicast_source = names_a_host(ip.src);
    let about_error = ip.proto == PROTO_ICMP && !matches!(icmp_kind, 0 | 8 | 13..=18);
    unicast_source && !ip.is_later_fragment() && !about_error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Header, Ipv4Words};
    use network_types::ip::Ipv4Hdr;

    fn read<T: Header>(bytes: &[u8]) -> T {
        crate::packet::Packet::read(bytes, 0).expect("long enough")
    }

    fn quote(proto: u8, frags: [u8; 2], src: [u8; 4]) -> [u8; QUOTE_LEN] {
        let mut quote = [0u8; QUOTE_LEN];
        quote[0] = 0x45;
        quote[2..4].copy_from_slice(&1500u16.to_be_bytes());
        quote[6..8].copy_from_slice(&frags);
        quote[9] = proto;
        quote[12..16].copy_from_slice(&src);
        quote[16..20].copy_from_slice(&[250, 0, 27, 2]);
        quote
    }

    #[test]
    fn an_answer_is_a_valid_icmp_error_to_the_sender_from_the_gateway() {
        let quote = quote(6, [0x40, 0], [250, 0, 28, 2]);
        let headers = Error::FragmentationNeeded.headers(1480, 0xfa00_1c01, &quote);
        let ip = Ipv4::new(read::<Ipv4Hdr>(&headers));
        assert!(ip.well_formed());
        assert_eq!((ip.src, ip.dst), (0xfa00_1c01, 0xfa00_1c02));
        assert_eq!(ip.total_len as usize, HEADERS_LEN + QUOTE_LEN);
        assert!(checksum::intact(&read::<Ipv4Words>(&headers)));
        assert_eq!(headers[20..22], [3, 4]);
        assert_eq!(headers[26..28], 1480u16.to_be_bytes());
        let mut message = [0u8; 36];
        message[..8].copy_from_slice(&headers[20..]);
        message[8..].copy_from_slice(&quote);
        assert_eq!(checksum::finish(checksum::add(&message, 0)), [0, 0]);
    }

    #[test]
    fn errors_later_fragments_and_shared_sources_are_not_answered() {
        let parse = |quote: [u8; QUOTE_LEN]| Ipv4::new(read::<Ipv4Hdr>(&quote));
        let host = [250, 0, 28, 2];
        assert!(may_answer(&parse(quote(6, [0x40, 0], host)), 0));
        assert!(may_answer(&parse(quote(PROTO_ICMP, [0, 0], host)), 8));
        assert!(!may_answer(&parse(quote(PROTO_ICMP, [0, 0], host)), 3));
        assert!(!may_answer(&parse(quote(PROTO_ICMP, [0, 0], host)), 11));
        assert!(may_answer(&parse(quote(17, [0x20, 0], host)), 0));
        assert!(!may_answer(&parse(quote(17, [0, 1], host)), 0));
        for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
            assert!(!may_answer(&parse(quote(17, [0, 0], source)), 0), "{source:?}");
        }
    }
}
