//! Out of the uplink, with the link-layer address of the next hop filled in by the kernel.

use core::{mem, ptr};

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup,
        bpf_redir_neigh as NextHop,
    },
    helpers::{bpf_fib_lookup, bpf_redirect_neigh},
};
use dataplane_common::abi::FanRecord;

use crate::packet::{Frame, Refused};

const AF_INET: u32 = 2;

/// Sends the frame to `host`.
///
/// `bpf_redirect_neigh` resolves neighbours itself: no packet is lost to a cold table. Given the next hop, it
/// skips the route look-up.
#[inline(always)]
pub fn send(frame: &Frame, fan: &FanRecord, host: u32) -> Result<i32, Refused> {
    if fan.uplink == 0 {
        return by_route(frame, fan, host);
    }
    if host & fan.onlink_mask != fan.onlink {
        return Ok(redirect(fan.uplink, ptr::null_mut(), 0));
    }
    // SAFETY: all-zero bytes are a valid value of this structure of integers.
    let mut next: NextHop = unsafe { mem::zeroed() };
    next.nh_family = AF_INET;
    next.__bindgen_anon_1.ipv4_nh = host.to_be();
    Ok(redirect(fan.uplink, &raw mut next, size_of::<NextHop>() as i32))
}

/// With several uplinks the routing table says which; the neighbour is still resolved by the redirection.
#[inline(always)]
fn by_route(frame: &Frame, fan: &FanRecord, host: u32) -> Result<i32, Refused> {
    // SAFETY: all-zero bytes are a valid value of this structure of integers.
    let mut params: FibLookup = unsafe { mem::zeroed() };
    params.family = AF_INET as u8;
    params.__bindgen_anon_3.ipv4_src = fan.address.to_be();
    params.__bindgen_anon_4.ipv4_dst = host.to_be();
    // SAFETY: `params` is a live structure of the given size; the context is the program's own.
    let code = unsafe {
        params.ifindex = (*frame.as_ptr().cast::<aya_ebpf::bindings::__sk_buff>()).ifindex;
        bpf_fib_lookup(frame.as_ptr(), &raw mut params, size_of::<FibLookup>() as i32, 0)
    };
    match code as u32 {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => {
            Ok(redirect(params.ifindex, ptr::null_mut(), 0))
        }
        _ => Err(Refused),
    }
}

#[inline(always)]
fn redirect(ifindex: u32, next: *mut NextHop, len: i32) -> i32 {
    // SAFETY: `next` is null with length 0, or a live structure of that length; the helper copies it.
    unsafe { bpf_redirect_neigh(ifindex, next, len, 0) as i32 }
}
