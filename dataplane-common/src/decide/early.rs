//! Packets from the underlay before the kernel makes anything of them: the hook in front of `uplink-ingress`.
//!
//! A tag still stands in the packet here, and super-packets are not put together yet. What this hook refuses
//! `uplink-ingress` would refuse, too, and by the same function; what it leaves alone that one decides and counts.

use super::{Context, Tables, ingress::judge, ipv4_frame};
use crate::{
    outcome::Outcome,
    packet::Packet,
    tunnel,
    verdict::{Action, Verdict},
    wire::{ETH_LEN, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Header, TAG_LEN},
};

/// What becomes of a packet at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Early {
    /// It goes on to `uplink-ingress`.
    GoOn,
    /// It ends here.
    Refuse(Outcome),
}

/// The first VLAN tag in a frame (IEEE 802.1Q).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// There is none.
    None,
    /// It only carries a priority.
    Priority,
    /// It names a VLAN.
    Vlan,
}

impl Tag {
    /// That of a frame.
    #[inline(always)]
    pub fn of<P: Packet + ?Sized>(packet: &P) -> Self {
        let words: Option<[u16; 2]> = packet.read(ETH_LEN - 2);
        words.map_or(Self::None, Self::of_words)
    }

    /// That of a frame with these words behind its MAC addresses, as on the wire.
    #[inline(always)]
    pub const fn of_words([kind, id]: [u16; 2]) -> Self {
        let kind = u16::from_be(kind);
        if kind != ETHERTYPE_VLAN && kind != ETHERTYPE_QINQ {
            return Self::None;
        }
        if u16::from_be(id) & 0x0fff == 0 { Self::Priority } else { Self::Vlan }
    }
}

/// Decides on a packet; `packet` and `context` are of the frame as it came from the wire.
#[inline(always)]
pub fn early<P: Packet + ?Sized, T: Tables>(packet: &P, context: &impl Context, tables: &T) -> Early {
    match Tag::of(packet) {
        Tag::None => untagged(packet, context, tables),
        // As if it were not there, as behind it, where the kernel has taken it out.
        Tag::Priority => untagged(&BehindTag(packet), &BehindTag(context), tables),
        Tag::Vlan => Early::GoOn,
    }
}

#[inline(always)]
fn untagged<P: Packet + ?Sized, T: Tables>(packet: &P, context: &impl Context, tables: &T) -> Early {
    let Some(outer) = ipv4_frame(packet, context) else { return Early::GoOn };
    if !tunnel::is_tunnel(&outer) {
        return Early::GoOn;
    }
    let Some(config) = tables.config() else { return Early::GoOn };
    match judge(packet, context, config, &outer) {
        // To which address it was sent is asked of the few that are to end here.
        Err(Verdict { action: Action::Drop, outcome, .. }) if context.to_us() => Early::Refuse(outcome),
        _ => Early::GoOn,
    }
}

/// A frame without its tag: offsets count as if that were not there, but for the MAC addresses in front of it, which nobody
/// reads by them.
struct BehindTag<'p, P: ?Sized>(&'p P);

impl<P: Packet + ?Sized> Packet for BehindTag<'_, P> {
    #[inline(always)]
    fn read<T: Header>(&self, offset: usize) -> Option<T> {
        self.0.read(offset + TAG_LEN)
    }

    #[inline(always)]
    fn copy<T: Header>(&self, offset: usize) -> Option<T> {
        self.0.copy(offset + TAG_LEN)
    }
}

impl<C: Context> Context for BehindTag<'_, C> {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.0.ifindex()
    }

    #[inline(always)]
    fn to_us(&self) -> bool {
        self.0.to_us()
    }

    #[inline(always)]
    fn foreign_vlan(&self) -> bool {
        self.0.foreign_vlan()
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        self.0.gso_size()
    }

    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.0.frame_len().saturating_sub(TAG_LEN as u32)
    }

    #[inline(always)]
    fn is_translated(&self) -> bool {
        self.0.is_translated()
    }
}
