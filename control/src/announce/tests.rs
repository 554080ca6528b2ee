use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::bgp::{Community, NextHop};

fn announcement(what: What) -> Announcement {
    Announcement {
        name: "apex".into(),
        what,
        via: Via { bgp: true, table: None },
        peers: BTreeSet::new(),
        start: 0,
        med: 100,
        med_step: 1,
        on_down: Fallback::Withdraw,
        on_disabled: Fallback::Med(500),
        disable_file: None,
        next_hop: NextHop::SelfAddress,
        local_preference: 100,
        up: Look { as_path: Arc::from([65_100]), communities: [Community(1)].into() },
        down_as_path: Some(Arc::from([65_200])),
        disabled_as_path: Some(Arc::from([65_300, 65_300])),
        disabled_communities: Some([Community(2)].into()),
        large_communities: BTreeSet::new(),
        extended_communities: BTreeSet::new(),
        loopback: None,
        check: None,
        hooks: Hooks::default(),
    }
}

fn prefixes(count: u8) -> What {
    What::Prefixes((0..count).map(|last| IpNet::from(address(last))).collect())
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// The last byte of each prefix and its MED.
fn meds(decision: &Decision) -> Vec<(u8, Option<u32>)> {
    let last = |prefix: &IpNet| match prefix {
        IpNet::V4(prefix) => prefix.addr().octets()[3],
        IpNet::V6(_) => panic!("{prefix}"),
    };
    let med = |decided: &Decided| (last(&decided.prefix), decided.route.as_ref().map(|route| route.med));
    decision.prefixes.iter().map(med).collect()
}

fn up() -> Condition {
    Condition::default()
}

fn checked(health: Health) -> Condition {
    Condition { check: Some(health), ..up() }
}

#[test]
fn each_further_prefix_has_a_step_more_from_the_start_on() {
    let mut apex = announcement(prefixes(3));
    let facts = Facts::default();
    assert_eq!(meds(&decide(&apex, &facts, up())), [(0, Some(100)), (1, Some(101)), (2, Some(102))]);
    apex.start = 4;
    assert_eq!(meds(&decide(&apex, &facts, up())), [(1, Some(100)), (2, Some(101)), (0, Some(102))]);
    (apex.med, apex.med_step) = (u32::MAX, 10);
    assert!(meds(&decide(&apex, &facts, up())).iter().all(|(_, med)| *med == Some(u32::MAX)));
    apex.what = What::Slices;
    assert!(decide(&apex, &facts, up()).prefixes.is_empty());
}

#[test]
fn a_state_has_its_med_path_and_communities() {
    let mut apex = announcement(prefixes(2));
    let facts = Facts::default();
    let of = |apex: &Announcement, condition| {
        let decision = decide(apex, &facts, condition);
        let route = decision.prefixes[1].route.clone();
        (decision.life, route.map(|route| (route.med, route.as_path.to_vec(), route.communities.clone())))
    };
    let (ones, twos) = (BTreeSet::from([Community(1)]), BTreeSet::from([Community(2)]));
    assert_eq!(of(&apex, up()), (Life::Up, Some((101, vec![65_100], ones.clone()))));
    assert_eq!(of(&apex, checked(Health::Up)), (Life::Up, Some((101, vec![65_100], ones.clone()))));
    assert_eq!(of(&apex, checked(Health::Unknown)), (Life::Init, None));
    assert_eq!(of(&apex, checked(Health::Down)), (Life::Down, None));
    apex.on_down = Fallback::Med(900);
    assert_eq!(
        of(&apex, checked(Health::Unknown)),
        (Life::Init, None),
        "not the MED of a check that is down"
    );
    assert_eq!(of(&apex, checked(Health::Down)), (Life::Down, Some((901, vec![65_200], ones))));
    let disabled = Condition { is_disabled: true, ..checked(Health::Down) };
    assert_eq!(of(&apex, disabled), (Life::Disabled, Some((501, vec![65_300, 65_300], twos))));
    apex.on_disabled = Fallback::Withdraw;
    assert_eq!(of(&apex, disabled), (Life::Disabled, None));
    let maintained = Condition { is_maintained: true, ..up() };
    assert_eq!(of(&apex, maintained).0, Life::Maintenance);
    assert!(of(&apex, maintained).1.is_some(), "its routes stay until the sessions end");
}

#[test]
fn a_services_vip_is_announced_where_its_backends_are() {
    let service = |name: &str, last, has_backend, has_local| ServiceFact {
        name: name.to_owned(),
        vip: address(last),
        has_backend,
        has_local,
    };
    let services = vec![
        service("dns", 9, true, false),
        service("web", 7, true, true),
        service("web-tls", 7, false, false),
        service("x", 8, false, false),
    ];
    let facts = Facts { services, ..Facts::default() };
    let of = |names: &[&str], when| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        meds(&decide(&announcement(What::Services(names, when)), &facts, up()))
    };
    let (local, any, always) = (When::Local, When::Any, When::Always);
    assert_eq!(of(&[], local), [(9, None), (7, Some(101)), (8, None)]);
    assert_eq!(of(&[], any), [(9, Some(100)), (7, Some(101)), (8, None)]);
    assert_eq!(of(&[], always), [(9, Some(100)), (7, Some(101)), (8, Some(102))]);
    assert_eq!(of(&["web-tls", "web", "unknown"], local), [(7, Some(100))]);
}

#[test]
fn what_is_about_to_go_counts_no_more_and_what_comes_not_yet() {
    let service = |name: &str, has_backend| ServiceFact {
        name: name.to_owned(),
        vip: address(1),
        has_backend,
        has_local: has_backend,
    };
    let now = Facts {
        services: vec![service("a", true), service("b", true), service("c", false)],
        ..Facts::default()
    };
    let soon = [service("a", true), service("c", true), service("d", true)];
    assert_eq!(now.meet(&soon).services, [service("a", true), service("c", false)]);
}

#[test]
fn of_two_announcements_of_a_prefix_the_lower_med_counts() {
    let facts = Facts { slices: [IpNet::from(address(1))].into(), ..Facts::default() };
    let (one, mut other) = (announcement(prefixes(2)), announcement(What::Slices));
    other.med = 50;
    other.peers = [address(200)].into();
    let decisions = [&one, &other].map(|own| (own, decide(own, &facts, up())));
    let of = |peer| {
        let routes = routes(decisions.iter().map(|(own, decision)| (*own, decision)), address(peer));
        routes.values().map(|route| route.med).collect::<Vec<_>>()
    };
    assert_eq!(of(200), [100, 50]);
    assert_eq!(of(201), [100, 101], "a peer that the other one does not go to");
}

#[test]
fn a_host_is_announced_once_its_address_is_on_lo() {
    let mut apex = announcement(prefixes(2));
    apex.loopback = Some(std::time::Duration::ZERO);
    let mut facts = Facts::default();
    let decision = decide(&apex, &facts, up());
    assert_eq!(meds(&decision), [(0, None), (1, None)]);
    assert_eq!(decision.loopback, [address(0), address(1)].into());
    facts.loopback = [address(1)].into();
    assert_eq!(meds(&decide(&apex, &facts, up())), [(0, None), (1, Some(101))]);
    apex.on_disabled = Fallback::Withdraw;
    let disabled = Condition { is_disabled: true, ..up() };
    assert!(decide(&apex, &facts, disabled).loopback.is_empty());
}

#[test]
fn what_is_about_to_go_is_marked_and_preferred_least() {
    let apex = announcement(prefixes(1));
    let decision = decide(&apex, &Facts::default(), up());
    let routes = graceful(&routes([(&apex, &decision)], address(200)));
    let route = routes.values().next().unwrap();
    assert!(route.communities.contains(&Community::GRACEFUL_SHUTDOWN));
    assert_eq!((route.local_preference, route.med), (0, 100));
}

#[test]
fn a_table_has_what_is_announced_by_it_with_meds_as_metrics() {
    let mut apex = announcement(prefixes(2));
    apex.via = Via { bgp: false, table: Some(110) };
    let decision = decide(&apex, &Facts::default(), up());
    assert!(routes([(&apex, &decision)], address(200)).is_empty());
    let table = table([(&apex, &decision)]);
    assert_eq!(
        table.into_iter().collect::<Vec<_>>(),
        [((110, IpNet::from(address(0))), 100), ((110, IpNet::from(address(1))), 101)]
    );
}

proptest! {
    #[test]
    fn positions_do_not_depend_on_what_is_served(served: [bool; 6], start in 0..10_u32) {
        let service = |(place, is_served): (usize, bool)| ServiceFact {
            name: place.to_string(),
            vip: address(u8::try_from(place).unwrap()),
            has_backend: is_served,
            has_local: is_served,
        };
        let services = served.into_iter().enumerate().map(service).collect();
        let facts = Facts { services, ..Facts::default() };
        let mut all = announcement(What::Services(Vec::new(), When::Local));
        all.start = start;
        let found = meds(&decide(&all, &facts, up()));
        all.what = What::Services(Vec::new(), When::Always);
        let whole = meds(&decide(&all, &facts, up()));
        prop_assert_eq!(found.len(), 6);
        for ((last, med), (also, always)) in found.into_iter().zip(whole) {
            prop_assert_eq!(last, also);
            prop_assert_eq!(med, always.filter(|_| served[usize::from(last)]));
        }
    }
}
