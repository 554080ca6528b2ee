//! The agent puts back what is lost or changed under it.

use std::{net::Ipv4Addr, thread, time::Duration};

use fanlight_tests::{
    Host, Site, eventually,
    fleet::{Fleet, bridge, overlay, underlay},
    load::assert_reaches,
};

/// What DESIGN allows for a route or a ruleset, with some time for a busy machine.
const SECOND: Duration = Duration::from_millis(1500);

fn reaches(from: &Site, to: Ipv4Addr) -> Option<()> {
    let output = from.command("ping").args(["-c", "1", "-W", "1", &to.to_string()]).run();
    output.status.success().then_some(())
}

fn is_degraded(host: &Host) -> Option<()> {
    (host.json("status")["degraded"] != serde_json::json!([])).then_some(())
}

fn fan_route(site: &Site) -> String {
    site.ip("route show 250.0.0.0/8")
}

//@ guest: 6.1
#[test]
fn an_uplink_that_flaps_is_no_lasting_harm() {
    let fleet = Fleet::up(2);
    let _agents: Vec<_> = fleet.hosts().iter().map(Host::agent).collect();
    let (one, _other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    for _ in 0..3 {
        fleet[0].ip("link set eth0 down");
        thread::sleep(Duration::from_millis(100));
        fleet[0].ip("link set eth0 up");
    }
    eventually("the fan works again", Duration::from_secs(5), || reaches(&one, overlay(1, 2)));
}

//@ guest: 6.1, 6.12
#[test]
fn an_uplink_that_is_deleted_and_made_again_gets_its_program_back() {
    let fleet = Fleet::up(2);
    let _agents: Vec<_> = fleet.hosts().iter().map(Host::agent).collect();
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    fleet[0].ip("link delete eth0");
    eventually("the agent has noticed", Duration::from_secs(10), || is_degraded(&fleet[0]));
    fleet.switch.join(&fleet[0], "eth0", &format!("{}/16", underlay(0)));
    eventually("the fan works again", Duration::from_secs(10), || reaches(&one, overlay(1, 2)));
    assert_reaches(&other, overlay(0, 2));
    assert_eq!(fleet[0].fanlight(["status"]).run().code(), 0);
}

#[test]
fn without_an_agent_the_next_up_repairs_a_new_uplink() {
    let fleet = Fleet::up(2);
    let (one, _other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    fleet[0].ip("link delete eth0");
    fleet.switch.join(&fleet[0], "eth0", &format!("{}/16", underlay(0)));
    fleet[0].run("fan up 250.0.0.0/8 eth0");
    eventually("the fan works again", Duration::from_secs(3), || reaches(&one, overlay(1, 2)));
}

//@ guest: 6.1
#[test]
fn an_uplink_that_is_renamed_and_renamed_back_stays_served() {
    let fleet = Fleet::up(2);
    let _agent = fleet[0].agent();
    let (one, _other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    fleet[0].ip("link set eth0 down");
    fleet[0].ip("link set eth0 name away");
    eventually("the agent has noticed", Duration::from_secs(10), || is_degraded(&fleet[0]));
    fleet[0].ip("link set away name eth0");
    fleet[0].ip("link set eth0 up");
    eventually("the fan works again", Duration::from_secs(10), || reaches(&one, overlay(1, 2)));
}

#[test]
fn a_lost_route_is_put_back_within_a_second() {
    let fleet = Fleet::up(2);
    let _agent = fleet[0].agent();
    let expected = fan_route(&fleet[0]);
    assert!(expected.contains("fanlight0") && expected.contains("mtu 1480"), "{expected}");
    fleet[0].ip("route delete 250.0.0.0/8");
    eventually("the route is back", SECOND, || (fan_route(&fleet[0]) == expected).then_some(()));
    fleet[0].ip("route change 250.0.0.0/8 dev fanlight0 proto 186 mtu 900");
    eventually("the route is as before", SECOND, || (fan_route(&fleet[0]) == expected).then_some(()));
    fleet[0].ip(&format!("address delete {}/24 dev {}", overlay(0, 1), bridge(0)));
    eventually("address and route are back", SECOND, || {
        let address = fleet[0].ip(&format!("-4 -o address show dev {}", bridge(0)));
        (address.contains("250.0.27.1/24") && fan_route(&fleet[0]) == expected).then_some(())
    });
    assert_reaches(&fleet[0], overlay(1, 1));
}

#[test]
fn a_flushed_ruleset_is_put_back_within_a_second() {
    let fleet = Fleet::up(1);
    let _agent = fleet[0].agent();
    let rules = || fleet[0].sh("nft list ruleset");
    let expected = rules();
    assert!(expected.contains("table ip fanlight"), "{expected}");
    fleet[0].sh("nft flush ruleset");
    eventually("the table is back", SECOND, || (rules() == expected).then_some(()));
    fleet[0].sh("nft delete table ip fanlight");
    eventually("the table is back", SECOND, || (rules() == expected).then_some(()));
}

#[test]
fn a_changed_mtu_of_the_uplink_is_followed() {
    let fleet = Fleet::up(2);
    let _agents: Vec<_> = fleet.hosts().iter().map(Host::agent).collect();
    let (one, _other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    for (uplink, fan) in [(1400, "mtu 1380"), (1500, "mtu 1480")] {
        fleet[0].ip(&format!("link set eth0 mtu {uplink}"));
        eventually("bridge, route and endpoint follow", SECOND * 2, || {
            let bridge = fleet[0].ip(&format!("-o link show {}", bridge(0)));
            let inside = one.ip("-o link show eth0");
            let shown = fleet[0].json("fan show");
            let texts = [bridge, inside, fan_route(&fleet[0])];
            let follows = texts.iter().all(|text| text.contains(fan)) && shown[0]["mtu"] == uplink - 20;
            follows.then_some(())
        });
        assert_reaches(&one, overlay(1, 2));
    }
}

#[test]
fn a_deleted_bridge_is_made_again_and_its_endpoints_return() {
    let fleet = Fleet::up(2);
    let _agent = fleet[0].agent();
    let one = fleet.endpoint(0, 2);
    assert_reaches(&one, overlay(1, 1));
    fleet[0].ip(&format!("link delete {}", bridge(0)));
    eventually("the bridge is back", Duration::from_secs(3), || {
        fleet[0].has_device(&bridge(0)).then_some(())
    });
    eventually("the endpoint works again", Duration::from_secs(5), || reaches(&one, overlay(1, 1)));
}

#[test]
fn without_an_agent_the_next_up_brings_a_deleted_bridge_and_its_endpoints_back() {
    let fleet = Fleet::up(2);
    let (one, remote) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    fleet[0].ip(&format!("link delete {}", bridge(0)));
    fleet[0].run("fan up 250.0.0.0/8 eth0");
    eventually("the endpoint works again", Duration::from_secs(3), || reaches(&one, overlay(1, 2)));
    let before = fleet[0].counters();
    assert_reaches(&remote, overlay(0, 2));
    let counted = fleet[0].counters().since(&before);
    assert!(counted.of("uplink-ingress", "decapsulated") > 0, "{counted}");
    assert!(counted.of("endpoint-ingress", "encapsulated") > 0, "{counted}");
    let again = fleet[0].json("fan up 250.0.0.0/8 eth0");
    assert_eq!(again[0]["changed"], serde_json::json!([]), "{again}");
}

#[test]
fn an_endpoint_command_after_its_bridge_was_deleted_leaves_the_program_on_it() {
    let fleet = Fleet::up(2);
    let one = fleet.endpoint(0, 2);
    fleet[0].ip(&format!("link delete {}", bridge(0)));
    fleet[0].fanlight(["endpoint", "remove", "nobody"]).exits(1);
    fleet[0].run("fan up 250.0.0.0/8 eth0");
    eventually("the endpoint works again", Duration::from_secs(3), || reaches(&one, overlay(1, 1)));
    let before = fleet[0].counters();
    assert_reaches(&one, overlay(1, 1));
    let counted = fleet[0].counters().since(&before);
    assert!(counted.of("endpoint-ingress", "encapsulated") > 0, "{counted}");
}

#[test]
fn a_deleted_helper_device_is_made_again() {
    let fleet = Fleet::up(2);
    let _agent = fleet[0].agent();
    assert_reaches(&fleet[0], overlay(1, 1));
    fleet[0].ip("link delete fanlight0");
    eventually("the host reaches the overlay again", Duration::from_secs(5), || {
        reaches(&fleet[0], overlay(1, 1))
    });
}

#[test]
fn a_changed_underlay_address_is_reported_and_nothing_is_moved() {
    let fleet = Fleet::bare(1);
    fleet[0].write(
        "/etc/fanlight/fanlight.toml",
        "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"172.30.0.0/16\"\n",
    );
    let _agent = fleet[0].agent();
    let one = fleet.endpoint(0, 2);
    fleet[0].ip(&format!("address delete {}/16 dev eth0", underlay(0)));
    fleet[0].ip("address add 172.30.0.99/16 dev eth0");
    eventually("the new slice is up beside the old one", Duration::from_secs(15), || {
        (fleet[0].has_device("fan-250-0-99") && fleet[0].has_device(&bridge(0))).then_some(())
    });
    assert!(one.ip("-4 -o address show eth0").contains("250.0.27.2/24"));
    eventually("status says so", Duration::from_secs(5), || {
        let status = fleet[0].json("status");
        status["degraded"].to_string().contains("renumbered").then_some(())
    });
}
