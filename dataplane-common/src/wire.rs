//! Headers as they stand on the wire. Ethernet and IPv4 are network-types' structs; the rest is here.

use network_types::{eth::EthHdr, ip::Ipv4Hdr};

use crate::checksum;

/// A header that may be copied out of a packet.
///
/// # Safety
/// Implemented only for `repr(C)` types without padding for which every bit pattern is a valid value.
pub unsafe trait Header: Copy {
    /// It only ever stands at a word boundary behind the Ethernet header: at 14, 18, 22, … bytes of a frame.
    const ON_WORD: bool = false;
}

// SAFETY: `repr(C)` of byte arrays and a trailing, aligned `u16`: no padding, every bit pattern valid.
unsafe impl Header for EthHdr {}
// SAFETY: `repr(C)` of bytes and byte arrays.
unsafe impl Header for Ipv4Hdr {
    const ON_WORD: bool = true;
}
// SAFETY: `repr(C)` of bytes and byte arrays.
unsafe impl Header for IcmpHdr {
    const ON_WORD: bool = true;
}
// SAFETY: a byte.
unsafe impl Header for u8 {}
// SAFETY: elements without padding follow each other without padding.
unsafe impl<T: Header, const N: usize> Header for [T; N] {
    const ON_WORD: bool = T::ON_WORD;
}
// SAFETY: `repr(C)` of words and, of alignment 1 and even length, an IPv4 header.
unsafe impl Header for Ipv4Frame {}

/// The start of an IPv4 frame, to be readdressed.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv4Frame {
    /// Destination and source MAC address ([`mac_words`]).
    pub macs: [[u16; 3]; 2],
    /// EtherType, as on the wire.
    pub ether_type: u16,
    /// Network layer.
    pub ip: Ipv4Hdr,
}

/// A MAC address as three words in wire order ([rule 5](crate::codegen)).
#[inline(always)]
pub const fn mac_words(mac: &[u8; 6]) -> [u16; 3] {
    let &[a, b, c, d, e, f] = mac;
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), u16::from_ne_bytes([e, f])]
}

const _: () = assert!(size_of::<Ipv4Frame>() == ETH_LEN + IPV4_LEN);

/// An IPv4 header without options as the five words that its checksum is a sum of.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ipv4Words(pub [u32; 5]);

// SAFETY: `repr(C)` of integers.
unsafe impl Header for Ipv4Words {
    const ON_WORD: bool = true;
}

/// An IPv4 header without options whose fields are read and written in one each. All as on the wire.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ipv4Fields {
    /// Version and header length.
    pub vihl: u8,
    /// Type of service.
    pub tos: u8,
    /// Total length.
    pub tot_len: u16,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub frags: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol.
    pub proto: u8,
    /// Header checksum.
    pub check: u16,
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
}

// SAFETY: `repr(C)` of integers whose alignments divide their offsets, 20 bytes in all: no padding.
unsafe impl Header for Ipv4Fields {
    const ON_WORD: bool = true;
}

/// The headers of a tunnel packet: the outer one, and that of what it carries.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Tunnelled {
    /// Outer header.
    pub outer: Ipv4Words,
    /// Inner header.
    pub inner: Ipv4Fields,
}

// SAFETY: `repr(C)` of headers of one alignment, whose lengths it divides.
unsafe impl Header for Tunnelled {
    const ON_WORD: bool = true;
}

/// The first bytes of a TCP header (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TcpHdr {
    /// Source and destination port, as on the wire.
    pub ports: [u16; 2],
    /// Sequence number, as on the wire.
    pub sequence: u32,
    /// Acknowledgement number, as on the wire.
    pub acknowledgement: u32,
    /// Upper half: length of the header in words.
    pub offset: u8,
    /// Flags.
    pub flags: u8,
    /// Window, as on the wire.
    pub window: u16,
}

// SAFETY: `repr(C)` of integers whose alignments divide their offsets, 16 bytes in all: no padding.
unsafe impl Header for TcpHdr {
    const ON_WORD: bool = true;
}
// SAFETY: an integer.
unsafe impl Header for u16 {}

/// An IPv4 header without options and the ports behind it, to be rewritten. All as on the wire.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ipv4Ports {
    /// Version, header length, class, total length, identification, fragment: not rewritten.
    pub first: [u16; 4],
    /// Time to live.
    pub ttl: u8,
    /// Protocol.
    pub protocol: u8,
    /// Header checksum.
    pub check: u16,
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

// SAFETY: `repr(C)` of integers whose alignments divide their offsets, 24 bytes in all: no padding.
unsafe impl Header for Ipv4Ports {
    const ON_WORD: bool = true;
}

impl Ipv4Ports {
    /// Whether ports stand where they are read: behind a header without options, in no later fragment.
    #[inline(always)]
    pub const fn has_ports(&self) -> bool {
        let [start, _, _, frags] = self.first;
        start.to_ne_bytes()[0] == PLAIN && u16::from_be(frags) & Ipv4::OFFSET == 0
    }
}

/// Length of an Ethernet header.
pub const ETH_LEN: usize = 14;
/// Length of a VLAN tag.
pub const TAG_LEN: usize = 4;
/// Length of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of a VLAN tag (IEEE 802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of a provider's VLAN tag (IEEE 802.1ad).
pub const ETHERTYPE_QINQ: u16 = 0x88a8;

/// First byte of an IPv4 header without options: version 4, five words.
pub const PLAIN: u8 = 0x45;

/// ICMP (RFC 792).
pub const PROTO_ICMP: u8 = 1;
/// IPv4 in IPv4 (RFC 2003).
pub const PROTO_IPIP: u8 = 4;
/// TCP.
pub const PROTO_TCP: u8 = 6;
/// UDP.
pub const PROTO_UDP: u8 = 17;
/// IPv6 in IPv4 (RFC 4213).
pub const PROTO_IPV6: u8 = 41;
/// GRE (RFC 2784).
pub const PROTO_GRE: u8 = 47;

/// The first eight bytes of an ICMP message (RFC 792); for "fragmentation needed" the last two are the next
/// hop's MTU (RFC 1191, section 4).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct IcmpHdr {
    /// Message type.
    pub kind: u8,
    /// Code within the type.
    pub code: u8,
    /// Checksum over the ICMP message.
    pub check: [u8; 2],
    /// Unused, or a field of the type.
    pub unused: [u8; 2],
    /// Next-hop MTU of "fragmentation needed".
    pub mtu: [u8; 2],
}

/// What decisions need of an IPv4 header. No bytes of it: LLVM would carry these in words, put together and taken apart again.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4 {
    /// Version, and header length in words.
    pub vihl: u8,
    /// Type of service.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Protocol.
    pub proto: u8,
    /// Identification, as on the wire.
    pub id: u16,
    /// Flags and fragment offset, as on the wire.
    frags: u16,
    /// Source, host order.
    pub src: u32,
    /// Destination, host order.
    pub dst: u32,
    /// Total length in bytes, as the header says.
    pub total_len: u32,
    /// Header length in bytes, as the header says; anything from 0 to 60.
    pub header_len: u32,
}

impl Ipv4 {
    /// Don't-fragment.
    const DF: u16 = 0x4000;
    /// More-fragments flag and fragment offset.
    const FRAGMENT: u16 = 0x3fff;
    const OFFSET: u16 = 0x1fff;

    /// Reads the fields of a header.
    #[inline(always)]
    pub fn new(header: Ipv4Hdr) -> Self {
        Self {
            vihl: header.vihl,
            tos: header.tos,
            ttl: header.ttl,
            proto: header.proto,
            id: u16::from_ne_bytes(header.id),
            frags: u16::from_ne_bytes(header.frags),
            src: u32::from_be_bytes(header.src_addr),
            dst: u32::from_be_bytes(header.dst_addr),
            total_len: u32::from(u16::from_be_bytes(header.tot_len)),
            header_len: u32::from(header.vihl & 0x0f) * 4,
        }
    }

    /// Version 4, and a header length that a header can have.
    #[inline(always)]
    pub fn well_formed(&self) -> bool {
        self.vihl >> 4 == 4 && self.header_len >= IPV4_LEN as u32 && self.total_len >= self.header_len
    }

    /// Version 4 and no options, with a length that holds the header.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        self.vihl == PLAIN && self.total_len >= IPV4_LEN as u32
    }

    /// Carries IPv4 options.
    #[inline(always)]
    pub fn has_options(&self) -> bool {
        self.header_len != IPV4_LEN as u32
    }

    /// May not be fragmented on the way.
    #[inline(always)]
    pub fn dont_fragment(&self) -> bool {
        u16::from_be(self.frags) & Self::DF != 0
    }

    /// Is one of several fragments.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        u16::from_be(self.frags) & Self::FRAGMENT != 0
    }

    /// Is a fragment other than the first: it starts with no transport header.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        u16::from_be(self.frags) & Self::OFFSET != 0
    }
}

/// A header without its options, with the length and the checksum that go with it.
#[inline(always)]
pub fn without_options(header: &Ipv4Hdr) -> Ipv4Hdr {
    let ip = Ipv4::new(*header);
    let length = ip.total_len + IPV4_LEN as u32 - ip.header_len;
    let mut plain = Ipv4Hdr { vihl: PLAIN, tot_len: (length as u16).to_be_bytes(), ..*header };
    plain.check = checksum::of_header(&plain);
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_without_its_options_is_intact_and_says_the_same(words: u8, data: u16, rest: [u8; 16]) {
            let words = 6 + words % 10;
            let total_len = 4 * u16::from(words) + data % 60_000;
            let mut header = Ipv4Hdr {
                vihl: 0x40 | words,
                tos: rest[0],
                tot_len: total_len.to_be_bytes(),
                id: [rest[1], rest[2]],
                frags: [rest[3], rest[4]],
                ttl: rest[5],
                proto: rest[6],
                check: [rest[7], rest[8]],
                src_addr: [rest[9], rest[10], rest[11], rest[12]],
                dst_addr: [rest[13], rest[14], rest[15], rest[0]],
            };
            let plain = without_options(&header);
            header.vihl = PLAIN;
            header.tot_len = (total_len - 4 * u16::from(words) + IPV4_LEN as u16).to_be_bytes();
            header.check = checksum::of_header(&header);
            prop_assert_eq!(bytes(&plain), bytes(&header));
            prop_assert_eq!(checksum::fold(checksum::add(&bytes(&plain), 0)), 0xffff);
        }
    }

    fn bytes(header: &Ipv4Hdr) -> [u8; IPV4_LEN] {
        let Ipv4Hdr { vihl, tos, tot_len, id, frags, ttl, proto, check, src_addr, dst_addr } = *header;
        let parts: [&[u8]; 8] =
            [&[vihl, tos], &tot_len, &id, &frags, &[ttl, proto], &check, &src_addr, &dst_addr];
        parts.concat().try_into().expect("20 bytes")
    }
}
