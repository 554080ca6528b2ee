use super::*;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn link(index: u32, name: &str, mtu: u32) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: [2, 0, 0, 0, 0, 1],
        mtu,
        up: true,
        carrier: true,
        loopback: name == "lo",
        ..Link::default()
    }
}

fn address(index: u32, text: &str) -> Address {
    let network = net(text);
    Address { index, address: network.addr(), prefix_len: network.prefix_len() }
}

fn route(destination: &str, oif: u32) -> Route {
    Route { destination: net(destination), oif: Some(oif), ..Route::default() }
}

/// `lo`, and `eth0` with the paper's address and the default route.
fn host() -> Host {
    Host {
        links: vec![link(1, "lo", 65536), link(2, "eth0", 1500), link(3, "eth1", 9000)],
        addresses: vec![address(1, "127.0.0.1/8"), address(2, "172.30.0.28/16")],
        routes: vec![route("0.0.0.0/0", 2), route("172.30.0.0/16", 2)],
        ..Host::default()
    }
}

fn spec(overlay: &str, underlay: UnderlaySpec) -> FanSpec {
    FanSpec { overlay: net(overlay), underlay, ..FanSpec::example() }
}

fn device(name: &str, len: Option<u8>) -> UnderlaySpec {
    UnderlaySpec::Device { name: name.to_owned(), len }
}

fn resolve(host: &Host, overlay: &str, underlay: UnderlaySpec) -> Result<Fan, ResolveError> {
    host.resolve(&spec(overlay, underlay), Origin::Manual)
}

#[test]
fn every_form_of_the_underlay_gives_the_same_fan() {
    for underlay in [
        UnderlaySpec::Default { len: None },
        UnderlaySpec::Default { len: Some(16) },
        device("eth0", None),
        device("eth0", Some(16)),
        UnderlaySpec::Network(net("172.30.0.0/16")),
        UnderlaySpec::Host(net("172.30.0.28/16")),
    ] {
        let fan = resolve(&host(), "250.0.0.0/8", underlay.clone()).unwrap();
        assert_eq!(fan.slice, net("250.0.28.0/24"), "{underlay:?}");
        assert_eq!(fan.gateway, Ipv4Addr::new(250, 0, 28, 1));
        assert_eq!(fan.underlay, net("172.30.0.0/16"));
        assert_eq!(fan.address, Ipv4Addr::new(172, 30, 0, 28));
        assert_eq!(fan.bridge, "fan-250-0-28");
        assert_eq!((fan.mtu, fan.uplink.name.as_str()), (1480, "eth0"));
        assert_eq!(fan.uplink.network, net("172.30.0.0/16"));
    }
}

#[test]
fn the_underlay_may_be_wider_than_the_connected_network() {
    let mut host = host();
    host.addresses = vec![address(2, "10.88.3.4/24")];
    let fan = resolve(&host, "99.0.0.0/8", device("eth0", Some(16))).unwrap();
    assert_eq!(fan.slice, net("99.3.4.0/24"));
    assert_eq!(fan.uplink.network, net("10.88.3.0/24"));
}

#[test]
fn host_bits_that_are_not_this_hosts_address_are_refused() {
    for underlay in [UnderlaySpec::Host(net("172.30.0.29/16")), UnderlaySpec::Network(net("172.30.0.29/16"))]
    {
        let error = resolve(&host(), "250.0.0.0/8", underlay).unwrap_err();
        assert!(error.to_string().contains("use 172.30.0.0/16 or one of 172.30.0.28/16"), "{error}");
    }
}

#[test]
fn an_underlay_that_the_uplink_is_not_in_is_refused_with_what_there_is() {
    let error = resolve(&host(), "250.0.0.0/8", UnderlaySpec::Network(net("10.0.0.0/16"))).unwrap_err();
    assert_eq!(
        error,
        ResolveError::NotInUnderlay { underlay: net("10.0.0.0/16"), addresses: vec![net("172.30.0.28/16")] }
    );
    let mut host = host();
    host.addresses.push(address(3, "10.0.0.9/16"));
    host.uplinks = vec!["eth0".to_owned()];
    let error = resolve(&host, "250.0.0.0/8", UnderlaySpec::Network(net("10.0.0.0/16"))).unwrap_err();
    assert!(matches!(error, ResolveError::NotInUnderlay { .. }), "{error}");
}

#[test]
fn missing_devices_addresses_and_default_routes_are_named() {
    let mut host = host();
    let error = resolve(&host, "250.0.0.0/8", device("eth7", None)).unwrap_err();
    assert!(error.to_string().contains("eth7"), "{error}");
    let error = resolve(&host, "250.0.0.0/8", device("eth1", None)).unwrap_err();
    assert!(error.to_string().contains("underlays are IPv4"), "{error}");
    let error = resolve(&host, "250.0.0.0/8", device("lo", None)).unwrap_err();
    assert_eq!(error, ResolveError::NoUplink { device: "lo".to_owned() });
    host.routes.clear();
    let error = resolve(&host, "250.0.0.0/8", UnderlaySpec::Default { len: None }).unwrap_err();
    assert_eq!(error, ResolveError::NoDefaultRoute);
}

#[test]
fn the_default_route_with_the_smallest_metric_tells_the_uplink_unless_one_is_configured() {
    let mut host = host();
    host.addresses.push(address(3, "10.7.1.2/16"));
    host.routes =
        vec![Route { metric: 100, ..route("0.0.0.0/0", 2) }, Route { metric: 50, ..route("0.0.0.0/0", 3) }];
    let fan = resolve(&host, "250.0.0.0/8", UnderlaySpec::Default { len: None }).unwrap();
    assert_eq!((fan.uplink.name.as_str(), fan.mtu), ("eth1", 8980));
    host.uplinks = vec!["eth0".to_owned()];
    let fan = resolve(&host, "250.0.0.0/8", UnderlaySpec::Default { len: None }).unwrap();
    assert_eq!(fan.uplink.name, "eth0");
}

#[test]
fn several_uplinks_carry_the_smallest_mtu_of_them() {
    let mut host = host();
    host.links[1].mtu = 9000;
    host.links[2].mtu = 1400;
    host.uplinks = vec!["eth0".to_owned(), "eth1".to_owned()];
    let fan = resolve(&host, "250.0.0.0/8", UnderlaySpec::Default { len: None }).unwrap();
    assert_eq!(fan.mtu, 1380);
    assert_eq!(fan.uplinks().map(|uplink| uplink.name.as_str()).collect::<Vec<_>>(), ["eth0", "eth1"]);
}

#[test]
fn a_virtual_address_beside_the_real_one_is_not_taken_for_the_underlay() {
    let mut host = host();
    host.addresses.insert(1, address(2, "172.30.9.9/32"));
    for underlay in [device("eth0", None), UnderlaySpec::Network(net("172.30.0.0/16"))] {
        assert_eq!(resolve(&host, "250.0.0.0/8", underlay).unwrap().slice, net("250.0.28.0/24"));
    }
}

#[test]
fn a_lone_single_address_needs_the_underlays_length() {
    let mut host = host();
    host.addresses = vec![address(2, "10.128.0.5/32")];
    let error = resolve(&host, "250.0.0.0/8", device("eth0", None)).unwrap_err();
    assert!(error.to_string().contains("as eth0/16"), "{error}");
    let fan = resolve(&host, "250.0.0.0/8", device("eth0", Some(20))).unwrap();
    assert_eq!(fan.underlay, net("10.128.0.0/20"));
}

#[test]
fn several_networks_or_interfaces_are_refused_with_the_choices() {
    let mut host = host();
    host.addresses.push(address(2, "10.0.0.9/16"));
    let error = resolve(&host, "250.0.0.0/8", device("eth0", None)).unwrap_err();
    assert!(error.to_string().ends_with("172.30.0.28/16, 10.0.0.9/16"), "{error}");

    let mut host = self::host();
    host.addresses.push(address(3, "172.30.0.29/16"));
    let fan = resolve(&host, "250.0.0.0/8", UnderlaySpec::Network(net("172.30.0.0/16"))).unwrap();
    assert_eq!(fan.uplink.name, "eth0", "the one with the default route");
    host.routes.clear();
    let error = resolve(&host, "250.0.0.0/8", UnderlaySpec::Network(net("172.30.0.0/16"))).unwrap_err();
    assert!(error.to_string().ends_with("172.30.0.28/16, 172.30.0.29/16"), "{error}");
}

#[test]
fn a_second_address_in_the_same_network_leaves_the_primary_one_in_charge() {
    let mut host = host();
    host.addresses.push(address(2, "172.30.0.99/16"));
    let fan = resolve(&host, "250.0.0.0/8", device("eth0", None)).unwrap();
    assert_eq!(fan.address, Ipv4Addr::new(172, 30, 0, 28));
    let fan = resolve(&host, "250.0.0.0/8", UnderlaySpec::Host(net("172.30.0.99/16"))).unwrap();
    assert_eq!(fan.slice, net("250.0.99.0/24"));
}

#[test]
fn an_address_on_the_loopback_interface_leaves_by_the_default_route() {
    let mut host = host();
    host.addresses.push(address(1, "10.9.0.7/32"));
    let fan = resolve(&host, "250.0.0.0/8", UnderlaySpec::Host(net("10.9.0.7/16"))).unwrap();
    assert_eq!((fan.address, fan.uplink.name.as_str()), (Ipv4Addr::new(10, 9, 0, 7), "eth0"));
}

#[test]
fn the_rules_of_the_arithmetic_are_kept() {
    for (overlay, underlay) in [
        ("250.0.0.0/16", "172.30.0.0/16"),
        ("250.1.0.0/8", "172.30.0.0/16"),
        ("127.0.0.0/8", "172.30.0.0/16"),
    ] {
        let error = resolve(&host(), overlay, UnderlaySpec::Network(net(underlay))).unwrap_err();
        assert!(matches!(error, ResolveError::NoFan { .. }), "{overlay}: {error}");
    }
}

#[test]
fn an_overlay_that_this_host_uses_otherwise_is_refused() {
    let refused = |host: &Host, overlay: &str| {
        resolve(host, overlay, UnderlaySpec::Default { len: None }).unwrap_err().to_string()
    };
    assert!(refused(&host(), "172.0.0.0/8").contains("overlap"));
    let mut used = host();
    used.addresses.push(address(3, "250.7.0.1/16"));
    assert!(refused(&used, "250.0.0.0/8").contains("250.7.0.1/16 of eth1"));
    let mut routed = host();
    routed.routes.push(route("250.7.0.0/16", 3));
    assert!(refused(&routed, "250.0.0.0/8").contains("route 250.7.0.0/16"));
    let mut other = host();
    other.overlays = vec![net("250.128.0.0/9")];
    assert!(refused(&other, "250.0.0.0/8").contains("fan 250.128.0.0/9"));
}

#[test]
fn our_own_bridges_and_routes_and_wider_routes_are_no_obstacle() {
    let mut host = host();
    host.links.push(link(9, "fan-250-0-28", 1480));
    host.links[3].kind = Some("bridge".to_owned());
    host.own = vec![9];
    host.addresses.push(address(9, "250.0.28.1/24"));
    host.routes.push(route("250.0.28.0/24", 9));
    host.routes.push(Route { protocol: ROUTE_PROTOCOL, ..route("250.0.0.0/8", 3) });
    host.routes.push(route("240.0.0.0/4", 2));
    assert!(resolve(&host, "250.0.0.0/8", UnderlaySpec::Default { len: None }).is_ok());
}

#[test]
fn a_fan_that_is_up_stays_possible_whatever_routes_and_addresses_are_added() {
    let mut host = host();
    host.overlays = vec![net("250.0.0.0/8")];
    host.routes.push(route("250.7.0.0/16", 3));
    host.addresses.push(address(3, "250.9.0.1/16"));
    assert!(resolve(&host, "250.0.0.0/8", UnderlaySpec::Default { len: None }).is_ok());
}

#[test]
fn a_bridge_may_be_named_and_adopted_but_nothing_else_may_have_its_name() {
    let mut host = host();
    let mut asked = spec("250.0.0.0/8", UnderlaySpec::Default { len: None });
    asked.bridge = Some("docker0".to_owned());
    host.links.push(Link { kind: Some("bridge".to_owned()), ..link(9, "docker0", 1500) });
    host.addresses.push(address(9, "250.0.28.1/24"));
    host.routes.push(route("250.0.28.0/24", 9));
    assert_eq!(host.resolve(&asked, Origin::Manual).unwrap().bridge, "docker0");

    let mut host = self::host();
    host.links.push(Link { kind: Some("dummy".to_owned()), ..link(9, "fan-250-0-28", 1500) });
    let error = resolve(&host, "250.0.0.0/8", UnderlaySpec::Default { len: None }).unwrap_err();
    assert!(error.to_string().contains("no bridge (dummy)"), "{error}");
}

#[test]
fn a_reserve_that_leaves_nothing_is_refused() {
    let mut asked = spec("250.0.0.0/8", UnderlaySpec::Default { len: None });
    asked.host_reserve = 253;
    assert!(host().resolve(&asked, Origin::Manual).is_ok());
    asked.host_reserve = 254;
    let error = host().resolve(&asked, Origin::Manual).unwrap_err();
    assert!(error.to_string().contains("at most 253"), "{error}");
}

#[test]
fn an_uplink_too_small_for_the_smallest_datagram_is_refused() {
    let mut host = host();
    host.links[1].mtu = 590;
    let error = resolve(&host, "250.0.0.0/8", UnderlaySpec::Default { len: None }).unwrap_err();
    assert!(error.to_string().contains("needs 596 or more"), "{error}");
}

#[test]
fn the_underlays_first_and_last_address_own_no_slice() {
    let mut host = host();
    host.addresses = vec![address(2, "172.30.0.0/8")];
    let error = resolve(&host, "250.0.0.0/8", device("eth0", Some(16))).unwrap_err();
    assert!(matches!(error, ResolveError::NoHostAddress { .. }), "{error}");
}

#[test]
fn where_the_address_is_on_the_loopback_device_all_others_are_unwatched() {
    let mut host = host();
    host.addresses.push(address(1, "172.31.0.28/32"));
    host.addresses.push(address(3, "10.0.0.28/24"));
    host.links.iter_mut().for_each(|link| link.up = true);
    let fan = resolve(&host, "250.0.0.0/8", UnderlaySpec::Host(net("172.31.0.28/16"))).unwrap();
    assert_eq!(host.unwatched(&fan), ["eth1"]);
    let on_device = resolve(&host, "250.0.0.0/8", device("eth0", None)).unwrap();
    assert_eq!(host.unwatched(&on_device), [""; 0]);
    host.uplinks = vec!["eth0".to_owned()];
    assert_eq!(host.unwatched(&fan), [""; 0]);
}

#[test]
fn the_address_that_a_fan_has_stays_its_own_beside_any_other() {
    let mut host = host();
    host.addresses.insert(0, address(2, "172.30.0.99/16"));
    host.addresses.insert(0, address(3, "172.30.0.98/16"));
    let spec = spec("250.0.0.0/8", UnderlaySpec::Network(net("172.30.0.0/16")));
    host.identities = vec![(spec.overlay, [172, 30, 0, 28].into())];
    assert_eq!(host.resolve(&spec, Origin::Manual).unwrap().address, Ipv4Addr::new(172, 30, 0, 28));
    let by_device = FanSpec { underlay: device("eth0", None), ..spec };
    assert_eq!(host.resolve(&by_device, Origin::Manual).unwrap().address, Ipv4Addr::new(172, 30, 0, 28));
    host.addresses.pop();
    assert_eq!(host.resolve(&by_device, Origin::Manual).unwrap().address, Ipv4Addr::new(172, 30, 0, 99));
}
