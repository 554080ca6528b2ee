use bytemuck::Zeroable;
use dataplane_common::abi::FanRecord;

use super::*;

fn request(netns: &str) -> Request {
    Request { netns: netns.to_owned(), ..Request::default() }
}

fn places() -> Vec<Place> {
    let place = |first: u8| Place {
        fan: FanRecord {
            overlay: u32::from(first) << 24,
            overlay_mask: 0xff00_0000,
            slice: (u32::from(first) << 24) + (28 << 8),
            slice_mask: 0xffff_ff00,
            ..FanRecord::zeroed()
        },
        host_reserve: 1,
    };
    vec![place(250), place(251)]
}

fn wired(routed: bool, addresses: &[&str]) -> Wired {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let record = Record::new("web".into(), "blue".into(), routed, addresses);
    Wired { index: 4, device: "fl".into(), master: Some(2), mtu: VETH_MTU, record }
}

#[test]
fn an_endpoint_is_named_after_its_namespace() {
    assert_eq!(name_of(&request("blue")).unwrap(), "blue");
    assert_eq!(name_of(&request("/run/netns/green")).unwrap(), "green");
    assert_eq!(name_of(&request("pid:17")).unwrap(), "pid-17");
    assert_eq!(name_of(&Request { name: Some("web".into()), ..request("blue") }).unwrap(), "web");
}

#[test]
fn names_that_a_table_or_an_alias_would_garble_are_refused() {
    for name in ["", "two words", "tab\t", "quo\"te", &"x".repeat(64)] {
        let error = name_of(&Request { name: Some(name.to_owned()), ..request("blue") }).unwrap_err();
        assert!(error.to_string().contains("--name"), "{error}");
    }
}

#[test]
fn the_same_endpoint_again_is_fine_however_it_is_described() {
    let wired = wired(false, &["250.0.28.2", "251.0.28.2"]);
    let overlays: Vec<Ipv4Net> = vec!["251.0.0.0/8".parse().unwrap(), "250.0.0.0/8".parse().unwrap()];
    let descriptions = [
        request("blue"),
        Request { fans: overlays, ..request("blue") },
        Request { addresses: wired.record.addresses.clone(), ..request("blue") },
    ];
    for description in descriptions {
        assert_eq!(same(&wired, &description, &places()).unwrap(), wired, "{description:?}");
    }
}

#[test]
fn other_options_are_refused_and_the_difference_is_named() {
    let wired = wired(true, &["250.0.28.2"]);
    let refused = |request: Request| same(&wired, &request, &places()).unwrap_err().to_string();
    let bridged = refused(request("blue"));
    assert!(bridged.contains("has a route, not a bridge port"), "{bridged}");
    let routed = Request { routed: true, ..request("blue") };
    let address = refused(Request { addresses: vec!["250.0.28.9".parse().unwrap()], ..routed.clone() });
    assert!(address.contains("has address 250.0.28.2, not address 250.0.28.9"), "{address}");
    let fan = refused(Request { fans: vec!["251.0.0.0/8".parse().unwrap()], ..routed });
    assert!(fan.contains("has fan 250.0.0.0/8, not fan 251.0.0.0/8"), "{fan}");
}
