//! What peers have is what they are to have.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use netgauze_bgp_pkt::{BgpMessage, iana::RouteRefreshSubcode, route_refresh::BgpRouteRefreshMessage};
use netgauze_iana::address_family::AddressType;
use proptest::{collection::btree_map, prelude::*};

use super::{
    pair::address,
    router::{Held, NOW, Router, established},
};
use crate::bgp::{Family, NextHop, Route, Routes, message::encode};

/// The n-th prefix, every third of them IPv6.
pub(super) fn prefix(number: u32) -> IpNet {
    if number % 3 == 2 {
        let address = (0x2001_0db8_u128 << 96) + u128::from(number);
        return IpNet::new(std::net::Ipv6Addr::from_bits(address).into(), 128).unwrap();
    }
    IpNet::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into(), 32).unwrap()
}

pub(super) fn route(med: u32) -> Arc<Route> {
    let (one, two, three) = ("65001:100", "65001:1:2", "rt:65001:5");
    Arc::new(Route {
        next_hop: NextHop::SelfAddress,
        med,
        local_preference: 100,
        as_path: Arc::from([65_100, 4_200_000_001]),
        communities: [one.parse().unwrap()].into(),
        large_communities: [two.parse().unwrap()].into(),
        extended_communities: [three.parse().unwrap()].into(),
    })
}

fn v6_hop() -> std::net::IpAddr {
    "2001:db8::1".parse().unwrap()
}

/// What a router of another AS is to hold.
fn held(routes: &Routes, own: u32) -> BTreeMap<IpNet, Held> {
    let of = |(prefix, route): (&IpNet, &Arc<Route>)| {
        let next_hop = Some(if Family::of(prefix) == Family::V4 { address(1) } else { v6_hop() });
        let as_path = vec![own, 65_100, 4_200_000_001];
        (*prefix, Held { next_hop, med: Some(route.med), local_preference: None, as_path, communities: 3 })
    };
    routes.iter().map(of).collect()
}

fn routes() -> impl Strategy<Value = Routes> {
    btree_map((0..40_u32).prop_map(prefix), (100..104_u32).prop_map(route), 0..40)
}

proptest! {
    #[test]
    fn a_peer_ends_with_what_is_wanted_and_hears_only_of_what_changed(
        sets in proptest::collection::vec(routes(), 1..8),
        asn4: bool,
    ) {
        let own = 4_200_000_009;
        let (mut session, link) = established(own, 65_002, asn4);
        session.set_uplink([(Family::V6, v6_hop())].into(), NOW);
        let mut router = Router::default();
        let mut former = Routes::new();
        for set in sets {
            session.want(Arc::new(set.clone()), NOW);
            router.take(&mut session, link, asn4);
            prop_assert_eq!(&router.table, &held(&set, own));
            let changed = former.keys().chain(set.keys()).filter(|prefix| former.get(prefix) != set.get(prefix));
            prop_assert_eq!(&router.touched, &changed.copied().collect());
            former = set;
        }
    }
}

#[test]
fn many_prefixes_of_equal_attributes_share_messages() {
    let (mut session, link) = established(65_001, 65_002, true);
    session.set_uplink([(Family::V6, v6_hop())].into(), NOW);
    let mut router = Router::default();
    let all: Routes = (0..3_000).map(|number| (prefix(number), route(100))).collect();
    session.want(Arc::new(all.clone()), NOW);
    router.take(&mut session, link, true);
    assert_eq!(router.table, held(&all, 65_001));
    // 2,000 of 5 bytes and 1,000 of 17, in batches of 512.
    assert!(router.updates <= 18, "{} messages", router.updates);
    session.want(Arc::default(), NOW);
    router.take(&mut session, link, true);
    assert_eq!(router.table.len(), 0);
    assert_eq!((session.status().counts.sent, session.status().counts.withdrawn), (3_000, 3_000));
}

#[test]
fn a_peer_that_does_not_read_gets_what_is_wanted_when_it_does() {
    let (mut session, link) = established(65_001, 65_002, true);
    let all =
        |med| (0..9_000).step_by(3).map(|number| (prefix(number), route(med + number))).collect::<Routes>();
    let mut waiting = 0;
    for med in 0..50 {
        session.want(Arc::new(all(100 * med)), NOW);
        waiting += session.take_actions().len();
    }
    assert!(waiting < 1_200, "{waiting} messages wait");
    session.want(Arc::default(), NOW);
    // What it has in its buffers is withdrawn without delay.
    assert!(!session.take_actions().is_empty());
    assert!(session.advertised().is_empty());
    session.written(link, usize::MAX, NOW);
    assert!(session.take_actions().is_empty());
    assert!(session.status().is_sent);
}

#[test]
fn a_peer_of_our_own_as_gets_the_preference_and_no_asn_of_ours() {
    let (mut session, link) = established(65_001, 65_001, true);
    let mut router = Router::default();
    session.want(Arc::new([(prefix(0), route(1))].into()), NOW);
    router.take(&mut session, link, true);
    let held = &router.table[&prefix(0)];
    assert_eq!((held.local_preference, &held.as_path[..]), (Some(100), &[65_100, 4_200_000_001][..]));
}

#[test]
fn a_prefix_without_a_next_hop_is_not_sent_and_told() {
    let (mut session, link) = established(65_001, 65_002, true);
    let mut router = Router::default();
    session.want(Arc::new([(prefix(1), route(1)), (prefix(2), route(1))].into()), NOW);
    router.take(&mut session, link, true);
    assert_eq!(router.table.len(), 1);
    assert_eq!(session.status().without_hop, [prefix(2)]);
    session.set_uplink([(Family::V6, v6_hop())].into(), NOW);
    router.take(&mut session, link, true);
    assert_eq!(router.table.len(), 2);
    assert!(session.status().without_hop.is_empty());
}

#[test]
fn a_peer_that_asks_anew_gets_that_family_again() {
    let (mut session, link) = established(65_001, 65_002, true);
    session.set_uplink([(Family::V6, v6_hop())].into(), NOW);
    let mut router = Router::default();
    session.want(Arc::new((0..6).map(|number| (prefix(number), route(1))).collect()), NOW);
    router.take(&mut session, link, true);
    let ask = |kind| {
        let refresh = BgpRouteRefreshMessage::new(AddressType::Ipv4Unicast, kind);
        encode(&BgpMessage::RouteRefresh(refresh)).unwrap()
    };
    session.received(link, &ask(RouteRefreshSubcode::NormalRequest), NOW);
    router.take(&mut session, link, true);
    let v4 = (0..6).map(prefix).filter(|prefix| Family::of(prefix) == Family::V4);
    assert_eq!(router.touched, v4.collect());
    session.received(link, &ask(RouteRefreshSubcode::EndOfRouteRefresh), NOW);
    router.take(&mut session, link, true);
    assert!(router.touched.is_empty());
}

#[test]
fn nothing_is_sent_before_it_is_known_what_is_wanted() {
    let mut pair = super::pair::Pair::of(super::pair::local(65_001, 1), super::pair::local(65_002, 2), 1);
    pair.run(std::time::Duration::from_secs(10));
    assert!(pair.is_established());
    assert!(!pair.sides[0].status().is_sent, "the End-of-RIB markers would end what the peer keeps");
    pair.v6_hop(0);
    let now = pair.now;
    pair.sides[0].want(Arc::new([(prefix(2), route(1))].into()), now);
    pair.run(std::time::Duration::from_secs(1));
    assert!(pair.sides[0].status().is_sent);
    assert_eq!(pair.sides[1].status().counts.received, 1);
}
