//! How code is written that becomes kernel programs, for the sake of LLVM and of the verifier. Comments elsewhere name the rule.
//!
//! 1. **Exits stand apart** ([`cold_path`]). LLVM puts the stores of an exit's constants in front of the branch to it,
//!    where every packet pays for every exit.
//! 2. **Every field is set**, also where it means nothing; no `Option` or enum with fields for what is moved as a whole. LLVM
//!    moves all fields before it asks which are meant, and the verifier refuses a register that was never set.
//! 3. **Tables, bits and one comparison** instead of several. The verifier follows both ways of each comparison through all
//!    that comes after it.
//! 4. **A number** instead of a reference that was searched for: the verifier follows every address that it may be.
//! 5. **Whole words** are cleared and copied, one by one. For other lengths, and for several words at once, LLVM calls a
//!    function that goes byte by byte, and the verifier walks it each time.
//! 6. **Unknown values** ([`unknown`]), where LLVM would use what it knows: it drops a mask that changes nothing, but that Linux
//!    6.1 needs, since that forgets the bounds of what was joined by "or"; it makes a call of clearing two words (rule 5); it
//!    keeps addresses on the stack that are cheaper to compute again.
//! 7. **Loops of the kernel's** (`bpf_loop`), where a loop has more than a few rounds: the verifier walks the body once.
//! 8. **Read again** behind a helper, instead of carried across it: that costs less than spilling, and a helper that changes the
//!    packet voids what pointed into it.
//! 9. **Types that promise alignment** for headers in a packet. LLVM loads a value byte by byte unless its type promises more.

#[cfg(target_arch = "bpf")]
use core::arch::asm;
#[cfg(not(target_arch = "bpf"))]
use core::hint::black_box;

/// Keeps what follows in a block of its own (rule 1).
#[inline(always)]
pub fn cold_path() {
    // `black_box` would have every packet compute the address of something that takes no room.
    #[cfg(target_arch = "bpf")]
    // SAFETY: no instruction.
    unsafe {
        asm!("", options(nostack, preserves_flags));
    }
}

/// What a register holds.
pub trait Word: Copy {
    /// The same, of which LLVM knows nothing.
    #[must_use]
    fn unknown(self) -> Self;
}

/// A value of which LLVM knows nothing (rule 6).
#[inline(always)]
pub fn unknown<T: Word>(value: T) -> T {
    value.unknown()
}

/// A reference of whose address LLVM knows nothing (rule 6).
#[inline(always)]
pub fn unknown_place<T>(place: &T) -> &T {
    // SAFETY: the address of a reference, which lives as long.
    unsafe { &*unknown(core::ptr::from_ref(place)) }
}

macro_rules! word {
    ($($kind:ty $(, $of:ident)?;)*) => {$(
        impl $(<$of>)? Word for $kind {
            #[inline(always)]
            fn unknown(self) -> Self {
                #[cfg(not(target_arch = "bpf"))]
                return black_box(self);
                // `black_box` would take it through the stack. An instruction, because LLVM notes a line for assembly that is
                // not empty, and the kernel takes no two of one instruction.
                #[cfg(target_arch = "bpf")]
                {
                    let mut value = self;
                    // SAFETY: the value stays.
                    unsafe { asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags)) };
                    value
                }
            }
        }
    )*};
}

word! {
    u8;
    u16;
    u32;
    u64;
    *const T, T;
}
