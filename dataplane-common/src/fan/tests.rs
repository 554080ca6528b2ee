use core::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> u32 {
    text.parse::<Ipv4Addr>().expect("an IPv4 address").to_bits()
}

fn net(text: &str) -> (Ipv4Addr, u8) {
    let (address, len) = text.split_once('/').expect("ADDR/LEN");
    (address.parse().expect("an IPv4 address"), len.parse().expect("a length"))
}

/// The underlay network that `host/len` lies in.
fn underlay_of(host: &str) -> (Ipv4Addr, u8) {
    let (address, len) = net(host);
    (Ipv4Addr::from_bits(address.to_bits() & mask(len)), len)
}

#[test]
fn published_vectors_compute_the_published_slices() {
    for (host, overlay, slice) in [
        ("10.88.3.4/16", "99.0.0.0/8", "99.3.4.0/24"),
        ("10.99.238.5/20", "99.0.0.0/8", "99.224.80.0/20"),
        ("10.111.1.2/12", "33.0.0.0/8", "33.240.16.32/28"),
        ("10.88.129.2/20", "240.0.0.0/5", "240.129.0.0/17"),
        ("10.88.244.215/20", "240.0.0.0/5", "242.107.128.0/17"),
        ("10.224.220.10/24", "100.64.0.0/10", "100.66.128.0/18"),
        ("172.30.0.28/16", "250.0.0.0/8", "250.0.28.0/24"),
    ] {
        let map = FanMap::new(net(overlay), underlay_of(host)).expect(host);
        let (base, len) = net(slice);
        assert_eq!(map.slice_of(net(host).0.to_bits()), Some(base.to_bits()), "slice of {host}");
        assert_eq!(map.slice_len(), len, "slice length of {host}");
    }
}

#[test]
fn published_vectors_compute_the_published_outer_destinations() {
    let map = FanMap::new(net("99.0.0.0/8"), net("10.88.0.0/16")).expect("fan");
    assert_eq!(map.host_of(ip("99.6.7.8")), Some(ip("10.88.6.7")));
    let map = FanMap::new(net("100.64.0.0/10"), net("10.224.220.0/24")).expect("fan");
    assert_eq!(map.host_of(ip("100.66.200.5")), Some(ip("10.224.220.11")));
}

#[test]
fn a_subnet_of_the_underlay_computes_the_overlay_subnet_its_hosts_share() {
    for (overlay, underlay, subnet, expected) in [
        ("253.0.0.0/8", "172.31.0.0/16", "172.31.16.0", "253.16.0.0"),
        ("252.0.0.0/7", "10.0.0.0/12", "10.2.224.0", "252.92.0.0"),
    ] {
        let map = FanMap::new(net(overlay), net(underlay)).expect("fan");
        assert_eq!(map.slice_of(ip(subnet)), Some(ip(expected)));
    }
}

#[test]
fn addresses_outside_the_networks_have_no_counterpart() {
    let map = FanMap::new(net("250.0.0.0/8"), net("172.30.0.0/16")).expect("fan");
    assert_eq!(map.slice_of(ip("172.31.0.1")), None);
    assert_eq!(map.host_of(ip("251.0.0.1")), None);
}

#[test]
fn contradictory_pairs_are_refused_by_the_rule_they_break() {
    let new = |overlay, underlay| FanMap::new(net(overlay), net(underlay));
    assert!(matches!(new("250.0.0.0/16", "172.30.0.0/16"), Err(FanError::OverlayNotWider { .. })));
    assert!(matches!(new("250.0.0.0/24", "172.30.0.0/16"), Err(FanError::OverlayNotWider { .. })));
    assert!(matches!(new("250.0.0.1/8", "172.30.0.0/16"), Err(FanError::OverlayHostBits { .. })));
    assert!(matches!(new("250.0.0.0/8", "172.30.0.28/16"), Err(FanError::UnderlayHostBits { .. })));
    assert!(matches!(new("250.0.0.0/15", "172.30.0.0/16"), Err(FanError::SliceTooSmall { slice_len: 31 })));
    assert!(matches!(new("250.0.0.0/33", "172.30.0.0/16"), Err(FanError::PrefixLength { len: 33 })));
    for overlay in ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/8", "0.0.0.0/0", "224.0.0.0/3"] {
        assert!(matches!(new(overlay, "172.30.0.0/16"), Err(FanError::OverlayForbidden { .. })), "{overlay}");
    }
}

/// Any fan that the rules allow, with an overlay inside 240/4 or 64/3.
fn fans() -> impl Strategy<Value = FanMap> {
    (4u8..=30, any::<u32>(), any::<u32>(), any::<bool>())
        .prop_flat_map(|(p, overlay, underlay, high)| {
            let base = if high { 240 << 24 } else { 64 << 24 };
            (Just(p), (p + 2)..=32u8, Just(base | (overlay & 0x0fff_ffff)), Just(underlay))
        })
        .prop_map(|(p, q, overlay, underlay)| {
            let (overlay, underlay) = (overlay & mask(p), underlay & mask(q));
            FanMap::new((Ipv4Addr::from_bits(overlay), p), (Ipv4Addr::from_bits(underlay), q)).expect("valid")
        })
}

proptest! {
    #[test]
    fn every_address_of_a_slice_computes_the_host_that_owns_it(map in fans(), bits: u32, offset: u32) {
        let (underlay, q) = map.underlay();
        let host = underlay | (bits & !mask(q));
        let slice = map.slice_of(host).expect("inside the underlay");
        let inner = slice | (offset & !mask(map.slice_len()));
        prop_assert_eq!(map.host_of(inner), Some(host));
    }

    #[test]
    fn every_overlay_address_lies_in_the_slice_of_the_host_it_computes(map in fans(), bits: u32) {
        let (overlay, p) = map.overlay();
        let inner = overlay | (bits & !mask(p));
        let host = map.host_of(inner).expect("inside the overlay");
        prop_assert_eq!(map.slice_of(host), Some(inner & mask(map.slice_len())));
    }

    #[test]
    fn different_hosts_own_different_slices(map in fans(), a: u32, b: u32) {
        let (underlay, q) = map.underlay();
        let host = |bits: u32| underlay | (bits & !mask(q));
        prop_assert_eq!(host(a) == host(b), map.slice_of(host(a)) == map.slice_of(host(b)));
    }
}
