//! Test runs on frames that the kernel refuses to make a packet of.
//!
//! Since 6.18 a test run wants an IP frame to hold a whole IP header, while a wire does not care. So a short frame is
//! handed over longer than it is, and a program of a few instructions cuts it back before the real one runs.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use super::{
    error::{Context as _, Result},
    sys::{self, Insn},
};

/// Cuts a frame to the length in the context's first control word and goes on with another program.
pub(super) struct Shortener {
    program: OwnedFd,
    /// Without a user its entries would be cleared.
    _table: OwnedFd,
}

impl Shortener {
    /// Ethernet and IPv6 header.
    pub(super) const NEEDED_BELOW: usize = 54;

    /// In front of a program.
    pub(super) fn new(program: BorrowedFd<'_>) -> Result<Self> {
        let what = || "preparing test runs on short frames".to_owned();
        let table = sys::program_array(program).during(what)?;
        let program = sys::load_classifier(&cut_and_continue(table.as_raw_fd())).during(what)?;
        Ok(Self { program, _table: table })
    }

    /// The program to run.
    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// What to run it on.
    pub(super) fn lengthen(frame: &[u8]) -> Vec<u8> {
        let mut long = frame.to_vec();
        long.resize(Self::NEEDED_BELOW, 0);
        long
    }
}

/// `bpf_skb_change_tail(skb, skb->cb[0], 0); bpf_tail_call(skb, table, 0); return TC_ACT_SHOT`
fn cut_and_continue(table: i32) -> [Insn; 11] {
    const CONTROL: i16 = 48;
    const CHANGE_TAIL: i32 = 38;
    const TAIL_CALL: i32 = 12;
    const SHOT: i32 = 2;
    let insn = |code, registers, offset, immediate| Insn { code, registers, offset, immediate };
    let set = |register, value| insn(0xb7, register, 0, value);
    let copy = |to: u8, from: u8| insn(0xbf, from << 4 | to, 0, 0);
    let call = |helper| insn(0x85, 0, 0, helper);
    [
        copy(6, 1),
        insn(0x61, 1 << 4 | 2, CONTROL, 0),
        set(3, 0),
        call(CHANGE_TAIL),
        copy(1, 6),
        // A 64-bit load of a map takes two instructions; source register 1 says that the value is a descriptor.
        insn(0x18, 1 << 4 | 2, 0, table),
        insn(0, 0, 0, 0),
        set(3, 0),
        call(TAIL_CALL),
        set(0, SHOT),
        insn(0x95, 0, 0, 0),
    ]
}
