//! Loops of the kernel's: the verifier walks their body once, however many turns they take.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;

/// What the turns have in common.
struct Turns<F> {
    does: F,
    found: bool,
}

/// Whether `does` says so of one of the numbers below `most`; it is not asked again after that.
#[inline(always)]
pub fn any<F: FnMut(u32) -> bool>(most: u32, does: F) -> bool {
    let mut turns = Turns { does, found: false };
    // SAFETY: the helper calls the function with the number of the turn and this pointer, before it returns.
    unsafe { bpf_loop(most, turn::<F> as *mut c_void, (&raw mut turns).cast(), 0) };
    turns.found
}

/// One turn; 1 ends the loop.
unsafe extern "C" fn turn<F: FnMut(u32) -> bool>(number: u64, turns: *mut Turns<F>) -> u64 {
    // SAFETY: the pointer that `any` passed, to what lives on its stack and nobody else uses meanwhile.
    let turns = unsafe { &mut *turns };
    turns.found = (turns.does)(number as u32);
    u64::from(turns.found)
}
