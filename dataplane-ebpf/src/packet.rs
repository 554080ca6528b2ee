//! The only place that does pointer arithmetic on packets.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::{
        bpf_l4_csum_replace, bpf_redirect, bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_tail,
        bpf_skb_change_type, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop,
    },
    programs::TcContext,
};
use dataplane_common::{
    abi::{SEGMENT_MARK, TRACKED_MARK},
    decide::Context,
    outcome::Hook,
    packet::Packet,
    tunnel,
    verdict::Words,
    wire::{ETH_LEN, Header, IPV4_LEN, TcpHdr},
};

use crate::maps::Maps;

mod early;

pub use early::EarlyFrame;

/// Bytes that decisions may read: Ethernet, IPv4, the first of TCP; from the underlay behind another IPv4 header, or ICMP
/// and a quoted IPv4 header. Not one more: what a driver or TCP left in page fragments, a request makes the kernel copy.
const fn linear(hook: Hook) -> u32 {
    let bytes = ETH_LEN + IPV4_LEN + size_of::<TcpHdr>();
    (if hook as u32 == Hook::UplinkIngress as u32 { bytes + tunnel::OVERHEAD } else { bytes }) as u32
}

/// `PACKET_HOST` of `linux/if_packet.h`: the frame was sent to the receiving interface's own address.
const PACKET_HOST: u32 = 0;

/// A helper's refusal.
pub struct Refused;

/// A header at an even offset of a packet.
///
/// Rule 9 of [`codegen`](dataplane_common::codegen). The promise is the verifier's to keep: it counts
/// packets as starting two bytes (`NET_IP_ALIGN`) behind a word boundary, refuses accesses that are misaligned by
/// that count where the machine cannot make them, and lets the machine make them elsewhere.
#[repr(C, align(2))]
pub struct Even<T>(pub T);

/// A header on a word boundary, by the verifier's count ([`Header::ON_WORD`]).
#[repr(C, align(4))]
pub struct Word<T>(pub T);

/// The frame that a program runs on.
pub struct Frame {
    skb: *mut __sk_buff,
    /// The maps that its decisions read.
    pub maps: Maps,
}

impl Frame {
    /// Takes the frame and makes sure that its headers can be read directly.
    #[inline(always)]
    pub fn new(ctx: &TcContext, hook: Hook) -> Self {
        let frame = Self { skb: ctx.skb.skb, maps: Maps::new() };
        let (data, end) = frame.bounds();
        let linear = (end - data) as u32;
        let needed = self::linear(hook);
        if linear < needed && linear < ctx.len() {
            // Drivers may leave all but the Ethernet header in page fragments.
            let wanted = if ctx.len() < needed { ctx.len() } else { needed };
            // SAFETY: a helper call on the program's own context; a failure leaves the packet as it is.
            unsafe { bpf_skb_pull_data(frame.skb, wanted) };
        }
        frame
    }

    /// The frame that another program has handed over, its hook, and what that program has found.
    #[inline(always)]
    pub fn handed_over(ctx: &TcContext) -> (Self, Hook, Words) {
        let frame = Self { skb: ctx.skb.skb, maps: Maps::new() };
        let [hook, a, b, c, d] = frame.context().cb;
        (frame, Hook::of(hook), [a, b, c, d])
    }

    /// Puts down what the next program is to know.
    #[inline(always)]
    pub fn hand_over(&mut self, hook: Hook, [a, b, c, d]: Words) {
        // SAFETY: the context that the kernel passed to this program, of which these words may be written.
        unsafe { (*self.skb).cb = [hook as u32, a, b, c, d] };
    }

    #[inline(always)]
    fn context(&self) -> &__sk_buff {
        // SAFETY: the context that the kernel passed to this program; the verifier checks each field that is read.
        unsafe { &*self.skb }
    }

    /// Read anew each time: a helper that changes the packet moves it.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        let context = self.context();
        (context.data as usize, context.data_end as usize)
    }

    /// Headers in place, to be changed. Invalid after the next helper that changes the packet.
    #[inline(always)]
    pub fn even<T: Header>(&mut self, offset: usize) -> Result<&mut Even<T>, Refused> {
        self.in_place(offset)
    }

    /// As [`even`](Self::even), for headers on a word boundary.
    #[inline(always)]
    pub fn word<T: Header>(&mut self, offset: usize) -> Result<&mut Word<T>, Refused> {
        const { assert!(T::ON_WORD) };
        self.in_place(offset)
    }

    #[inline(always)]
    fn in_place<T>(&mut self, offset: usize) -> Result<&mut T, Refused> {
        let (data, end) = self.bounds();
        if data + offset + size_of::<T>() > end {
            return Err(Refused);
        }
        // SAFETY: the bytes lie inside the packet (checked above, and by the verifier), `T` is a wrapper of a header,
        // for which every bit pattern is valid, and `&mut self` keeps this the only reference. For the alignment see
        // `Even`.
        Ok(unsafe { &mut *((data + offset) as *mut T) })
    }

    /// Adds or removes `bytes` behind the Ethernet header.
    #[inline(always)]
    pub fn adjust_room(&mut self, bytes: i32, flags: u64) -> Result<(), Refused> {
        const BPF_ADJ_ROOM_MAC: u32 = 1;
        // SAFETY: a helper call on the program's own context.
        done(unsafe { bpf_skb_adjust_room(self.skb, bytes, BPF_ADJ_ROOM_MAC, flags) })
    }

    /// Removes `bytes` behind the first 20 of the IPv4 header.
    #[inline(always)]
    pub fn remove_behind_ipv4(&mut self, bytes: u32) -> Result<(), Refused> {
        const BPF_ADJ_ROOM_NET: u32 = 0;
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
        // SAFETY: a helper call on the program's own context.
        done(unsafe { bpf_skb_adjust_room(self.skb, -(bytes as i32), BPF_ADJ_ROOM_NET, flags) })
    }

    /// Cuts or extends the frame to `len` bytes; drops its segmentation state.
    #[inline(always)]
    pub fn change_tail(&mut self, len: u32) -> Result<(), Refused> {
        // SAFETY: a helper call on the program's own context.
        done(unsafe { bpf_skb_change_tail(self.skb, len, 0) })
    }

    /// Removes a VLAN tag that only carries a priority.
    #[inline(always)]
    pub fn pop_priority_tag(&mut self) -> Result<(), Refused> {
        if self.context().vlan_present == 0 {
            return Ok(());
        }
        // SAFETY: a helper call on the program's own context.
        done(unsafe { bpf_skb_vlan_pop(self.skb) })
    }

    /// Has a rule of ours in nf_tables leave the packet to connection tracking.
    #[inline(always)]
    pub fn have_tracked(&mut self) {
        self.set_mark(self.context().mark | TRACKED_MARK);
    }

    /// Marks the packet as one that is to be cut into segments, which may be done once: says whether it was marked already.
    #[inline(always)]
    pub fn mark_as_segment(&mut self) -> bool {
        let mark = self.context().mark;
        self.set_mark(mark | SEGMENT_MARK);
        mark & SEGMENT_MARK != 0
    }

    /// Takes that mark off.
    #[inline(always)]
    pub fn unmark_segment(&mut self) {
        self.set_mark(self.context().mark & !SEGMENT_MARK);
    }

    #[inline(always)]
    fn set_mark(&self, mark: u32) {
        // SAFETY: the context that the kernel passed to this program, of which this field may be written.
        unsafe { (*self.skb).mark = mark }
    }

    /// Marks the frame as sent to whoever receives it next.
    #[inline(always)]
    pub fn set_to_us(&mut self) -> Result<(), Refused> {
        // SAFETY: a helper call on the program's own context.
        done(unsafe { bpf_skb_change_type(self.skb, PACKET_HOST) })
    }

    /// Writes `bytes` at `offset`.
    #[inline(always)]
    pub fn store<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> Result<(), Refused> {
        // SAFETY: `bytes` is readable for N bytes; the helper checks the offset against the packet.
        done(unsafe { bpf_skb_store_bytes(self.skb, offset as u32, bytes.as_ptr().cast(), N as u32, 0) })
    }

    /// Corrects the transport checksum at `offset` after addresses changed by a [difference](dataplane_common::checksum::difference).
    #[inline(always)]
    pub fn change_address_sum(&mut self, offset: usize, difference: u32, tcp: bool) -> Result<(), Refused> {
        self.change_sum(offset, difference, u64::from(BPF_F_PSEUDO_HDR) | Self::keeps_no_sum(tcp))
    }

    /// Corrects the transport checksum at `offset` after ports changed by a difference.
    #[inline(always)]
    pub fn change_port_sum(&mut self, offset: usize, difference: u32, tcp: bool) -> Result<(), Refused> {
        self.change_sum(offset, difference, Self::keeps_no_sum(tcp))
    }

    /// A size of 0 in `flags` says that a difference is given.
    #[inline(always)]
    fn change_sum(&mut self, offset: usize, difference: u32, flags: u64) -> Result<(), Refused> {
        // SAFETY: a helper call on the program's own context; it checks the offset against the packet.
        done(unsafe { bpf_l4_csum_replace(self.skb, offset as u32, 0, u64::from(difference), flags) })
    }

    /// A UDP checksum of zero means that there is none (RFC 768).
    #[inline(always)]
    fn keeps_no_sum(tcp: bool) -> u64 {
        if tcp { 0 } else { u64::from(BPF_F_MARK_MANGLED_0) }
    }

    /// Sends the frame out of an interface, or into it with `BPF_F_INGRESS`.
    #[inline(always)]
    pub fn redirect(&self, ifindex: u32, flags: u64) -> i32 {
        // SAFETY: only records the target for the kernel to act on.
        unsafe { bpf_redirect(ifindex, flags) as i32 }
    }

    /// Puts the frame into the namespace at the other end of a veth, past its queue.
    #[inline(always)]
    pub fn redirect_peer(&self, ifindex: u32) -> i32 {
        // SAFETY: only records the target for the kernel to act on.
        unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
    }

    /// Context pointer for helpers that take any program's.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut core::ffi::c_void {
        self.skb.cast()
    }
}

impl Context for Frame {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.context().ifindex
    }

    #[inline(always)]
    fn to_us(&self) -> bool {
        self.context().pkt_type == PACKET_HOST
    }

    #[inline(always)]
    fn foreign_vlan(&self) -> bool {
        let context = self.context();
        context.vlan_present != 0 && context.vlan_tci & 0x0fff != 0
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        self.context().gso_size
    }

    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.context().len
    }

    #[inline(always)]
    fn is_translated(&self) -> bool {
        let mark = self.context().mark;
        if mark & TRACKED_MARK == 0 {
            return false;
        }
        self.set_mark(mark & !TRACKED_MARK);
        true
    }
}

/// The header at an offset of a packet that lies between two addresses.
#[inline(always)]
fn header_in<T: Header>((data, end): (usize, usize), offset: usize) -> Option<T> {
    if data + offset + size_of::<T>() > end {
        return None;
    }
    // SAFETY: the bytes lie inside the packet (checked above, and by the verifier: it refuses a program that reads beyond
    // what it has compared) and every bit pattern is a valid `T`; for the alignment see `Even` and `Word`.
    Some(unsafe {
        if T::ON_WORD {
            (*((data + offset) as *const Word<T>)).0
        } else {
            (*((data + offset) as *const Even<T>)).0
        }
    })
}

impl Packet for Frame {
    #[inline(always)]
    fn read<T: Header>(&self, offset: usize) -> Option<T> {
        header_in(self.bounds(), offset)
    }

    #[inline(always)]
    fn copy<T: Header>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: a helper call on the program's own context, with room for the bytes it writes.
        let code = unsafe {
            bpf_skb_load_bytes(
                self.skb.cast(),
                offset as u32,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            )
        };
        // SAFETY: the helper has written every byte, and every bit pattern is a valid `T`.
        if code == 0 { Some(unsafe { value.assume_init() }) } else { None }
    }
}

#[inline(always)]
fn done(code: i64) -> Result<(), Refused> {
    if code == 0 { Ok(()) } else { Err(Refused) }
}

/// Destination and source MAC address, as they stand at the start of a frame.
pub type Macs = [u8; ETH_LEN - 2];
