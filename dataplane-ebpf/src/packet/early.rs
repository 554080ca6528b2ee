//! Frames as drivers hand them to XDP programs, before there is an `skb`.

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_get_buff_len, programs::XdpContext};
use dataplane_common::{
    decide::Context,
    packet::Packet,
    tunnel,
    wire::{Header, IPV4_LEN, TAG_LEN},
};

use super::header_in;
use crate::maps;

/// Bytes that decisions may read: Ethernet, a tag, outer and inner header.
const LINEAR: usize = TAG_LEN + tunnel::INNER + IPV4_LEN;

/// The frame that an XDP program runs on.
pub struct EarlyFrame {
    md: *mut xdp_md,
}

impl EarlyFrame {
    /// Takes the frame; `None` where some of its headers lie beyond the first buffer, of which alone bytes can be read in place.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Option<Self> {
        let frame = Self { md: ctx.ctx };
        let (data, end) = frame.bounds();
        let is_whole = end - data >= LINEAR || frame.frame_len() as usize <= end - data;
        is_whole.then_some(frame)
    }

    /// Context pointer for helpers.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut xdp_md {
        self.md
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the context that the kernel passed to this program.
        let md = unsafe { &*self.md };
        (md.data as usize, md.data_end as usize)
    }
}

impl Context for EarlyFrame {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context that the kernel passed to this program.
        unsafe { (*self.md).ingress_ifindex }
    }

    /// The kernel compares the addresses only when it makes an `skb`.
    #[inline(always)]
    fn to_us(&self) -> bool {
        let to: Option<[u16; 3]> = self.read(0);
        to.is_some_and(|mac| maps::is_own_mac(self.ifindex(), mac))
    }

    /// A tag stands in the frame here, and not beside it.
    #[inline(always)]
    fn foreign_vlan(&self) -> bool {
        false
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn frame_len(&self) -> u32 {
        // SAFETY: a helper call on the program's own context.
        unsafe { bpf_xdp_get_buff_len(self.md) as u32 }
    }

    /// Connection tracking comes later.
    #[inline(always)]
    fn is_translated(&self) -> bool {
        false
    }
}

impl Packet for EarlyFrame {
    #[inline(always)]
    fn read<T: Header>(&self, offset: usize) -> Option<T> {
        header_in(self.bounds(), offset)
    }
}
