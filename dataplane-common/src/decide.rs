//! What becomes of a packet: pure functions, one per hook, from headers and tables to a [`Verdict`].

use core::hint::black_box;

use network_types::eth::EthHdr;

use crate::{
    abi::{Config, EndpointRecord, FanRecord, MAX_FANS},
    fan, icmp,
    outcome::Outcome,
    packet::Packet,
    vip::{Services, Tuple},
    wire::{ETH_LEN, ETHERTYPE_IPV4, IPV4_LEN, Ipv4, PROTO_TCP},
};

mod egress;
mod ingress;
mod service;

pub use egress::{host_egress, local_ingress};
pub use ingress::uplink_ingress;
pub use service::Client;

/// What the kernel knows of a packet beside its bytes. Asked where it is needed: a kernel program reads each value
/// from its context at that point, instead of keeping all of them across calls.
pub trait Context {
    /// Interface that the program runs on.
    fn ifindex(&self) -> u32;
    /// The frame's destination MAC is that interface's own (`PACKET_HOST`).
    fn to_us(&self) -> bool;
    /// The frame carries a VLAN tag other than a priority tag.
    fn foreign_vlan(&self) -> bool;
    /// Payload bytes per segment of a super-packet; 0 for a single packet.
    fn gso_size(&self) -> u32;
    /// Bytes of the frame.
    fn frame_len(&self) -> u32;
}

/// A [`Context`] in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta {
    /// Interface that the program runs on.
    pub ifindex: u32,
    /// The frame's destination MAC is that interface's own.
    pub to_us: bool,
    /// The frame carries a VLAN tag other than a priority tag.
    pub foreign_vlan: bool,
    /// Payload bytes per segment of a super-packet; 0 for a single packet.
    pub gso_size: u32,
    /// Bytes of the frame.
    pub len: u32,
}

impl Context for Meta {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn to_us(&self) -> bool {
        self.to_us
    }

    fn foreign_vlan(&self) -> bool {
        self.foreign_vlan
    }

    fn gso_size(&self) -> u32 {
        self.gso_size
    }

    fn frame_len(&self) -> u32 {
        self.len
    }
}

/// The tables that decisions read, and those of flows, which they write.
pub trait Tables: Services {
    /// Fans and devices of this node; `None` before the agent has written them.
    fn config(&self) -> Option<&Config>;
    /// The endpoint of this host with an overlay address.
    fn endpoint(&self, address: u32) -> Option<&EndpointRecord>;
    /// Largest inner packet to a remote host whose path was found to be smaller than the uplink.
    fn path_mtu(&self, host: u32) -> Option<u32>;
}

/// What to do with a packet. Each carries, or implies, the one outcome it is counted as.
#[derive(Clone, Copy)]
#[must_use]
pub enum Verdict<'t> {
    /// Leave it to the next program and the kernel's stack, unchanged.
    Pass(Outcome),
    /// End it here.
    Drop(Outcome),
    /// Bring it where its destination lives.
    Forward(Forward<'t>),
    /// The same, with other addresses and ports. Apart from `Forward`, so that what is not translated pays nothing.
    Translate {
        /// What it gets.
        rewrite: Tuple,
        /// Where to, then.
        forward: Forward<'t>,
    },
    /// Take its IPv4 options out and have it come again.
    RemoveOptions,
    /// Answer its sender.
    Answer(Answer),
    /// Remember that packets to `host` must not be larger than `mtu`, and pass it on.
    LearnPathMtu {
        /// Remote underlay host.
        host: u32,
        /// Largest inner packet.
        mtu: u32,
    },
}

/// What a packet's sender gets back. Every field is set, whatever the answer is made with: LLVM moves them all before it
/// asks, and the verifier refuses a register that was never set.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// What it is.
    pub with: With,
    /// Whose address an ICMP error comes from; else 0.
    pub source: u32,
    /// The MTU that "fragmentation needed" tells; else 0.
    pub mtu: u32,
    /// What it is counted as.
    pub outcome: Outcome,
}

impl Answer {
    /// An answer that needs no more.
    #[inline(always)]
    const fn with(with: With, outcome: Outcome) -> Self {
        Self { with, source: 0, mtu: 0, outcome }
    }
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// An ICMP error.
    Error(icmp::Error),
    /// A TCP reset.
    Reset,
    /// An echo reply.
    Echo,
}

/// Where a packet goes.
#[derive(Clone, Copy)]
pub enum Forward<'t> {
    /// Into a tunnel packet to `host`.
    Encapsulate {
        /// The fan it belongs to.
        fan: &'t FanRecord,
        /// Outer destination.
        host: u32,
        /// The packet is routed here: its TTL becomes one less.
        routed: bool,
    },
    /// Out of its tunnel packet, to `endpoint`, or to the stack when that is `None`.
    Decapsulate {
        /// The fan of the inner destination.
        fan: &'t FanRecord,
        /// Where the inner destination lives, if known.
        endpoint: Option<&'t EndpointRecord>,
        /// The TOS byte it gets.
        tos: u8,
    },
    /// To another endpoint of this host, with TTL one less.
    Deliver {
        /// The fan of the destination.
        fan: &'t FanRecord,
        /// Where the destination lives.
        endpoint: &'t EndpointRecord,
    },
    /// To this host's stack.
    ToHost {
        /// The fan of the destination. Programs need not know it here; but without it LLVM carries a register for it across
        /// the translation that nobody has set, which the verifier refuses.
        fan: &'t FanRecord,
    },
    /// Out as the routing table says, with TTL one less; [`unrouted`] where that says nothing.
    Route {
        /// Who sent it, to its address as it was.
        sender: Client<'t>,
    },
    /// Out of its tunnel packet, then as the routing table says.
    DecapsulateAndRoute {
        /// The TOS byte it gets.
        tos: u8,
    },
}

/// The answer to a packet that was to be [routed](Forward::Route) under the uplink's address and has no route: "host unreachable".
/// `None` where it goes to the stack all the same: it may not be answered, or goes to this host itself.
#[inline(always)]
pub fn unrouted<P: Packet + ?Sized>(packet: &P, sender: Client<'_>, rewrite: Tuple) -> Option<Answer> {
    if u32::from_be(rewrite.src) != sender.fan.address {
        return None;
    }
    let ip = Ipv4::new(packet.read(ETH_LEN)?);
    match answer(packet, sender.host(), &ip, icmp::Error::HostUnreachable, Outcome::DropHelperFailed) {
        Verdict::Answer(answer) => Some(answer),
        _ => None,
    }
}

impl Forward<'_> {
    /// Offset of the network header that is translated.
    #[inline(always)]
    pub const fn network_header(&self) -> usize {
        match self {
            Self::Decapsulate { .. } | Self::DecapsulateAndRoute { .. } => ETH_LEN + IPV4_LEN,
            Self::Encapsulate { .. } | Self::Deliver { .. } | Self::ToHost { .. } | Self::Route { .. } => {
                ETH_LEN
            }
        }
    }
}

/// [`Verdict::Pass`], off the common way.
#[inline(always)]
fn pass(outcome: Outcome) -> Verdict<'static> {
    off_the_common_way();
    Verdict::Pass(outcome)
}

/// [`Verdict::Drop`], off the common way.
#[inline(always)]
fn drop(outcome: Outcome) -> Verdict<'static> {
    off_the_common_way();
    Verdict::Drop(outcome)
}

/// [`Verdict::Translate`], or [`Verdict::Forward`] where there is nothing to be translated.
#[inline(always)]
fn forward(rewrite: Tuple, forward: Forward<'_>) -> Verdict<'_> {
    if rewrite.is_kept() { Verdict::Forward(forward) } else { Verdict::Translate { rewrite, forward } }
}

/// Keeps what follows in a block of its own. LLVM would otherwise put the stores of this exit's constants in front of
/// the branch to it, where every packet pays for every exit.
#[inline(always)]
pub fn off_the_common_way() {
    black_box(());
}

/// The fan whose overlay holds `address`.
#[inline(always)]
fn fan_of(config: &Config, address: u32) -> Option<&FanRecord> {
    find(config, |fan| address & fan.overlay_mask == fan.overlay)
}

/// The fan whose slice on this host holds `address`.
#[inline(always)]
fn own_fan_of(config: &Config, address: u32) -> Option<&FanRecord> {
    find(config, |fan| fan.in_use() && in_slice(fan, address))
}

/// Some fan of this node.
#[inline(always)]
fn any_fan(config: &Config) -> Option<&FanRecord> {
    find(config, FanRecord::in_use)
}

/// The first used slot that `wanted` accepts.
///
/// It is found by comparing, but taken by the number that stands in it: the verifier would follow every slot's address
/// through all that comes after, and multiply its work by the number of slots.
#[inline(always)]
fn find(config: &Config, wanted: impl Fn(&FanRecord) -> bool) -> Option<&FanRecord> {
    for (index, fan) in config.fans.iter().enumerate() {
        if index as u32 >= config.fan_slots {
            return None;
        }
        if wanted(fan) {
            return config.fans.get(fan.slot as usize % MAX_FANS);
        }
    }
    None
}

/// Whether `address` lies in this host's slice of a fan that is in use.
#[inline(always)]
fn in_slice(fan: &FanRecord, address: u32) -> bool {
    address & fan.slice_mask == fan.slice
}

#[inline(always)]
fn host_of(fan: &FanRecord, address: u32) -> u32 {
    fan::host_of(address, fan.overlay_mask, fan.underlay, fan.shift)
}

/// The underlay's network and broadcast address belong to no host.
#[inline(always)]
fn names_a_host(fan: &FanRecord, host: u32) -> bool {
    let bits = host & !fan.underlay_mask;
    bits != 0 && bits != !fan.underlay_mask
}

/// The IPv4 header of an untagged frame.
#[inline(always)]
fn ipv4_frame<P: Packet + ?Sized>(packet: &P, context: &impl Context) -> Option<Ipv4> {
    let ip = ipv4_at(packet, ETH_LEN)?;
    let eth: EthHdr = packet.read(0)?;
    let is_ipv4 = eth.ether_type == ETHERTYPE_IPV4.to_be();
    if is_ipv4 && !context.foreign_vlan() { Some(ip) } else { None }
}

/// The IPv4 header at `offset`.
#[inline(always)]
fn ipv4_at<P: Packet + ?Sized>(packet: &P, offset: usize) -> Option<Ipv4> {
    Some(Ipv4::new(packet.read(offset)?))
}

/// Size of the largest packet on the wire that this one becomes: its own length, or that of a segment.
#[inline(always)]
fn largest_packet<P: Packet + ?Sized>(packet: &P, context: &impl Context, ip: &Ipv4) -> u32 {
    let gso_size = context.gso_size();
    if gso_size == 0 {
        return ip.total_len;
    }
    let transport = if ip.header.proto == PROTO_TCP {
        // The data offset field counts 4-byte words: RFC 9293, section 3.1.
        let offset: Option<[u8; 1]> = packet.read(ETH_LEN + IPV4_LEN + 12);
        offset.map_or(20, |[byte]| u32::from(byte >> 4) * 4)
    } else {
        8
    };
    gso_size + ip.header_len + transport
}

/// Largest inner packet to `host`: the fan's, or less where a smaller path was learnt.
#[inline(always)]
fn mtu_to<T: Tables>(tables: &T, config: &Config, fan: &FanRecord, host: u32, size: u32) -> u32 {
    if size <= config.smallest_path_mtu {
        return fan.mtu;
    }
    match tables.path_mtu(host) {
        Some(mtu) if mtu < fan.mtu => mtu,
        _ => fan.mtu,
    }
}

/// An ICMP error from an address of this host, or `otherwise` where the packet may not be answered.
#[inline(always)]
fn answer<'t, P: Packet + ?Sized>(
    packet: &P,
    source: u32,
    ip: &Ipv4,
    error: icmp::Error,
    otherwise: Outcome,
) -> Verdict<'t> {
    answer_with(packet, ip, otherwise, (source, error, 0))
}

/// ICMP "fragmentation needed" from an address of this host, or a drop where the packet may not be answered.
#[inline(always)]
fn too_big<'t, P: Packet + ?Sized>(packet: &P, source: u32, ip: &Ipv4, mtu: u32) -> Verdict<'t> {
    answer_with(packet, ip, Outcome::DropTooBig, (source, icmp::Error::FragmentationNeeded, mtu))
}

#[inline(always)]
fn answer_with<'t, P: Packet + ?Sized>(
    packet: &P,
    ip: &Ipv4,
    otherwise: Outcome,
    (source, error, mtu): (u32, icmp::Error, u32),
) -> Verdict<'t> {
    // The kernel shell quotes this many bytes; a shorter packet has no transport header to answer about.
    let quote: Option<[u8; icmp::QUOTE_LEN]> = packet.read(ETH_LEN);
    let Some(quote) = quote else { return drop(otherwise) };
    let [.., kind, _, _, _, _, _, _, _] = quote;
    if !icmp::may_answer(ip, kind) {
        return drop(otherwise);
    }
    let outcome = match error {
        icmp::Error::FragmentationNeeded => Outcome::AnsweredTooBig,
        icmp::Error::TtlExceeded => Outcome::AnsweredTtlExceeded,
        icmp::Error::HostUnreachable | icmp::Error::PortUnreachable => Outcome::AnsweredUnreachable,
    };
    Verdict::Answer(Answer { with: With::Error(error), source, mtu, outcome })
}

#[cfg(test)]
mod tests;
