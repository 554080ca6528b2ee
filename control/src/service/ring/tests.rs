use std::{net::Ipv4Addr, time::Duration};

use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;

use super::*;

fn backend(number: u32, weight: u32) -> Backend {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(250, 0, 0, 2).to_bits() + number * 256);
    Backend { address: address.into(), port: 8080, weight }
}

fn equal(count: u32) -> Vec<Backend> {
    (0..count).map(|number| backend(number, 1)).collect()
}

/// FNV-1a over the slots, low byte first.
fn digest(ring: &[u16]) -> u64 {
    crate::model::fnv1a(ring.iter().flat_map(|slot| slot.to_le_bytes()).collect::<Vec<u8>>())
}

fn shares_of(ring: &[u16], backends: usize) -> Vec<usize> {
    let mut shares = vec![0; backends];
    ring.iter().for_each(|&place| shares[usize::from(place)] += 1);
    shares
}

/// Slots that change hands when each of `going` goes, in units of its own slots: in the mean, and at most.
fn moved(backends: &[Backend], going: impl IntoIterator<Item = usize>) -> (f64, f64) {
    let before = build(backends);
    let shares = shares_of(&before, backends.len());
    let (mut moved, mut ideal, mut worst) = (0, 0, 0.0_f64);
    for gone in going {
        let rest = [&backends[..gone], &backends[gone + 1..]].concat();
        let after = if rest.len() > 1 { build(&rest) } else { vec![0; before.len()] };
        let owner = |place: u16| &backends[usize::from(place)];
        let others = before.iter().zip(&after).filter(|&(&old, &new)| owner(old) != &rest[usize::from(new)]);
        let others = others.count();
        worst = worst.max(others as f64 / shares[gone] as f64);
        (moved, ideal) = (moved + others, ideal + shares[gone]);
    }
    (f64::from(moved as u32) / f64::from(ideal as u32), worst)
}

/// A set of so many backends of one weight, another for every seed.
fn set(count: u32, seed: u32) -> Vec<Backend> {
    let mut backends: Vec<Backend> =
        (0..count).map(|number| backend(number + seed * 1_000 + seed % 7 * number, 1)).collect();
    backends.sort_unstable();
    backends
}

/// The walk itself, step by step.
fn walked(backends: &[Backend], slots: usize) -> Vec<u16> {
    let lightest = backends.iter().map(|backend| backend.weight).min().unwrap();
    let walks: Vec<Walk> =
        backends.iter().map(|backend| Walk::new(key(backend), backend.weight, lightest, slots)).collect();
    let times = walks
        .iter()
        .zip(0..)
        .flat_map(|(walk, place)| (0..slots).map(move |slot| (walk.time(slot), place, slot)));
    let mut times: Vec<(u16, u16, usize)> = times.collect();
    times.sort_unstable();
    let mut left = shares(backends, slots);
    let mut ring = vec![u16::MAX; slots];
    for (_, place, slot) in times {
        if ring[slot] == u16::MAX && left[usize::from(place)] > 0 {
            ring[slot] = place;
            left[usize::from(place)] -= 1;
        }
    }
    ring
}

#[test]
fn rings_are_those_of_the_published_vectors() {
    let vectors: Vec<&str> =
        include_str!("vectors.txt").lines().filter(|line| !line.starts_with('#')).collect();
    let found = vectors.iter().map(|line| {
        let (set, _) = line.split_once(" -> ").unwrap();
        let mut backends: Vec<Backend> = set
            .split(' ')
            .map(|one| {
                let (socket, weight) = one.split_once('*').unwrap();
                let socket: std::net::SocketAddr = socket.parse().unwrap();
                Backend { address: socket.ip(), port: socket.port(), weight: weight.parse().unwrap() }
            })
            .collect();
        backends.sort_unstable();
        let ring = build(&backends);
        let first: Vec<String> = ring.iter().take(8).map(u16::to_string).collect();
        format!("{set} -> {} slots, {:016x}, {}", ring.len(), digest(&ring), first.join(" "))
    });
    let found: Vec<String> = found.collect();
    assert!(found == vectors, "{}", found.join("\n"));
}

#[test]
fn rings_of_up_to_128_backends_have_one_size() {
    assert_eq!([2, 10, 128].map(slots), [18_427; 3]);
    assert_eq!([129, 1024].map(slots), [32_749; 2]);
    let is_prime = |number: usize| (2..200).all(|divisor| !number.is_multiple_of(divisor));
    assert!(is_prime(slots(2)) && is_prime(slots(1024)));
}

#[test]
fn one_backend_needs_no_ring() {
    assert!(build(&equal(1)).is_empty());
    assert!(build(&[]).is_empty());
}

#[test]
fn few_flows_move_without_need_whichever_backend_goes() {
    for count in (2..=32).step_by(if cfg!(debug_assertions) { 6 } else { 1 }) {
        let (mean, worst) = moved(&equal(count), 0..count as usize);
        assert!(mean <= 1.2 && worst <= 1.3, "{count}: {mean}, at most {worst}");
    }
}

#[test]
fn flows_that_move_without_need_stay_few_in_large_sets() {
    let counts: &[u32] =
        if cfg!(debug_assertions) { &[33, 64, 100, 128] } else { &[33, 48, 64, 80, 96, 112, 120, 127, 128] };
    for &count in counts {
        let (mean, _) =
            moved(&equal(count), (0..count as usize).step_by(if cfg!(debug_assertions) { 16 } else { 1 }));
        assert!(mean <= 1.8, "{count}: {mean}");
    }
}

#[test]
fn the_bounds_hold_over_many_sets() {
    let seeds = if cfg!(debug_assertions) { 1..3 } else { 1..30 };
    for (count, limit) in
        [(2, 1.2), (3, 1.2), (5, 1.2), (10, 1.2), (17, 1.2), (24, 1.2), (32, 1.2), (64, 1.8), (100, 1.8)]
    {
        let means: Vec<f64> = seeds
            .clone()
            .map(|seed| moved(&set(count, seed), (0..count as usize).step_by(1 + count as usize / 16)).0)
            .collect();
        let most = means.iter().copied().fold(0.0, f64::max);
        assert!(most <= limit, "{count}: {most} in {means:?}");
    }
}

#[test]
fn ten_thousand_rings_take_less_than_two_seconds_of_a_processor() {
    let used = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let start = used();
    let rings = if cfg!(debug_assertions) { 10 } else { 10_000 };
    for set in 0..rings {
        let ring = build(&(0..10).map(|number| backend(set * 10 + number, 1)).collect::<Vec<_>>());
        assert_eq!(ring.len(), 18_427);
    }
    let took = used() - start;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_ring_is_what_walking_step_by_step_comes_to(
        weights in prop::collection::vec(prop_oneof![Just(1_u32), 1..=4_u32, 1..=3_000_u32], 2..40), seed in 0..1_000_u32
    ) {
        const SLOTS: usize = 1_021;
        let backends: Vec<Backend> =
            weights.iter().zip(0..).map(|(&weight, n)| backend(n + seed * 50, weight)).collect();
        let lightest = weights.iter().copied().min().unwrap();
        let walks: Vec<Walk> =
            backends.iter().map(|backend| Walk::new(key(backend), backend.weight, lightest, SLOTS)).collect();
        prop_assert_eq!(settle::settle(&walks, &shares(&backends, SLOTS), SLOTS), walked(&backends, SLOTS));
    }

    #[test]
    fn every_backend_has_its_exact_share_within_one_slot(
        weights in prop::collection::vec(prop_oneof![1..=4_u32, 1..=1_000_u32, Just(u32::MAX)], 2..60)
    ) {
        let backends: Vec<Backend> = weights.iter().zip(0..).map(|(&weight, n)| backend(n, weight)).collect();
        let ring = build(&backends);
        prop_assert_eq!(ring.len(), slots(backends.len()));
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        for (share, &weight) in shares_of(&ring, backends.len()).iter().zip(&weights) {
            let exact = ring.len() as f64 * f64::from(weight) / total;
            prop_assert!((*share as f64 - exact).abs() < 1.000_001, "{share} instead of {exact}");
        }
    }

    #[test]
    fn weights_in_proportion_make_the_same_ring(weights in prop::collection::vec(1..50_u32, 2..20), factor in 1..9_u32) {
        let ring = |factor| build(&weights.iter().zip(0..).map(|(&w, n)| backend(n, w * factor)).collect::<Vec<_>>());
        prop_assert_eq!(ring(1), ring(factor));
    }
}
