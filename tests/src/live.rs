//! Frames that the kernel sends itself, as fast as it can: a program that redirects them, run on them over and over
//! (BPF_PROG_TEST_RUN with live frames, Linux 5.18). They arrive at the other end of the wire as a driver's would, without an
//! `skb`.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use bytemuck::{Pod, Zeroable};
use nix::net::if_::if_nametoindex;

use crate::{
    foreign::{self, Insn},
    site::Site,
    sys::bpf,
};

/// The head of `union bpf_attr` for BPF_PROG_TEST_RUN.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct TestRun {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// Sends frames out of a device.
pub struct LiveFrames<'s> {
    site: &'s Site,
    program: OwnedFd,
}

impl<'s> LiveFrames<'s> {
    /// Out of a veth. Its other end takes frames without an `skb` once it runs an XDP program or merges what it receives
    /// ([`Offload::Gro`](crate::site::Offload)).
    #[track_caller]
    pub fn new(site: &'s Site, device: &str) -> Self {
        const REDIRECT: i32 = 23;
        let index = site.inside(|| if_nametoindex(device)).expect("the device exists");
        let call = Insn { code: 0x85, registers: 0, offset: 0, immediate: REDIRECT };
        let insns = [foreign::set(1, index as i32), foreign::set(2, 0), call, foreign::EXIT];
        Self { site, program: foreign::load("live_frames", foreign::PROG_XDP, 0, &insns) }
    }

    /// Sends a frame so many times, on the processor of the calling thread.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn send(&self, frame: &[u8], times: u32) -> io::Result<()> {
        const TEST_RUN: libc::c_long = 10;
        const LIVE: u32 = 1 << 1;
        let mut attr = TestRun {
            program: self.program.as_raw_fd() as u32,
            size_in: frame.len() as u32,
            data_in: frame.as_ptr().expose_provenance() as u64,
            repeat: times,
            flags: LIVE,
            ..Zeroable::zeroed()
        };
        self.site.inside(|| bpf(TEST_RUN, &mut attr).map(drop))
    }
}
