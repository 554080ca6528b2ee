use super::*;
use crate::observed::Record;

fn mark(last: u8) -> Mark {
    Mark { address: [172, 30, 0, last].into(), ..Mark::example() }
}

fn link(index: u32, name: &str, kind: &str, alias: Option<String>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1480,
        kind: Some(kind.to_owned()),
        up: true,
        carrier: true,
        alias,
        ..Link::default()
    }
}

#[test]
fn a_fan_is_found_by_its_alias_by_the_file_and_by_both_once() {
    let bridge = link(9, "fan-250-0-28", "bridge", Some(mark(28).to_alias()));
    let entry = Entry { mark: mark(28), adopted: None };
    let by_alias = standing(std::slice::from_ref(&bridge), &[]);
    let by_both = standing(std::slice::from_ref(&bridge), std::slice::from_ref(&entry));
    assert_eq!(by_alias, by_both);
    assert_eq!(by_alias, [Standing { mark: mark(28), adopted: None, bridge: Some(bridge) }]);
    let by_file = standing(&[], &[entry]);
    assert_eq!(by_file, [Standing { mark: mark(28), adopted: None, bridge: None }]);
}

#[test]
fn a_mark_on_something_that_is_no_bridge_is_no_fan() {
    assert_eq!(standing(&[link(9, "fan-250-0-28", "dummy", Some(mark(28).to_alias()))], &[]), []);
}

#[test]
fn ports_and_routed_endpoints_of_the_slice_are_users() {
    let bridge = link(9, "fan-250-0-28", "bridge", Some(mark(28).to_alias()));
    let port = Link { master: Some(9), ..link(10, "veth1", "veth", None) };
    let record = Record::new("web".into(), "blue".into(), true, vec![[250, 0, 28, 7].into()]);
    let routed = link(11, "fl00000001", "veth", Some(record.to_alias().unwrap()));
    let helper = link(12, HELPER[0], "veth", None);
    let route = |destination: &str, oif: u32| Route {
        destination: destination.parse().unwrap(),
        oif: Some(oif),
        protocol: ROUTE_PROTOCOL,
        ..Route::default()
    };
    let observed = ObservedHost {
        links: vec![bridge.clone(), port, routed, helper, link(13, "veth2", "veth", None)],
        routes: vec![route("250.0.28.7/32", 11), route("250.0.0.0/8", 12), route("250.0.29.8/32", 13)],
        ..ObservedHost::default()
    };
    let fan = Standing { mark: mark(28), adopted: None, bridge: Some(bridge) };
    assert_eq!(observed.users(&fan), ["port veth1", "endpoint web"]);
}

#[test]
fn the_fan_of_an_overlay_is_the_one_that_is_not_stale() {
    let stale = Standing { mark: Mark { stale: true, ..mark(28) }, adopted: None, bridge: None };
    let now = Standing { mark: mark(29), adopted: None, bridge: None };
    let observed = ObservedHost { standing: vec![stale, now.clone()], ..ObservedHost::default() };
    assert_eq!(observed.fan("250.0.0.0/8".parse().unwrap()), Some(&now));
}
