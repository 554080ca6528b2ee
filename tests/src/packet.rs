//! Packets as tests need them: right by default, wrong in exactly the way that is asked for.
//!
//! What is right comes from etherparse: none of it is the code under test, nor written by the same hand.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{
    Icmpv4Header, Icmpv4Slice, Icmpv4Type, Ipv4Header, TcpHeader, TcpSlice, UdpHeader,
    checksum::Sum16BitWords,
};

/// ICMP.
pub const ICMP: u8 = 1;
/// IPv4 in IPv4.
pub const IPIP: u8 = 4;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;

/// Flags of a TCP segment.
pub struct TcpFlag;

impl TcpFlag {
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// The Internet checksum (RFC 1071) of any number of bytes.
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum16BitWords::new().add_slice(bytes).ones_complement().to_be()
}

/// An IPv4 packet to build. Length and checksums are right unless overridden.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset, as on the wire.
    pub frags: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Options, padded by the caller to a multiple of four bytes.
    pub options: Vec<u8>,
    /// What it carries.
    pub payload: Vec<u8>,
    /// First byte instead of the right version and header length.
    pub version_ihl: Option<u8>,
    /// Total length instead of the right one.
    pub total_len: Option<u16>,
    /// Header checksum instead of the right one.
    pub check: Option<u16>,
}

impl Ipv4 {
    /// Don't-fragment, in `frags`.
    pub const DF: u16 = 0x4000;
    /// More fragments, in `frags`.
    pub const MF: u16 = 0x2000;

    /// A packet with any payload.
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            tos: 0,
            id: 0x1234,
            frags: 0,
            ttl: 64,
            protocol,
            src,
            dst,
            options: Vec::new(),
            payload,
            version_ihl: None,
            total_len: None,
            check: None,
        }
    }

    /// A UDP datagram.
    pub fn udp(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), payload: &[u8]) -> Self {
        let length = (payload.len() + 8) as u16;
        let mut header = UdpHeader { source_port: src.1, destination_port: dst.1, length, checksum: 0 };
        let sum = header.calc_checksum_ipv4_raw(src.0.octets(), dst.0.octets(), payload);
        header.checksum = sum.expect("a datagram below 64 KiB");
        let datagram = [&header.to_bytes()[..], payload].concat();
        Self::new(src.0, dst.0, UDP, datagram)
    }

    /// A TCP segment without data: sequence and acknowledgement number, and [`TcpFlag`]s.
    pub fn tcp(src: (Ipv4Addr, u16), dst: SocketAddrV4, numbers: (u32, u32), flags: u8) -> Self {
        let mut header = TcpHeader::new(src.1, dst.port(), numbers.0, 0xffff);
        header.acknowledgment_number = numbers.1;
        let bits = [&mut header.fin, &mut header.syn, &mut header.rst, &mut header.psh, &mut header.ack];
        bits.into_iter().enumerate().for_each(|(place, bit)| *bit = flags >> place & 1 == 1);
        let sum = header.calc_checksum_ipv4_raw(src.0.octets(), dst.ip().octets(), &[]);
        header.checksum = sum.expect("a segment below 64 KiB");
        let segment = header.to_bytes().to_vec();
        Self::new(src.0, *dst.ip(), TCP, segment)
    }

    /// An ICMP echo request.
    pub fn echo(src: Ipv4Addr, dst: Ipv4Addr, id: u16, sequence: u16, payload: &[u8]) -> Self {
        let rest = [id.to_be_bytes(), sequence.to_be_bytes()].concat();
        Self::new(src, dst, ICMP, icmp(8, 0, [rest[0], rest[1], rest[2], rest[3]], payload))
    }

    /// An ICMP "fragmentation needed" about a packet, quoting `quoted` bytes of it.
    pub fn fragmentation_needed(src: Ipv4Addr, mtu: u16, about: &Self, quoted: usize) -> Self {
        let packet = about.bytes();
        let [high, low] = mtu.to_be_bytes();
        Self::new(src, about.src, ICMP, icmp(3, 4, [0, 0, high, low], &packet[..quoted.min(packet.len())]))
    }

    /// The packet inside an IPv4 packet between two hosts, as the fan sends it.
    pub fn inside(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Self {
        Self { tos: self.tos, frags: Self::DF, ..Self::new(src, dst, IPIP, self.bytes()) }
    }

    /// Changes it.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// As it stands on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let total_len = self.total_len.unwrap_or((header_len + self.payload.len()) as u16);
        let mut bytes = vec![self.version_ihl.unwrap_or(0x40 | (header_len / 4) as u8), self.tos];
        bytes.extend(total_len.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.frags.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.src.octets());
        bytes.extend(self.dst.octets());
        bytes.extend(&self.options);
        let check = self.check.unwrap_or_else(|| checksum(&bytes));
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The packet in an Ethernet frame.
    pub fn frame(&self, to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
        [to.as_slice(), &from, &[0x08, 0x00], &self.bytes()].concat()
    }

    /// Reads a packet; `None` when it isn't one with a header that fits and a right checksum.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, _) = Ipv4Header::from_slice(bytes).ok()?;
        if checksum(&bytes[..header.header_len()]) != 0 {
            return None;
        }
        let packet =
            Self::new(header.source.into(), header.destination.into(), header.protocol.0, Vec::new());
        Some(Self {
            tos: header.dscp.value() << 2 | header.ecn.value(),
            id: header.identification,
            frags: u16::from_be_bytes([*bytes.get(6)?, *bytes.get(7)?]),
            ttl: header.time_to_live,
            options: header.options.to_vec(),
            payload: bytes.get(header.header_len()..usize::from(header.total_len))?.to_vec(),
            ..packet
        })
    }

    /// Reads the packet of an Ethernet frame, of whichever length the frame's padding is.
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        if frame.get(12..14)? == [0x08, 0x00] { Self::parse(&frame[14..]) } else { None }
    }

    /// The packet inside, where this is one that carries another.
    pub fn inner(&self) -> Option<Self> {
        if self.protocol == IPIP { Self::parse(&self.payload) } else { None }
    }

    /// Type and code, where this is an ICMP message with a right checksum.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        let message = Icmpv4Slice::from_slice(&self.payload).ok().filter(|_| self.protocol == ICMP)?;
        self.payload_intact().then(|| (message.type_u8(), message.code_u8()))
    }

    /// Whether the checksum of the UDP, TCP or ICMP payload is right.
    pub fn payload_intact(&self) -> bool {
        let (src, dst) = (self.src.octets(), self.dst.octets());
        match self.protocol {
            UDP => UdpHeader::from_slice(&self.payload).is_ok_and(|(header, data)| {
                header.calc_checksum_ipv4_raw(src, dst, data).is_ok_and(|sum| sum == header.checksum)
            }),
            TCP => TcpSlice::from_slice(&self.payload).is_ok_and(|segment| {
                segment.calc_checksum_ipv4(src, dst).is_ok_and(|sum| sum == segment.checksum())
            }),
            ICMP => checksum(&self.payload) == 0,
            _ => true,
        }
    }
}

/// An ICMP message with its checksum.
fn icmp(type_u8: u8, code_u8: u8, bytes5to8: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let kind = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 };
    [&Icmpv4Header::with_checksum(kind, payload).to_bytes()[..], payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(250, 0, 27, 2);
    const B: Ipv4Addr = Ipv4Addr::new(250, 0, 28, 2);

    #[test]
    fn a_built_packet_is_read_back_as_it_was_built() {
        let outer = Ipv4::udp((A, 1), (B, 2), b"hello").inside(Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST);
        let read = Ipv4::parse(&outer.bytes()).expect("a right packet");
        let inner = read.inner().expect("a packet inside");
        assert_eq!((inner.src, inner.dst, inner.protocol), (A, B, UDP));
        assert!(inner.payload_intact());
        assert_eq!(read.bytes(), outer.bytes());
    }

    #[test]
    fn a_wrong_checksum_is_noticed() {
        let packet = Ipv4::echo(A, B, 1, 1, b"x").with(|packet| packet.check = Some(1));
        assert!(Ipv4::parse(&packet.bytes()).is_none());
        assert_eq!(Ipv4::echo(A, B, 1, 1, b"x").icmp(), Some((8, 0)));
    }
}
