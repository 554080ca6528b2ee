use super::*;
use crate::kernel::netlink::messages::{messages, tests::message};

/// `RTM_DELROUTE`, `RTM_NEWROUTE` and `NLM_F_REPLACE` are what the kernel says of a change.
const NEW: u16 = 24;
const GONE: u16 = 25;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

/// A route out of a device with a metric.
fn route(destination: &str, maker: u8, device: u8, metric: u8) -> Vec<u8> {
    let destination = net(destination);
    let mut payload = vec![2, destination.prefix_len(), 0, 0, 254, maker, 0, 1, 0, 0, 0, 0];
    payload.extend([8, 0, 1, 0]);
    payload.extend(destination.addr().octets());
    payload.extend([8, 0, 4, 0, device, 0, 0, 0]);
    payload.extend([8, 0, 6, 0, metric, 0, 0, 0]);
    payload
}

/// A table that follows 250.0.0.0/8, without the kernel's notices.
fn table() -> RouteTable {
    let mut table = RouteTable::open().unwrap();
    table.interest.near.push(net("250.0.0.0/8"));
    table
}

fn tell(table: &mut RouteTable, kind: u16, flags: u16, payload: &[u8]) {
    let bytes = message(kind, flags, 0, payload);
    table.take(messages(&bytes).next().unwrap().unwrap()).unwrap();
}

fn held(table: &RouteTable) -> Vec<(String, u8, u32)> {
    let held = table.each().map(|route| (route.destination.to_string(), route.protocol, route.metric));
    let mut held: Vec<_> = held.collect();
    held.sort();
    held
}

#[test]
fn only_what_matters_is_held_and_goes_when_it_is_said_to() {
    let mut table = table();
    tell(&mut table, NEW, 0, &route("10.0.0.2/32", 186, 4, 0));
    tell(&mut table, NEW, 0, &route("250.0.27.0/24", 186, 4, 0));
    tell(&mut table, NEW, 0, &route("10.96.0.10/32", ROUTE_PROTOCOL, 4, 0));
    let both = [("10.96.0.10/32".to_owned(), 250, 0), ("250.0.27.0/24".to_owned(), 186, 0)];
    assert_eq!(held(&table), both);
    tell(&mut table, GONE, 0, &route("10.96.0.10/32", ROUTE_PROTOCOL, 4, 0));
    assert_eq!(held(&table), both[1..]);
    assert!(!table.has_lost);
}

#[test]
fn a_route_that_takes_the_place_of_another_leaves_those_of_other_metrics() {
    let mut table = table();
    tell(&mut table, NEW, 0, &route("250.0.0.0/8", ROUTE_PROTOCOL, 4, 0));
    tell(&mut table, NEW, 0, &route("250.0.0.0/8", 186, 4, 20));
    tell(&mut table, NEW, REPLACED, &route("250.0.0.0/8", 4, 5, 0));
    assert_eq!(held(&table), [("250.0.0.0/8".to_owned(), 4, 0), ("250.0.0.0/8".to_owned(), 186, 20)]);
}

#[test]
fn the_routes_of_a_device_go_with_it_without_a_notice() {
    let mut table = table();
    tell(&mut table, NEW, 0, &route("250.0.0.0/8", ROUTE_PROTOCOL, 4, 0));
    tell(&mut table, NEW, 0, &route("0.0.0.0/0", 16, 5, 0));
    let link = |flags: u8| {
        let mut link = vec![0, 0, 1, 0, 4, 0, 0, 0, flags, 0, 0, 0, 0, 0, 0, 0];
        link.extend([7, 0, 3, 0, b'e', b'0', 0, 0]);
        link
    };
    // Up without a carrier: routes stay.
    tell(&mut table, 16, 0, &link(1));
    assert_eq!(held(&table).len(), 2);
    tell(&mut table, 16, 0, &link(0));
    assert_eq!(held(&table), [("0.0.0.0/0".to_owned(), 16, 0)]);
}

#[test]
fn a_change_told_in_other_words_makes_everything_be_read_again() {
    let mut table = table();
    tell(&mut table, NEW, 0, &route("250.0.0.0/8", 186, 4, 0));
    tell(&mut table, GONE, 0, &route("250.0.0.0/8", 186, 5, 0));
    assert!(table.has_lost);
}

#[test]
fn reading_takes_a_small_part_of_the_time() {
    let begun = Instant::now();
    let reading = Reading { begun, took: Duration::from_millis(300) };
    assert!(!reading.is_due(begun + Duration::from_secs(29), &LOST));
    assert!(reading.is_due(begun + Duration::from_secs(30), &LOST));
    assert!(!reading.is_due(begun + Duration::from_secs(299), &ALL));
    let quick = Reading { begun, took: Duration::ZERO };
    assert!(quick.is_due(begun + Duration::from_secs(5), &OWN));
    assert!(!quick.is_due(begun + Duration::from_secs(59), &ALL));
}
