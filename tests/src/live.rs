//! Frames that the kernel sends itself, as fast as it can: a program that redirects them, run on them over and over
//! (BPF_PROG_TEST_RUN with live frames, Linux 5.18). They arrive at the other end of the wire as a driver's would, without an
//! `skb`.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use bytemuck::Zeroable as _;
use nix::net::if_::if_nametoindex;

use crate::{
    foreign::{self, Insn, TEST_RUN, TestRun},
    site::Site,
    sys::bpf,
};

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
        const LIVE: u32 = 1 << 1;
        let mut attr = TestRun {
            program: self.program.as_raw_fd() as u32,
            size_in: frame.len() as u32,
            data_in: frame.as_ptr().expose_provenance() as u64,
            repeat: times,
            flags: LIVE,
            ..TestRun::zeroed()
        };
        self.site.inside(|| bpf(TEST_RUN, &mut attr).map(drop))
    }
}
