//! Out of the uplink, with the link-layer address of the next hop filled in by the kernel.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        bpf_fib_lookup as FibLookup, bpf_redir_neigh as NextHop,
    },
    helpers::{bpf_fib_lookup, bpf_redirect_neigh},
};
use dataplane_common::{abi::FanRecord, decide::Context as _, wire::mac_words};

use crate::packet::{Frame, Refused};

const AF_INET: u32 = 2;

const _: () = assert!(size_of::<NextHop>() == 20);
const _: () = assert!(size_of::<FibLookup>().is_multiple_of(size_of::<u64>()));

/// Sends the frame to `host`.
///
/// `bpf_redirect_neigh` resolves neighbours itself: no packet is lost to a cold table. Given the next hop, it
/// skips the route look-up; but a packet of the host's own stack (`routed` is false) still has the route that led it
/// to the helper device, and the kernel, once the neighbour has answered, sends what waited by the packet's route. The
/// look-up gives it the right one.
#[inline(always)]
pub fn send(frame: &Frame, fan: &FanRecord, host: u32, routed: bool) -> Result<i32, Refused> {
    if fan.uplink == 0 {
        return by_route(frame, fan, host);
    }
    if !routed || host & fan.onlink_mask != fan.onlink {
        return Ok(redirect(fan.uplink, ptr::null_mut(), 0));
    }
    Ok(to(fan.uplink, AF_INET, [host.to_be(), 0, 0, 0]))
}

/// With several uplinks the routing table says which; the neighbour is still resolved by the redirection.
#[inline(always)]
fn by_route(frame: &Frame, fan: &FanRecord, host: u32) -> Result<i32, Refused> {
    let mut params = MaybeUninit::uninit();
    // The decision has compared the size with the path.
    match egress(frame, (fan.address.to_be(), host.to_be()), 1, &mut params) {
        Some((params, _)) => Ok(redirect(params.ifindex, ptr::null_mut(), 0)),
        None => Err(Refused),
    }
}

/// Where the routing table leads a packet.
#[derive(Clone, Copy)]
pub struct Way {
    /// The MTU that the packet is too large for; 0 where it fits.
    pub exceeded: u32,
    ifindex: u32,
    family: u32,
    next: [u32; 4],
}

impl Way {
    /// Sends the frame. `routed`: as for [`send`].
    #[inline(always)]
    pub fn go(self, routed: bool) -> i32 {
        if !routed {
            return redirect(self.ifindex, ptr::null_mut(), 0);
        }
        to(self.ifindex, self.family, self.next)
    }
}

/// Where the routing table leads a packet of `size` bytes with these addresses; `None` where that is no other host.
#[inline(always)]
pub fn way(frame: &Frame, (src, dst): (u32, u32), size: u32) -> Option<Way> {
    let mut params = MaybeUninit::uninit();
    let (params, fits) = egress(frame, (src, dst), size as u16, &mut params)?;
    // SAFETY: the helper has put the next hop there, an address of either family, or the MTU in place of the size.
    let (next, mtu) = unsafe { (params.__bindgen_anon_4.ipv6_dst, params.__bindgen_anon_1.mtu_result) };
    let exceeded = if fits { 0 } else { u32::from(mtu) };
    Some(Way { exceeded, ifindex: params.ifindex, family: u32::from(params.family), next })
}

/// The link-layer addresses of a frame to a neighbour behind an interface, its own first; `None` where the routing table
/// leads elsewhere, or the neighbour's is not known.
#[inline(always)]
pub fn neighbour(frame: &Frame, ifindex: u32, src: u32, dst: u32) -> Option<[[u16; 3]; 2]> {
    let mut params = MaybeUninit::uninit();
    let (params, _) = egress(frame, (src, dst), 0, &mut params)?;
    let macs = [mac_words(&params.dmac), mac_words(&params.smac)];
    (params.ifindex == ifindex && macs[0] != [0; 3]).then_some(macs)
}

/// Where the routing table leads to, and whether a packet of `size` bytes fits there.
///
/// Given a size, the kernel compares it with the MTU of the device, of a locked route, or of a path that it has learnt, before
/// it looks for a neighbour (`bpf_ipv4_fib_lookup`). Without one it compares the whole of a single packet with the device's
/// alone, and that only where the neighbour is known.
#[inline(always)]
fn egress<'p>(
    frame: &Frame,
    (src, dst): (u32, u32),
    size: u16,
    params: &'p mut MaybeUninit<FibLookup>,
) -> Option<(&'p FibLookup, bool)> {
    let params = params.as_mut_ptr();
    for index in 0..size_of::<FibLookup>() / size_of::<u64>() {
        // SAFETY: the structure, of integers, is these words, written one by one: rule 5 of `codegen`.
        unsafe { params.cast::<u64>().add(index).write_volatile(0) };
    }
    // SAFETY: every byte is written, and zeros are a valid value; the fields of both unions are addresses of four bytes.
    // The helper reads and writes the live structure of the given size; the context is the program's own.
    let code = unsafe {
        (&raw mut (*params).family).write_volatile(AF_INET as u8);
        (&raw mut (*params).__bindgen_anon_1.tot_len).write_volatile(size);
        (&raw mut (*params).__bindgen_anon_3.ipv4_src).write_volatile(src);
        (&raw mut (*params).__bindgen_anon_4.ipv4_dst).write_volatile(dst);
        (&raw mut (*params).ifindex).write_volatile(frame.ifindex());
        bpf_fib_lookup(frame.as_ptr(), params, size_of::<FibLookup>() as i32, 0)
    };
    match code as u32 {
        // SAFETY: as above.
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => Some((unsafe { &*params }, true)),
        // SAFETY: as above.
        BPF_FIB_LKUP_RET_FRAG_NEEDED => Some((unsafe { &*params }, false)),
        _ => None,
    }
}

/// Out of an interface to a next hop, whose link-layer address the kernel fills in.
#[inline(always)]
fn to(ifindex: u32, family: u32, address: [u32; 4]) -> i32 {
    let mut next = MaybeUninit::<NextHop>::uninit();
    let words = next.as_mut_ptr().cast::<u32>();
    let [a, b, c, d] = address;
    // Rule 5 of `codegen`: the call would cost as much as all the rest here.
    for (index, word) in [family, a, b, c, d].into_iter().enumerate() {
        // SAFETY: the structure is these five words: family, and an address of up to 16 bytes.
        unsafe { words.add(index).write_volatile(word) };
    }
    redirect(ifindex, next.as_mut_ptr(), size_of::<NextHop>() as i32)
}

#[inline(always)]
fn redirect(ifindex: u32, next: *mut NextHop, len: i32) -> i32 {
    // SAFETY: `next` is null with length 0, or a live structure of that length; the helper copies it.
    unsafe { bpf_redirect_neigh(ifindex, next, len, 0) as i32 }
}
