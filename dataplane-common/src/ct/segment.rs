//! The transport header of a packet, as far as flows need it.

use crate::{
    abi::{FlowKey, LiveFlow, State},
    packet::Packet,
    wire::{IPV4_LEN, Ipv4, Ipv4Ports, PROTO_TCP, PROTO_UDP, TcpHdr},
};

/// Addresses and ports of a packet, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

impl Tuple {
    /// A packet keeps its own. No `Option`: [rule 2](crate::codegen).
    pub const KEPT: Self = Self { src: 0, dst: 0, sport: 0, dport: 0 };

    /// Addresses alone: what a fragment without ports gets, which is not the first.
    #[inline(always)]
    pub const fn addresses(src: u32, dst: u32) -> Self {
        Self { src, dst, sport: 0, dport: 0 }
    }

    /// Whether it is [`addresses`](Self::addresses): no packet has neither port.
    #[inline(always)]
    pub const fn is_addresses(&self) -> bool {
        self.sport == 0 && self.dport == 0
    }

    /// Whether it is [`KEPT`](Self::KEPT): no packet goes to 0.0.0.0.
    #[inline(always)]
    pub const fn is_kept(&self) -> bool {
        self.dst == 0
    }

    /// Of a packet.
    #[inline(always)]
    pub const fn of(headers: &Ipv4Ports) -> Self {
        Self { src: headers.src, dst: headers.dst, sport: headers.sport, dport: headers.dport }
    }

    /// The key under which packets in the other direction are looked for.
    #[inline(always)]
    pub const fn answered(self, protocol: u8) -> FlowKey {
        FlowKey::new(self.dst, self.src, self.dport, self.sport, protocol)
    }
}

/// What a TCP segment or UDP datagram says of its flow.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Source port, as on the wire.
    pub sport: u16,
    /// Destination port, as on the wire.
    pub dport: u16,
    /// Bytes of the packet from its network header on.
    pub len: u32,
    /// Sequence and acknowledgement number, as on the wire; 0 for UDP.
    numbers: [u32; 2],
    /// TCP's flags; 0 for UDP.
    flags: u8,
}

/// How far a reset's sequence number may lie above what its receiver has acknowledged: what is on its way by then. One forged
/// number in 65,536 is believed.
const RESET_WINDOW: u32 = 64 * 1024;
/// The same for the last segment of a side, which may follow a whole window that nobody has acknowledged yet. That a
/// connection ends takes two, one from each side.
const FIN_WINDOW: u32 = 4 * 1024 * 1024;

impl Segment {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// How far above the backend's first sequence number a client's acknowledgement may lie: servers that speak first
    /// may have sent their initial window. One forged number in 262,144 is believed.
    const WINDOW: u32 = 16 * 1024;

    /// Reads the transport header behind a network header without options at `offset`; `None` for other protocols and
    /// for packets that end before it.
    #[inline(always)]
    pub fn read<P: Packet + ?Sized>(packet: &P, ip: &Ipv4, offset: usize) -> Option<Self> {
        if !ip.is_plain() {
            return None;
        }
        if ip.proto == PROTO_TCP {
            let tcp: TcpHdr = packet.read(offset + IPV4_LEN)?;
            let TcpHdr { ports: [sport, dport], sequence, acknowledgement, flags, .. } = tcp;
            return Some(Self {
                sport,
                dport,
                len: ip.total_len,
                numbers: [sequence, acknowledgement],
                flags,
            });
        }
        if ip.proto != PROTO_UDP {
            return None;
        }
        let [sport, dport]: [u16; 2] = packet.read(offset + IPV4_LEN)?;
        Some(Self { sport, dport, len: ip.total_len, numbers: [0; 2], flags: 0 })
    }

    /// The key of its direction of the flow.
    #[inline(always)]
    pub fn key(&self, ip: &Ipv4) -> FlowKey {
        FlowKey::new(ip.src.to_be(), ip.dst.to_be(), self.sport, self.dport, ip.proto)
    }

    /// Opens a connection: SYN alone.
    #[inline(always)]
    pub fn is_syn(&self) -> bool {
        self.flags & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }

    /// Begins or ends nothing: no SYN, FIN, or RST.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        self.flags & (Self::SYN | Self::FIN | Self::RST) == 0
    }

    /// Whether it is where its receiver expects it, who has `acknowledged` what came before; 0: not known.
    #[inline(always)]
    fn is_within(&self, acknowledged: u32, below: u32, above: u32) -> bool {
        let distance = self.sequence().wrapping_sub(acknowledged).wrapping_add(below);
        acknowledged == 0 || distance <= below + above
    }

    /// Resets the connection.
    #[inline(always)]
    pub fn is_reset(&self) -> bool {
        self.flags & Self::RST != 0
    }

    /// Sequence number, host order.
    #[inline(always)]
    pub fn sequence(&self) -> u32 {
        u32::from_be(self.numbers[0])
    }

    /// Acknowledgement number, host order.
    #[inline(always)]
    pub fn acknowledgement(&self) -> u32 {
        u32::from_be(self.numbers[1])
    }

    /// Whether the client acknowledges what the backend of an unconfirmed flow has said.
    #[inline(always)]
    pub fn acknowledges(&self, unconfirmed: &LiveFlow) -> bool {
        let above = self.acknowledgement().wrapping_sub(unconfirmed.sequence.get());
        self.flags & (Self::ACK | Self::RST) == Self::ACK
            && unconfirmed.state.get() == State::Answered as u8
            && above != 0
            && above <= Self::WINDOW
    }

    /// Ends its direction, or the connection, and may be believed (RFC 9293, section 3.10.7.4): its receiver has
    /// `acknowledged` about so much.
    #[inline(always)]
    pub(super) fn ends(&self, acknowledged: u32) -> bool {
        if self.is_reset() {
            self.is_within(acknowledged, 1, RESET_WINDOW)
        } else {
            self.flags & Self::FIN != 0 && self.is_within(acknowledged, FIN_WINDOW, FIN_WINDOW)
        }
    }
}
