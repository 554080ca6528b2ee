use control::model::difference;
use proptest::prelude::*;

use super::*;
use crate::sources::config::operands::{OperandError, parse_fan};

fn spec(line: &str) -> FanSpec {
    parse_fan(&line.split_whitespace().collect::<Vec<_>>()).unwrap().spec
}

#[test]
fn fans_that_the_arithmetic_allows_pass() {
    for line in [
        "250 eth0",
        "250 172.30.0.28/16",
        "250 172.30.0.0/16 host-reserve 253",
        "240.0.0.0/5 10.88.128.0/20",
        "252.0.0.0/7 10.0.0.0/12",
        "250 default/16",
    ] {
        assert_eq!(check_fan(&spec(line)), Ok(()), "{line}");
    }
}

#[test]
fn contradictions_within_a_fan_name_what_would_be_right() {
    for (line, want) in [
        ("250.1.0.0/8 eth0", "overlay 250.1.0.0/8 has host bits set; use 250.0.0.0/8"),
        (
            "250.0.0.0/16 eth0/16",
            "250.0.0.0/16 over eth0/16: overlay /16 has no room for underlay /16; use an overlay with a shorter prefix than the underlay's",
        ),
        (
            "10.0.0.0/8 10.1.0.0/16",
            "overlay 10.0.0.0/8 overlaps the underlay 10.1.0.0/16; use an unused network such as 250.0.0.0/8",
        ),
        (
            "127.0.0.0/8 172.30.0.0/16",
            "127.0.0.0/8 over 172.30.0.0/16: the overlay overlaps 127.0.0.0/8, which is not usable for hosts; use an unused network such as 250.0.0.0/8",
        ),
        (
            "250 172.30.0.0/16 host-reserve 254",
            "host-reserve 254 leaves no address of a /24 slice; use at most 253",
        ),
        ("250 br0 bridge br0", "br0 is both underlay and bridge; name another bridge"),
    ] {
        assert_eq!(check_fan(&spec(line)), Err(OperandError::Contradiction(want.to_owned())), "{line}");
    }
}

#[test]
fn overlapping_overlays_conflict_and_others_do_not() {
    let conflict = |a, b| conflict(&spec(a), &spec(b));
    assert_eq!(
        conflict("250 eth0", "250.1.0.0/16 eth0/24").as_deref(),
        Some("overlay 250.1.0.0/16 overlaps 250.0.0.0/8")
    );
    assert_eq!(conflict("250 eth0", "251 eth0"), None);
}

#[test]
fn the_first_difference_is_named() {
    let difference = |a, b| difference(&spec(a), &spec(b));
    assert_eq!(difference("250 eth0", "250 eth0"), None);
    assert_eq!(difference("250 eth0", "250 eth1").as_deref(), Some("underlay is eth1 instead of eth0"));
    assert_eq!(difference("250 eth0", "250 eth0 dhcp").as_deref(), Some("dhcp is true instead of false"));
}

proptest! {
    #[test]
    fn no_networks_make_the_check_panic(
        overlay in any::<u32>(), p in 0..=32_u8, underlay in any::<u32>(), q in 0..=32_u8, reserve in any::<u32>(),
    ) {
        let line = format!(
            "{}/{p} {}/{q} host-reserve {reserve}",
            std::net::Ipv4Addr::from_bits(overlay), std::net::Ipv4Addr::from_bits(underlay)
        );
        let _result = check_fan(&spec(&line));
    }
}
