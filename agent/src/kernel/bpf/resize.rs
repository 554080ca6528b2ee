//! Test runs on frames that the kernel refuses to make a packet of.
//!
//! Since 6.18 a test run wants an IP frame to hold a whole IP header, and all kernels want a frame to fit into a page;
//! a wire cares for neither. So such a frame is handed over in a length that the kernel takes, and a program of a few
//! instructions cuts or extends it before the real one runs.

use std::{
    borrow::Cow,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use super::{
    error::{Context as _, Result},
    sys::{self, Insn},
};

/// Ethernet and IPv6 header.
const SHORTEST: usize = 54;
/// A page of 4096 bytes, less what the kernel needs of it.
const LONGEST: usize = 3500;

/// Gives a frame the length in the context's first control word and goes on with another program.
pub(super) struct Resizer {
    program: OwnedFd,
    /// Without a user its entries would be cleared.
    _table: OwnedFd,
}

impl Resizer {
    /// What the program returns when the kernel refuses the length.
    pub(super) const REFUSED: i32 = 99;

    /// In front of a program.
    pub(super) fn new(program: BorrowedFd<'_>) -> Result<Self> {
        let what = || "preparing test runs".to_owned();
        let table = sys::program_array(program).during(what)?;
        let program = sys::load_classifier(&resize_and_continue(table.as_raw_fd())).during(what)?;
        Ok(Self { program, _table: table })
    }

    /// The program to run.
    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// What to run it on; `None` where the kernel takes the frame as it is.
    pub(super) fn handed_over(frame: &[u8]) -> Option<Cow<'_, [u8]>> {
        if frame.len() > LONGEST {
            return Some(Cow::Borrowed(&frame[..LONGEST]));
        }
        (frame.len() < SHORTEST).then(|| {
            let mut long = frame.to_vec();
            long.resize(SHORTEST, 0);
            Cow::Owned(long)
        })
    }

    /// Puts what was not handed over in its place: programs change headers, so that the rest stands at the end as
    /// before, unless the frame was cut to an answer.
    pub(super) fn restore_tail(frame: &[u8], output: &mut [u8]) {
        let tail = frame.get(LONGEST..).unwrap_or_default();
        if output.len() > tail.len() {
            let start = output.len() - tail.len();
            output[start..].copy_from_slice(tail);
        }
    }
}

/// `bpf_skb_change_tail(skb, skb->cb[0], 0) == 0 && bpf_tail_call(skb, table, 0); return REFUSED`
fn resize_and_continue(table: i32) -> [Insn; 12] {
    const CONTROL: i16 = 48;
    const CHANGE_TAIL: i32 = 38;
    const TAIL_CALL: i32 = 12;
    let insn = |code, registers, offset, immediate| Insn { code, registers, offset, immediate };
    let set = |register, value| insn(0xb7, register, 0, value);
    let copy = |to: u8, from: u8| insn(0xbf, from << 4 | to, 0, 0);
    let call = |helper| insn(0x85, 0, 0, helper);
    let to_the_end_unless_zero = insn(0x55, 0, 5, 0);
    [
        copy(6, 1),
        insn(0x61, 1 << 4 | 2, CONTROL, 0),
        set(3, 0),
        call(CHANGE_TAIL),
        to_the_end_unless_zero,
        copy(1, 6),
        // A 64-bit load of a map takes two instructions; source register 1 says that the value is a descriptor.
        insn(0x18, 1 << 4 | 2, 0, table),
        insn(0, 0, 0, 0),
        set(3, 0),
        call(TAIL_CALL),
        set(0, Resizer::REFUSED),
        insn(0x95, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_usual_length_is_run_as_it_is() {
        for length in [SHORTEST, 1514, LONGEST] {
            assert_eq!(Resizer::handed_over(&vec![1; length]), None);
        }
        assert_eq!(Resizer::handed_over(&[1; 14]).map(|frame| frame.len()), Some(SHORTEST));
        assert_eq!(Resizer::handed_over(&[1; 9000]).map(|frame| frame.len()), Some(LONGEST));
    }

    #[test]
    fn the_rest_of_a_long_frame_follows_what_became_of_its_front() {
        let frame: Vec<u8> = (0..LONGEST + 3).map(|index| index as u8).collect();
        let mut grown = vec![0; frame.len() + 20];
        Resizer::restore_tail(&frame, &mut grown);
        assert_eq!(grown[LONGEST + 20..], frame[LONGEST..]);
        assert_eq!(grown[LONGEST + 19], 0);
        let mut answer = [7; 2];
        Resizer::restore_tail(&frame, &mut answer);
        assert_eq!(answer, [7; 2]);
    }
}
