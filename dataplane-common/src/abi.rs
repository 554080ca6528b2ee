//! Layout of every map that the programs and the agent share.
//!
//! Types are `repr(C)` without implicit padding and end in spare bytes. Any change of a layout raises [`LAYOUT`],
//! which names the pin directory: a binary never touches maps of another layout.
//! Addresses and masks are in host order unless a field says otherwise.

use bytemuck::{Pod, Zeroable};

use crate::outcome::{Hook, Outcome};

mod flow;
mod service;
mod tracked;
mod uplinks;
mod watch;

pub use flow::*;
pub use service::*;
pub use tracked::*;
pub use uplinks::*;
pub use watch::*;

/// Number of this layout.
pub const LAYOUT: u32 = 1;

/// Most fans of one node.
pub const MAX_FANS: usize = 8;
/// Endpoints that the table holds.
pub const MAX_ENDPOINTS: u32 = 65_536;
/// Remote hosts whose path MTU is remembered.
pub const MAX_PATHS: u32 = 16_384;
/// Counters per hook: room for outcomes to come.
pub const OUTCOMES_PER_HOOK: u32 = 64;
/// Entries of the counter array.
pub const COUNTERS: u32 = OUTCOMES_PER_HOOK * 16;
/// Bytes of the event ring.
pub const EVENT_RING_BYTES: u32 = 64 * 1024;
/// How long a learnt path MTU counts, in nanoseconds (RFC 1191, section 6.3: ten minutes).
pub const PATH_MTU_LIFE_NS: u64 = 600_000_000_000;
/// The smallest next-hop MTU that is believed: below it an ICMP error is ignored.
pub const MIN_PATH_MTU: u32 = 576;

const _: () = assert!(Outcome::COUNT <= OUTCOMES_PER_HOOK && Hook::COUNT <= 16);

/// Index of a counter.
#[inline(always)]
pub const fn counter_index(hook: Hook, outcome: Outcome) -> u32 {
    hook as u32 * OUTCOMES_PER_HOOK + outcome as u32
}

/// The one element of map `config`, memory-mapped by the agent.
///
/// A fan is published by writing its record into an unused slot and then storing its
/// [`overlay`](FanRecord::overlay) and mask in one aligned 8-byte store; it is withdrawn by storing
/// [`FanRecord::UNUSED`] there. Readers need no lock and never see half a fan.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// Fan records; a program looks at the first [`fan_slots`](Self::fan_slots).
    pub fans: [FanRecord; MAX_FANS],
    /// How many slots have ever been used.
    pub fan_slots: u32,
    /// Interface index of the helper device.
    pub helper: u32,
    /// MAC address of the helper device.
    pub helper_mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
    /// No remote host's learnt path MTU (inner bytes) is smaller: packets up to it need no look-up.
    pub smallest_path_mtu: u32,
    /// 0: this node has no service, and programs look for none.
    pub services: u32,
    /// First and last of the ports that a translated source gets.
    pub nat_ports: [u16; 2],
    /// Up to which moment of the coarse clock ([`SEEN_SHIFT`]) no uplink of the fan in that slot carries anything; 0: one does.
    /// Looked at where [`smallest_path_mtu`](Self::smallest_path_mtu) is [`PathRecord::SILENT`].
    pub cut_off: [u32; MAX_FANS],
    /// Why packets may have to go by the stack: [`Config::TRANSLATED`], and [`Config::FILTERED`] of fans.
    pub detours: u32,
    /// 1: what filters of the host's drop is no reason for a packet to go by the stack; 0: it is.
    pub ignores_filters: u32,
    /// Zero.
    pub spare: [u8; 60],
}

impl Config {
    /// Bit of [`detours`](Self::detours): connection tracking has translated a packet between overlay addresses. The programs
    /// set it, by a store of its byte.
    pub const TRANSLATED: u32 = u32::from_ne_bytes([1, 0, 0, 0]);

    /// Bit of [`detours`](Self::detours) for the fan in slot 0, and the next for the next: packet filters of the host's may drop
    /// packets of that fan, and are to see all of them. Set by the agent, in a byte of its own.
    pub const FILTERED: u32 = u32::from_ne_bytes([0, 1, 0, 0]);

    /// All of them.
    pub const ANY_FILTERED: u32 = Self::FILTERED * 0xff;

    /// The bit of a slot.
    #[inline(always)]
    pub const fn filtered(slot: u32) -> u32 {
        Self::FILTERED << (slot % MAX_FANS as u32)
    }

    /// Ports that a translated source gets unless the agent says otherwise: above the ephemeral ports of Linux.
    pub const NAT_PORTS: [u16; 2] = [61_000, u16::MAX];

    /// The first of the ports that a translated source gets, and how many there are.
    #[inline(always)]
    pub const fn snat_ports(&self) -> (u16, u16) {
        let [first, last] = if self.nat_ports[0] == 0 { Self::NAT_PORTS } else { self.nat_ports };
        (first, last.wrapping_sub(first).wrapping_add(1))
    }
}

/// One fan of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FanRecord {
    /// Overlay network.
    pub overlay: u32,
    /// Its mask.
    pub overlay_mask: u32,
    /// Underlay network.
    pub underlay: u32,
    /// Its mask.
    pub underlay_mask: u32,
    /// This host's slice of the overlay.
    pub slice: u32,
    /// Its mask.
    pub slice_mask: u32,
    /// This host's underlay address: outer source of what we send, outer destination of what we accept.
    pub address: u32,
    /// This host's address in the slice.
    pub gateway: u32,
    /// Largest inner packet the uplink carries.
    pub mtu: u32,
    /// Interface index of the uplink; 0: ask the routing table (several uplinks).
    pub uplink: u32,
    /// Network whose hosts are their own next hop on the uplink, so that no route look-up is needed.
    pub onlink: u32,
    /// Its mask; with `onlink` = 0xffffffff and mask 0 no address matches.
    pub onlink_mask: u32,
    /// Interface index of the bridge.
    pub bridge: u32,
    /// MAC address of the bridge: the gateway as endpoints see it.
    pub bridge_mac: [u8; 6],
    /// Bits between overlay and underlay address.
    pub shift: u8,
    /// How packets are carried: [`Encapsulation`].
    pub encapsulation: u8,
    /// This record's own place in [`Config::fans`], see [`crate::decide`]; written with the record.
    pub slot: u32,
    /// Interface index of the bridge's port for super-packets to endpoints that are not known; 0: by the stack.
    pub inlet: u32,
    /// Interface index of the other end of that port, which takes no super-packets: what is sent through it comes to the bridge in
    /// segments; 0: there is none.
    pub outlet: u32,
    /// Zero.
    pub spare: [u8; 24],
}

impl FanRecord {
    /// `overlay` and `overlay_mask` of a slot that matches no address.
    pub const UNUSED: (u32, u32) = (u32::MAX, 0);
    /// `onlink` and `onlink_mask` when every destination needs a route look-up.
    pub const NOTHING_ONLINK: (u32, u32) = (u32::MAX, 0);

    /// The record as it stands in a slot.
    pub const fn at(self, slot: usize) -> Self {
        Self { slot: slot as u32, ..self }
    }

    /// Whether the slot holds a published fan.
    pub fn in_use(&self) -> bool {
        self.overlay_mask != 0
    }
}

/// How a fan's packets are carried; the value of [`FanRecord::encapsulation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encapsulation {
    /// IPv4 in IPv4, protocol 4 (RFC 2003).
    Ipip = 0,
}

impl Encapsulation {
    /// Bytes that the outer header adds.
    pub const fn overhead(self) -> u32 {
        match self {
            Self::Ipip => 20,
        }
    }
}

/// Value of map `endpoints`, keyed by the endpoint's overlay address (4 bytes, network order), and element of map
/// `near`. Written by the agent from the kernel's neighbour and forwarding tables, read by every hook.
///
/// `near` holds endpoints by the low bits of their address, which an array look-up finds at a tenth of a hash
/// look-up's price. It is only ever a copy of `endpoints`, complete for slices of up to [`NEAR_SLOTS`] addresses; where
/// two endpoints want one slot, the later is found in `endpoints` alone. There the agent stores the second eight bytes
/// before the first, and clears the first before it changes the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct EndpointRecord {
    /// The endpoint's overlay address; 0 in a free slot of `near`.
    pub address: u32,
    /// Host-side interface: the veth or bridge port behind which the endpoint lives.
    pub ifindex: u32,
    /// The endpoint's MAC address.
    pub mac: [u8; 6],
    /// [`EndpointRecord::PEER`] or 0.
    pub flags: u16,
}

/// Slots of map `near`: 256 KiB.
pub const NEAR_SLOTS: u32 = 16_384;

impl EndpointRecord {
    /// The interface is a veth whose peer is in another namespace: `bpf_redirect_peer` reaches it.
    pub const PEER: u16 = 1;

    /// The slot of an address in map `near`. The bits above the slot's are mixed in, so that the fans of a node rarely
    /// share one.
    #[inline(always)]
    pub const fn near_slot(address: u32) -> u32 {
        (address ^ (address >> 14)) & (NEAR_SLOTS - 1)
    }
}

/// Value of map `paths`, keyed by the remote host's underlay address (4 bytes, network order).
/// Written by `uplink-ingress` and, of hosts that are silent, by the agent; read by every sending hook and by the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PathRecord {
    /// When it stops counting, `CLOCK_MONOTONIC` nanoseconds.
    pub until: u64,
    /// Largest inner packet; [`PathRecord::SILENT`]: the host does not answer its neighbours.
    pub mtu: u32,
    /// Zero.
    pub spare: u32,
}

impl PathRecord {
    /// [`mtu`](Self::mtu) of a host to which nothing gets.
    pub const SILENT: u32 = 0;
}

/// What the programs tell the agent through ring buffer `events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Event {
    /// [`Event::PATH_MTU`].
    pub kind: u32,
    /// The remote host, host order.
    pub host: u32,
    /// Largest inner packet to it.
    pub mtu: u32,
    /// Zero.
    pub spare: u32,
}

impl Event {
    /// A smaller path to a remote host was learnt.
    pub const PATH_MTU: u32 = 1;
}

const _: () = {
    assert!(size_of::<FanRecord>() == 96);
    assert!(size_of::<Config>() == 8 * 96 + 128);
    assert!(size_of::<EndpointRecord>() == 16);
    assert!(size_of::<PathRecord>() == 16);
    assert!(size_of::<Event>() == 16);
};
