use std::{net::Ipv4Addr, time::Instant};

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
    let bytes = ring.iter().flat_map(|slot| slot.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn shares_of(ring: &[u16], backends: usize) -> Vec<usize> {
    let mut shares = vec![0; backends];
    ring.iter().for_each(|&place| shares[usize::from(place)] += 1);
    shares
}

/// Slots that change hands when one backend goes, in units of its share, over all that may go.
fn moved(backends: &[Backend]) -> f64 {
    let before = build(backends);
    let moved: usize = (0..backends.len())
        .map(|gone| {
            let rest = [&backends[..gone], &backends[gone + 1..]].concat();
            let after = build(&rest);
            let owner = |place: u16| &backends[usize::from(place)];
            before.iter().zip(&after).filter(|&(&old, &new)| owner(old) != &rest[usize::from(new)]).count()
        })
        .sum();
    moved as f64 / before.len() as f64
}

#[test]
fn rings_are_those_of_the_published_vectors() {
    let vectors = include_str!("vectors.txt").lines().filter(|line| !line.starts_with('#'));
    for line in vectors {
        let (set, expected) = line.split_once(" -> ").unwrap();
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
        let found = format!("{} slots, {:016x}, {}", ring.len(), digest(&ring), first.join(" "));
        assert_eq!(found, expected, "{set}");
    }
}

#[test]
fn a_ring_has_the_next_power_of_two_that_is_enough() {
    let sizes = [2, 3, 5, 10, 32, 57, 58, 1024].map(slots);
    assert_eq!(sizes, [256, 512, 1024, 2048, 32_768, 65_536, 65_536, 65_536]);
}

#[test]
fn one_backend_needs_no_ring() {
    assert!(build(&equal(1)).is_empty());
    assert!(build(&[]).is_empty());
}

#[test]
fn few_flows_move_without_need_when_one_backend_goes() {
    for (backends, limit) in
        [(4, 1.2), (7, 1.2), (10, 1.2), (14, 1.2), (24, 1.2), (32, 1.2), (64, 1.8), (100, 1.8)]
    {
        let moved = moved(&equal(backends));
        assert!(moved < limit, "{backends}: {moved}");
    }
}

#[test]
fn ten_thousand_rings_take_about_half_a_second_in_release() {
    let start = Instant::now();
    let rings = if cfg!(debug_assertions) { 100 } else { 10_000 };
    for set in 0..rings {
        let ring = build(&(0..10).map(|number| backend(set * 10 + number, 1)).collect::<Vec<_>>());
        assert_eq!(ring.len(), 2048);
    }
    println!("{rings} rings of 10 backends: {:?}", start.elapsed());
}

proptest! {
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
