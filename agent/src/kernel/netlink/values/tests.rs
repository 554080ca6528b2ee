use netlink_packet_route::{
    link::InfoKind, neighbour::NeighbourState as Kernel, route::RouteProtocol, rule::RuleAction,
};

use super::*;

fn link_message(family: AddressFamily) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = family;
    message.header.index = 7;
    message.header.flags = LinkFlags::Up | LinkFlags::Noarp;
    message.attributes = vec![
        LinkAttribute::IfName("fl01234567".to_owned()),
        LinkAttribute::Address(vec![2, 0, 0, 0, 0, 7]),
        LinkAttribute::Mtu(1480),
        LinkAttribute::Controller(9),
        LinkAttribute::LinkNetNsId(0),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
    ];
    message
}

#[test]
fn a_link_message_becomes_a_link() {
    let link = Link::from_message(&link_message(AddressFamily::Unspec)).unwrap();
    assert_eq!((link.index, link.name.as_str(), link.mtu), (7, "fl01234567", 1480));
    assert_eq!((link.mac, link.master), ([2, 0, 0, 0, 0, 7], Some(9)));
    assert_eq!(link.kind.as_deref(), Some("veth"));
    assert!(link.up && link.noarp && link.peer_netns && !link.carrier && !link.loopback);
}

#[test]
fn a_port_that_leaves_a_bridge_is_no_interface_that_goes() {
    // The kernel says so by RTM_DELLINK of the bridge family.
    assert_eq!(Link::from_message(&link_message(AddressFamily::Bridge)), None);
}

#[test]
fn of_a_point_to_point_address_the_local_end_counts() {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = 3;
    message.header.prefix_len = 32;
    message.attributes = vec![
        AddressAttribute::Address(Ipv4Addr::new(10, 0, 0, 2).into()),
        AddressAttribute::Local(Ipv4Addr::new(10, 0, 0, 1).into()),
    ];
    let address = Address::from_message(&message).unwrap();
    assert_eq!((address.index, address.address), (3, Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(address.network(), "10.0.0.1/32".parse().unwrap());
}

fn route_message(kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 8;
    message.header.kind = kind;
    message.header.protocol = RouteProtocol::Other(250);
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet([250, 0, 0, 0].into())),
        RouteAttribute::Oif(4),
        RouteAttribute::PrefSource(RouteAddress::Inet([250, 0, 28, 1].into())),
        RouteAttribute::Metrics(vec![RouteMetric::Mtu(1480)]),
    ];
    message
}

#[test]
fn a_route_message_becomes_a_route_and_local_ones_do_not() {
    let expected = Route {
        destination: "250.0.0.0/8".parse().unwrap(),
        oif: Some(4),
        protocol: 250,
        prefsrc: Some([250, 0, 28, 1].into()),
        mtu: Some(1480),
        ..Route::default()
    };
    assert_eq!(Route::from_message(&route_message(RouteType::Unicast)), Some(expected));
    assert!(Route::from_message(&route_message(RouteType::Unreachable)).unwrap().rejects);
    assert_eq!(Route::from_message(&route_message(RouteType::Local)), None);
    assert_eq!(Route::from_message(&route_message(RouteType::Broadcast)), None);
}

#[test]
fn only_the_three_rules_of_every_namespace_are_standard() {
    let rule = |priority: Option<u32>, table: u8, more: Option<RuleAttribute>| {
        let mut message = RuleMessage::default();
        message.header.table = table;
        message.header.action = RuleAction::ToTable;
        message.attributes =
            vec![RuleAttribute::Table(table.into()), RuleAttribute::SuppressPrefixLen(u32::MAX)];
        message.attributes.extend(priority.map(RuleAttribute::Priority));
        message.attributes.extend(more);
        Rule::from_message(&message).unwrap()
    };
    assert!(rule(None, 255, None).is_standard());
    assert!(rule(Some(32766), 254, None).is_standard());
    assert!(!rule(Some(100), 254, None).is_standard());
    assert!(!rule(Some(32766), 254, Some(RuleAttribute::FwMark(1))).is_standard());
}

#[test]
fn a_neighbour_is_known_unless_it_failed_or_is_being_asked_for() {
    let state = |state: Kernel| {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.state = state;
        message.attributes =
            vec![NeighbourAttribute::Destination(NeighbourAddress::Inet([250, 0, 28, 3].into()))];
        Neighbour::from_message(&message).unwrap().state
    };
    assert_eq!(state(Kernel::Stale), NeighbourState::Known);
    assert_eq!(state(Kernel::Permanent), NeighbourState::Known);
    assert_eq!(state(Kernel::Incomplete), NeighbourState::Incomplete);
    assert_eq!(state(Kernel::Failed), NeighbourState::Failed);
}

#[test]
fn only_a_bridges_own_entries_are_forwarding_entries() {
    let entry = |bridge: Option<u32>, state: Kernel| {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = 4;
        message.header.state = state;
        message.attributes = vec![NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1])];
        message.attributes.extend(bridge.map(NeighbourAttribute::Controller));
        FdbEntry::from_message(&message)
    };
    let learnt = FdbEntry { bridge: 9, port: 4, mac: [2, 0, 0, 0, 0, 1], local: false };
    assert_eq!(entry(Some(9), Kernel::Reachable), Some(learnt));
    assert_eq!(entry(Some(9), Kernel::Permanent), Some(FdbEntry { local: true, ..learnt }));
    assert_eq!(entry(None, Kernel::Permanent), None);
}
