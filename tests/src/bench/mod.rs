//! The benchmarks: the same work over Fanlight and its peers, interleaved, as ratios.
//!
//! Speeds drift by a factor of two within minutes on a shared machine, so nothing is compared across runs: every
//! round runs every way once, and what is reported is the median of the rounds' ratios with its quartiles.

pub mod announce;
pub mod api;
pub mod clock;
pub mod cluster;
pub mod fan;
pub mod flood;
mod floor;
pub mod flows;
pub mod health;
pub mod load;
pub mod processors;
pub mod program;
pub mod refuse;
pub mod report;
pub mod rounds;
pub mod routes;
pub mod services;
pub mod state;
pub mod vip;
pub mod vips;
pub mod ways;
