//! The decisions on the host, packet by packet; the same functions run in the kernel.
