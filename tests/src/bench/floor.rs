//! Programs that ours are measured against, each a few instructions.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use bytemuck::Zeroable as _;

use crate::{
    foreign::{self, EXIT, Insn, TEST_RUN, TestRun, set},
    sys::bpf,
};

/// Offset of the inner IPv4 header, and of the outer one in its place.
const ETH_LEN: i16 = 14;
/// An outer IPv4 header for 84 bytes of protocol 4, without its checksum.
const OUTER: [u8; 20] = [0x45, 0, 0, 84, 0, 0, 0x40, 0, 64, 4, 0, 0, 172, 30, 0, 28, 172, 30, 0, 27];

/// A loaded program.
pub(super) struct Floor(OwnedFd);

impl Floor {
    /// Does nothing: the price of a test run itself.
    pub(super) fn empty() -> Self {
        const UNSPEC: i32 = -1;
        Self(foreign::load("bench_empty", foreign::SCHED_CLS, 0, &[set(0, UNSPEC), EXIT]))
    }

    /// Prepends a constant header: what no encapsulating program can do without.
    pub(super) fn constant_header() -> Self {
        Self(foreign::load("bench_floor", foreign::SCHED_CLS, 0, &prepend()))
    }

    /// Runs it once on a frame.
    pub(super) fn run(&self, frame: &[u8]) -> io::Result<Duration> {
        const SHOT: u32 = 2;
        let mut output = vec![0_u8; frame.len() + OUTER.len()];
        let mut attr = TestRun {
            program: self.0.as_raw_fd() as u32,
            size_in: frame.len() as u32,
            size_out: output.len() as u32,
            data_in: frame.as_ptr().expose_provenance() as u64,
            data_out: output.as_mut_ptr().expose_provenance() as u64,
            ..TestRun::zeroed()
        };
        bpf(TEST_RUN, &mut attr)?;
        if attr.result == SHOT {
            return Err(io::Error::other("the kernel refused to make room for a header"));
        }
        Ok(Duration::from_nanos(attr.duration.into()))
    }
}

/// `bpf_skb_adjust_room(skb, 20, BPF_ADJ_ROOM_MAC, flags)`, then five words behind the Ethernet header.
fn prepend() -> Vec<Insn> {
    const ADJUST_ROOM: i32 = 50;
    const MAC: i32 = 1;
    /// `BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4`.
    const FLAGS: i32 = 1 | 2;
    /// In `struct __sk_buff`.
    const DATA: i16 = 76;
    const DATA_END: i16 = 80;
    const WORDS: i16 = OUTER.len() as i16 / 4;
    let insn = |code, registers, offset, immediate| Insn { code, registers, offset, immediate };
    let load = |to: u8, offset| insn(0x61, 6 << 4 | to, offset, 0);
    let copy = |to: u8, from: u8| insn(0xbf, from << 4 | to, 0, 0);
    let words = OUTER.chunks_exact(4).zip(0..).map(|(word, at)| {
        let word = i32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        insn(0x62, 2, ETH_LEN + 4 * at, word)
    });
    let mut insns = vec![
        copy(6, 1),
        set(2, OUTER.len() as i32),
        set(3, MAC),
        set(4, FLAGS),
        insn(0x85, 0, 0, ADJUST_ROOM),
        // To the end unless zero.
        insn(0x55, 0, 5 + WORDS + 2, 0),
        load(2, DATA),
        load(3, DATA_END),
        copy(4, 2),
        insn(0x07, 4, 0, i32::from(ETH_LEN) + OUTER.len() as i32),
        // To the end if beyond the packet.
        insn(0x2d, 3 << 4 | 4, WORDS + 2, 0),
    ];
    insns.extend(words);
    insns.extend([set(0, -1), EXIT, set(0, 2), EXIT]);
    insns
}
