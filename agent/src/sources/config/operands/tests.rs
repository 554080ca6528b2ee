use proptest::prelude::*;

use super::*;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn parse(line: &str) -> Result<FanLine, OperandError> {
    parse_fan(&line.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn a_number_is_the_overlay_of_that_first_byte() {
    assert_eq!(parse_overlay("250"), Ok(net("250.0.0.0/8")));
    assert_eq!(parse_overlay("100.64.0.0/10"), Ok(net("100.64.0.0/10")));
}

#[test]
fn every_form_of_an_underlay_is_read() {
    let device = |name: &str, len| UnderlaySpec::Device { name: name.to_owned(), len };
    for (text, want) in [
        ("172.30.0.28", UnderlaySpec::Host(net("172.30.0.28/16"))),
        ("172.30.0.28/24", UnderlaySpec::Host(net("172.30.0.28/24"))),
        ("172.30.0.0", UnderlaySpec::Network(net("172.30.0.0/16"))),
        ("10.0.0.0/12", UnderlaySpec::Network(net("10.0.0.0/12"))),
        ("eth0", device("eth0", None)),
        ("eth0/16", device("eth0", Some(16))),
        ("default", UnderlaySpec::Default { len: Some(16) }),
        ("default/16", UnderlaySpec::Default { len: Some(16) }),
    ] {
        assert_eq!(parse_underlay(text), Ok(want), "{text}");
    }
}

#[test]
fn flags_may_come_in_any_order() {
    let a = parse("250 eth0/16 dhcp host-reserve 5 bridge br0 encap ipip egress drop auto").unwrap();
    let b = parse("250 eth0/16 auto egress drop encap ipip bridge br0 host-reserve 5 dhcp").unwrap();
    assert_eq!(a, b);
    assert!(a.spec.dhcp && a.auto && !a.off);
    assert_eq!(
        (a.spec.host_reserve, a.spec.egress, a.spec.bridge.as_deref()),
        (5, Egress::Drop, Some("br0"))
    );
}

#[test]
fn dhcp_offers_the_resolvers_that_are_named() {
    let spec = parse("250 eth0 dhcp dns 10.0.0.2,10.0.0.3").unwrap().spec;
    assert_eq!(spec.dns, [[10, 0, 0, 2], [10, 0, 0, 3]].map(Ipv4Addr::from));
    let error = crate::sources::config::check::check_fan(&parse("250 eth0 dns 10.0.0.2").unwrap().spec);
    let want = "dns 10.0.0.2 is offered by DHCP only; add dhcp, or leave dns out";
    assert_eq!(error.unwrap_err().to_string(), want);
}

#[test]
fn the_older_word_local_is_a_host_reserve() {
    assert_eq!(parse("250 eth0 dhcp local 5"), parse("250 eth0 dhcp host-reserve 5"));
    let twice = parse("250 eth0 local 5 host-reserve 5").unwrap_err().to_string();
    assert_eq!(twice, "'host-reserve' is given twice; give it once");
}

#[test]
fn slips_say_what_would_be_right() {
    for (line, want) in [
        ("", "the overlay is missing; give OVERLAY UNDERLAY, such as '250.0.0.0/8 eth0/16'"),
        ("250", "the underlay is missing; give OVERLAY UNDERLAY, such as '250.0.0.0/8 eth0/16'"),
        ("256 eth0", "'256' is no overlay; use N for N.0.0.0/8, or a network such as 250.0.0.0/8"),
        (
            "250.0.0.0 eth0",
            "'250.0.0.0' is no overlay; use N for N.0.0.0/8, or a network such as 250.0.0.0/8",
        ),
        (
            "250.0.0.0/33 eth0",
            "'250.0.0.0/33' is no overlay; use N for N.0.0.0/8, or a network such as 250.0.0.0/8",
        ),
        (
            "250 172.30.0/16",
            "'172.30.0/16' is no underlay; use a network such as 172.30.0.0/16, a device such as eth0 or eth0/16, or default",
        ),
        (
            "250 eth0/33",
            "'eth0/33' is no underlay; use a network such as 172.30.0.0/16, a device such as eth0 or eth0/16, or default",
        ),
        ("250 eth0 host-reserv 2", "'host-reserv' is no flag of a fan; did you mean 'host-reserve'?"),
        (
            "250 eth0 xyzzy",
            "'xyzzy' is no flag of a fan; use dhcp, dns ADDRESS, host-reserve N, bridge NAME, encap KIND, egress KIND, off or auto",
        ),
        ("250 eth0 host-reserve", "'host-reserve' needs a value; write 'host-reserve 1'"),
        ("250 eth0 host-reserve -1", "host-reserve '-1' is no number of addresses; use a number such as 1"),
        ("250 eth0 egress nat", "egress 'nat' is unknown; use masquerade, route or drop"),
        ("250 eth0 encap ip", "encapsulation 'ip' is unknown; use ipip"),
        ("250 eth0 dhcp dhcp", "'dhcp' is given twice; give it once"),
        (
            "250 eth0 dhcp dns here",
            "dns 'here' is no address of a resolver; use IPv4 addresses such as 10.0.0.2,10.0.0.3",
        ),
        ("250 eth0 dhcp dns 10.0.0.2,10.0.0.2", "dns 10.0.0.2 is listed twice; list it once"),
        (
            "250 eth0 dhcp dns 1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4",
            "dns names 4 resolvers; use at most 3, as many as a client asks (resolv.conf(5))",
        ),
        (
            "250 eth0 bridge a-name-that-is-too-long",
            "'a-name-that-is-too-long' is no name of a device; use 1 to 15 characters without '/', ':' and spaces",
        ),
    ] {
        assert_eq!(parse(line), Err(OperandError::Words(want.to_owned())), "{line}");
    }
}

#[test]
fn what_this_version_lacks_is_a_contradiction_and_no_slip() {
    for (line, want) in [
        ("250 eth0 encap vxlan", "encapsulation 'vxlan' is not supported by this version; use ipip"),
        (
            "fd00::/64 eth0",
            "overlay 'fd00::/64': IPv6 overlays are not supported by this version; use an IPv4 network such as 250.0.0.0/8",
        ),
        ("250 fe80::1/64", "underlay 'fe80::1/64': underlays are IPv4; use a network such as 172.30.0.0/16"),
    ] {
        assert_eq!(parse(line), Err(OperandError::Contradiction(want.to_owned())), "{line}");
    }
}

fn any_net() -> impl Strategy<Value = Ipv4Net> {
    (any::<u32>(), 0..=32_u8)
        .prop_map(|(address, len)| Ipv4Net::new_assert(Ipv4Addr::from_bits(address), len))
}

fn any_underlay() -> impl Strategy<Value = UnderlaySpec> {
    let len = prop::option::of(0..=32_u8);
    prop_oneof![
        (0..=32_u8).prop_map(|len| UnderlaySpec::Default { len: Some(len) }),
        ("[a-z][a-z0-9.@-]{0,14}", len)
            .prop_filter("a name of its own", |(name, _)| name != "default")
            .prop_map(|(name, len)| UnderlaySpec::Device { name, len }),
        any_net().prop_map(|net| {
            if net.trunc() == net { UnderlaySpec::Network(net) } else { UnderlaySpec::Host(net) }
        }),
    ]
}

fn any_line() -> impl Strategy<Value = FanLine> {
    let egress = prop_oneof![Just(Egress::Masquerade), Just(Egress::Route), Just(Egress::Drop)];
    let bridge = prop::option::of("[a-z][a-z0-9-]{0,14}");
    let dns = prop::collection::btree_set(any::<u32>(), 0..=3);
    (any_net(), any_underlay(), any::<u32>(), egress, bridge, any::<[bool; 3]>(), dns).prop_map(
        |(overlay, underlay, host_reserve, egress, bridge, [dhcp, off, auto], dns)| FanLine {
            spec: FanSpec {
                overlay,
                underlay,
                encapsulation: Encapsulation::Ipip,
                host_reserve,
                egress,
                bridge,
                dhcp,
                dns: dns.into_iter().map(Ipv4Addr::from_bits).collect(),
            },
            off,
            auto,
        },
    )
}

proptest! {
    #[test]
    fn operands_are_read_back_as_they_were_written(line in any_line()) {
        prop_assert_eq!(parse(&format_fan(&line)), Ok(line));
    }

    #[test]
    fn no_text_makes_the_parser_panic(words in prop::collection::vec(any::<String>(), 0..8)) {
        let _result = parse_fan(&words);
    }

    #[test]
    fn no_flags_make_the_parser_panic(tail in "([a-z0-9/.:-]{0,12} ){0,6}") {
        let _result = parse(&format!("250 eth0 {tail}"));
        let _result = parse(&tail);
    }
}
