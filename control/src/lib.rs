//! What a node is to be like ([`desired`], of [`model`] and [`service`]), what it is like ([`observed`]), the operations
//! that lead from one to the other ([`reconcile`]), what packet filters do to packets ([`filter`]), when checks are due and what
//! their results mean ([`health`]), the protocols of a cluster ([`cluster`]), and what routers are told ([`announce`], [`bgp`]):
//! values and pure functions.
//!
//! Nothing here does I/O, reads a clock or starts a thread; time comes in as an argument. `clippy.toml` beside this crate
//! says so to the compiler.

#![forbid(unsafe_code)]

pub mod announce;
pub mod bgp;
pub mod cluster;
pub mod desired;
pub mod filter;
pub mod health;
pub mod model;
pub mod observed;
pub mod reconcile;
pub mod service;
