use super::*;
use crate::filter::state;

const HELPER: &str = "fanlight0";

fn device(name: &str) -> Device {
    Device::new(name, 0)
}

/// The ways of a fan.
fn fan(overlay: &str, bridge: &str) -> Vec<Way> {
    let overlay: Ipv4Net = overlay.parse().unwrap();
    let ends = |network: Ipv4Net| (network.network().to_bits(), network.broadcast().to_bits());
    let slice = Ipv4Net::new_assert(overlay.network(), 24);
    let way = |kind, input: &str, output: &str, from, to| Way {
        kind,
        input: input.to_owned(),
        output: Some(output.to_owned()),
        overlay,
        packet: Packet {
            source: Some(ends(from)),
            input: Some(device(input)),
            output: Some(device(output)),
            state: Some(state::UNTRACKED),
            ..Packet::to(ends(to), 0, 0)
        },
    };
    vec![
        way(Kind::In, HELPER, bridge, overlay, slice),
        way(Kind::Out, bridge, HELPER, slice, overlay),
        way(Kind::Cut, HELPER, HELPER, slice, overlay),
    ]
}

fn overlays(hook: Hook, devices: Option<&[String]>) -> Vec<String> {
    let ways = [fan("250.0.0.0/8", "fan-a"), fan("251.0.0.0/8", "fan-b")].concat();
    let crossings = crossings(&ways);
    let (numbers, packets) = seen(&crossings, hook, devices);
    assert_eq!(numbers.len(), packets.all().len());
    let mut overlays: Vec<String> =
        numbers.iter().map(|&number| crossings[number].overlay.to_string()).collect();
    overlays.dedup();
    overlays
}

#[test]
fn packets_cross_from_each_fan_to_each() {
    let ways = [fan("250.0.0.0/8", "fan-a"), fan("251.0.0.0/8", "fan-b")].concat();
    let crossings = crossings(&ways);
    assert_eq!(crossings.len(), 16);
    for (input, output) in [("fan-a", "fan-b"), ("fan-a", HELPER), (HELPER, "fan-b"), (HELPER, HELPER)] {
        assert!(crossings.iter().any(|found| (&*found.input, &*found.output) == (input, output)));
    }
}

#[test]
fn a_chain_for_a_device_sees_what_comes_or_goes_by_it_alone() {
    let bridge = ["port".to_owned(), "fan-a".to_owned()];
    assert_eq!(overlays(Hook::Egress, Some(&bridge)), ["250.0.0.0/8"]);
    let (numbers, _) = seen(&crossings(&fan("250.0.0.0/8", "fan-a")), Hook::Ingress, Some(&bridge));
    assert_eq!(numbers.len(), 2, "to the tunnel, and back into the bridge");
    for hook in [Hook::Ingress, Hook::Egress] {
        assert_eq!(overlays(hook, Some(&["eth9".to_owned()])), [""; 0]);
    }
}

#[test]
fn devices_are_known_where_the_hook_knows_them() {
    let crossings = crossings(&fan("250.0.0.0/8", "fan-a"));
    let known = |hook| {
        let (_, packets) = seen(&crossings, hook, None);
        packets.all().first().map(|packet| (packet.input.is_some(), packet.output.is_some()))
    };
    assert_eq!(known(Hook::Prerouting), Some((true, false)));
    assert_eq!(known(Hook::Forward), Some((true, true)));
    assert_eq!(known(Hook::Postrouting), Some((false, true)));
    assert_eq!(known(Hook::ToPort), Some((false, false)));
    assert_eq!(known(Hook::Input), None);
}

#[test]
fn what_holds_follows_from_what_is_wanted_and_what_the_stack_sees() {
    assert_eq!(Holds::of(HostFilters::Honour, true), Holds::Yes);
    assert_eq!(Holds::of(HostFilters::Ignore, false), Holds::Ignored);
    assert_eq!(Holds::of(HostFilters::Honour, false), Holds::NotYet);
}
