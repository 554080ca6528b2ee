//! The ring of a service: slot → backend, after Maglev (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! Every backend walks the slots in an order of its own and takes what is free, in turns by its weight, until it has its
//! share. The table has a power of two of slots, so that a flow finds its slot by a mask; an odd step visits them
//! all. A ring is a function of its backends' addresses, ports and weights alone, in integers: bit-identical on every
//! machine and version, which the test vectors hold.

use std::{cmp::Reverse, net::IpAddr};

use dataplane_common::abi::{MAX_RING, RING_UNIT};

use super::Backend;

/// Slots per backend, so that shares are fine enough.
const PER_BACKEND: usize = 128;
/// Slots per pair of backends: slots that move without need grow with the backends' square.
const PER_PAIR: usize = 20;
/// Any number would do, as long as it stays.
const SEED: u64 = 0x6661_6e6c_6967_6874;
const FREE: u16 = u16::MAX;

/// How many slots the ring of so many backends has.
pub fn slots(backends: usize) -> usize {
    let wanted = (RING_UNIT as usize).max(PER_BACKEND * backends).max(PER_PAIR * backends * backends);
    wanted.next_power_of_two().min(MAX_RING as usize)
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
    let shares = shares(backends, slots);
    let most = shares.iter().copied().max().unwrap_or_default();
    let mut walks: Vec<Walk> =
        backends.iter().zip(&shares).map(|(one, &share)| Walk::new(one, share)).collect();
    let mut ring = vec![FREE; slots];
    let mut free = slots;
    while free > 0 {
        for (walk, place) in walks.iter_mut().zip(0..) {
            // The heaviest takes a slot each round, the others in proportion.
            walk.credit += walk.share;
            if walk.credit >= most {
                walk.credit -= most;
                walk.take(&mut ring, place);
                free -= 1;
            }
        }
    }
    ring
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

/// A backend's way over the slots.
struct Walk {
    next: usize,
    step: usize,
    share: usize,
    credit: usize,
}

impl Walk {
    fn new(backend: &Backend, share: usize) -> Self {
        let key = key(backend);
        Self { next: key as usize, step: (key >> 32) as usize | 1, share, credit: 0 }
    }

    /// Takes the first free slot of its way.
    fn take(&mut self, ring: &mut [u16], place: u16) {
        let mask = ring.len() - 1;
        while ring[self.next & mask] != FREE {
            self.next = self.next.wrapping_add(self.step);
        }
        ring[self.next & mask] = place;
    }
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
