//! What this kernel can do, found by trying it on nothing that matters.

use std::{io, os::fd::AsFd as _};

use aya_obj::generated::bpf_attach_type::BPF_TCX_INGRESS;

use super::{
    error::{Context as _, Result},
    sys::{self, Insn},
};

/// How programs are attached to an interface's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Links on the tcx hooks (kernel 6.6 and later).
    Tcx,
    /// Filters of the clsact queueing discipline.
    Clsact,
}

/// `BPF_F_ADJ_ROOM_DECAP_L3_IPV4`, new in kernel 6.3.
const DECAP_L3_IPV4: i32 = 1 << 7;
const FIXED_GSO: i32 = 1;

/// The attach mechanism of this kernel: whether it knows the tcx hook of the loopback device.
pub(super) fn mechanism() -> Result<Mechanism> {
    const LOOPBACK: u32 = 1;
    match sys::query(LOOPBACK, BPF_TCX_INGRESS) {
        Ok(_) => Ok(Mechanism::Tcx),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Mechanism::Clsact),
        Err(source) => Err(source).during(|| "asking which tc hooks this kernel has".to_owned()),
    }
}

/// The flag for taking an IPv4 header off, or 0 where the kernel does not know it (and needs none).
pub(super) fn decap_flags() -> Result<u64> {
    let run = sys::load_classifier(&adjust_room(DECAP_L3_IPV4 | FIXED_GSO))
        .and_then(|program| sys::test_run(program.as_fd(), &tunnel_frame(), &[], &mut []))
        .during(|| "trying how this kernel removes a header".to_owned())?;
    Ok(if run.result == 0 { DECAP_L3_IPV4 as u64 } else { 0 })
}

/// `return bpf_skb_adjust_room(skb, -20, BPF_ADJ_ROOM_MAC, flags)`; the context is in r1 already.
fn adjust_room(flags: i32) -> [Insn; 5] {
    const MOV_IMMEDIATE: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const ADJUST_ROOM: i32 = 50;
    let insn = |code, registers, immediate| Insn { code, registers, offset: 0, immediate };
    [
        insn(MOV_IMMEDIATE, 2, -20),
        insn(MOV_IMMEDIATE, 3, 1),
        insn(MOV_IMMEDIATE, 4, flags),
        insn(CALL, 0, ADJUST_ROOM),
        insn(EXIT, 0, 0),
    ]
}

/// An Ethernet frame with two IPv4 headers.
fn tunnel_frame() -> [u8; 74] {
    let mut frame = [0; 74];
    frame[12] = 0x08;
    for (start, length, protocol) in [(14, 60, 4), (34, 40, 17)] {
        frame[start] = 0x45;
        frame[start + 3] = length;
        frame[start + 8] = 64;
        frame[start + 9] = protocol;
    }
    frame
}
