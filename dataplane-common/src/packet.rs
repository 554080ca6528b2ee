//! Access to packet bytes without naming where they are: the kernel's context or a slice on the host.

use crate::wire::Header;

/// A frame, from its Ethernet header on.
pub trait Packet {
    /// The header at a constant offset, or `None` where the packet ends before it does.
    fn read<T: Header>(&self, offset: usize) -> Option<T>;

    /// As [`read`](Self::read), of what may lie beyond the bytes that every program can read in place: slower.
    fn copy<T: Header>(&self, offset: usize) -> Option<T> {
        self.read(offset)
    }
}

/// A frame in memory.
impl Packet for [u8] {
    fn read<T: Header>(&self, offset: usize) -> Option<T> {
        let bytes = self.get(offset..)?.get(..size_of::<T>())?;
        // SAFETY: `bytes` holds exactly `size_of::<T>()` initialised bytes, `Header` promises that every bit
        // pattern is a valid `T`, and an unaligned read needs no alignment.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
}
