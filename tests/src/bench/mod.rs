//! The benchmarks: the same work over Fanlight and its peers, interleaved, as ratios.

pub mod load;
