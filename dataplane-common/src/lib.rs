//! What the kernel programs and the host share, compiled unchanged for both.
//!
//! A packet's way through Fanlight is *parse → decide → act → count*: [`packet`] and [`wire`] read headers,
//! [`decide`] turns them and the [`decide::Tables`] into one [`verdict::Verdict`], the kernel shell acts on it and
//! counts exactly one [`outcome::Outcome`]. Nothing here does I/O, allocates, reads a clock or can panic.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![warn(missing_docs)]

#[cfg(any(test, feature = "memory"))]
extern crate alloc;

pub mod abi;
pub mod checksum;
pub mod codegen;
pub mod ct;
pub mod decide;
pub mod ecn;
pub mod fan;
pub mod icmp;
pub mod lb;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
pub mod outcome;
pub mod packet;
pub mod tcp;
pub mod tunnel;
pub mod verdict;
pub mod wire;
