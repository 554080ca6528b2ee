//! The ring of a service: slot → backend, after Maglev (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! Every backend walks the slots in an order of its own, all of them at once, at a pace that its weight gives. It takes
//! what is free until it has its share. (Maglev's backends walk on until they have found a free slot, turn by turn: one
//! that is unlucky walks faster, and what it then meets depends on all others. Here a slot is always reached at the
//! same time, and fewer slots change hands when a backend goes.)
//!
//! Rings of up to 128 backends have one size, because a slot of another size holds other flows. A ring is a
//! function of its backends' addresses, ports and weights alone, in integers: bit-identical on every machine and version,
//! which the test vectors hold.

mod race;
mod settle;

use std::{cmp::Reverse, net::IpAddr};

use dataplane_common::abi::{LARGE_RING_SLOTS, MANY_BACKENDS, RING_SLOTS};

use self::race::Walk;
use super::Backend;

/// Any number would do, as long as it stays.
const SEED: u64 = 0x6661_6e6c_6967_6874;

/// How many slots the ring of so many backends has.
pub fn slots(backends: usize) -> usize {
    (if backends > MANY_BACKENDS as usize { LARGE_RING_SLOTS } else { RING_SLOTS }) as usize
}

/// The ring of two or more usable backends: for each slot the backend's place in `backends`.
///
/// `backends` must be in order and of positive weight, as [`Service::usable`](super::Service::usable) gives them.
/// Fewer than two need no ring and get none.
pub fn build(backends: &[Backend]) -> Vec<u16> {
    if backends.len() < 2 {
        return Vec::new();
    }
    let slots = slots(backends.len());
    let lightest = backends.iter().map(|backend| backend.weight).min().unwrap_or(1);
    let walks: Vec<Walk> =
        backends.iter().map(|backend| Walk::new(key(backend), backend.weight, lightest, slots)).collect();
    settle::settle(&walks, &shares(backends, slots), slots)
}

/// Slots for each: the exact share rounded down, and the rest to the largest remainders.
fn shares(backends: &[Backend], slots: usize) -> Vec<usize> {
    let total: u128 = backends.iter().map(|backend| u128::from(backend.weight)).sum();
    let exact = |backend: &Backend| u128::from(backend.weight) * slots as u128;
    let mut shares: Vec<usize> = backends.iter().map(|backend| (exact(backend) / total) as usize).collect();
    let mut by_remainder: Vec<usize> = (0..backends.len()).collect();
    by_remainder.sort_by_key(|&place| Reverse(exact(&backends[place]) % total));
    let rest = slots - shares.iter().sum::<usize>();
    for &place in &by_remainder[..rest] {
        shares[place] += 1;
    }
    shares
}

/// Spreads address and port over 64 bits.
fn key(backend: &Backend) -> u64 {
    let address = match backend.address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let bits = address.to_bits();
    let high = mix(SEED ^ (bits >> 64) as u64);
    mix(mix(high ^ bits as u64) ^ u64::from(backend.port))
}

/// The finalizer of SplitMix64: every bit of the input reaches every bit of the output.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
