//! Replicas with disks, on a network that loses, repeats and relays.

mod model;
mod refusals;
mod sizes;
mod tombstones;
