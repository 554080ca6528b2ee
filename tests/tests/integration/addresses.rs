//! Addresses that come and go: the host's own in the underlay, and those of containers.

use std::{
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{
    Host, eventually,
    fleet::{Fleet, bridge, overlay, underlay},
    load::{Ping, assert_reaches},
};

const FAN: &str = "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"172.30.0.0/16\"\n";
/// An address of the underlay that no host has by itself.
const OTHER: &str = "172.30.0.99";
/// Longer than the agent waits for an address to come back, and than it rests between two looks.
const LONG: Duration = Duration::from_secs(9);
const SOON: Duration = Duration::from_secs(10);

/// `BRIDGE STATE` of every fan.
fn fans(host: &Host) -> Vec<String> {
    let shown = host.json("fan show");
    let row = |fan: &serde_json::Value| format!("{} {}", fan["bridge"], fan["state"]).replace('"', "");
    shown.as_array().expect("a list").iter().map(row).collect()
}

fn degraded(host: &Host) -> String {
    host.json("status")["degraded"].to_string()
}

/// Two hosts whose fans their files name; the agent of the first is to be started.
fn fleet() -> Fleet {
    let fleet = Fleet::bare(2);
    fleet[0].write("/etc/fanlight/fanlight.toml", FAN);
    fleet[1].run("fan up 250.0.0.0/8 eth0");
    fleet
}

#[test]
fn a_floating_address_beside_the_own_one_never_becomes_the_hosts() {
    let fleet = fleet();
    let host = &fleet[0];
    host.ip(&format!("address add {OTHER}/32 dev eth0"));
    let _agent = host.agent();
    let _other = fleet.endpoint(1, 2);
    host.ip(&format!("address delete {}/16 dev eth0", underlay(0)));
    thread::sleep(LONG);
    assert!(!host.has_device("fan-250-0-99"), "{:?}", fans(host));
    let reason = degraded(host);
    assert!(reason.contains("172.30.0.27") && reason.contains(OTHER), "{reason}");
    host.ip(&format!("address add {}/16 dev eth0", underlay(0)));
    eventually("the fan is whole again", SOON, || {
        (fans(host) == [format!("{} up", bridge(0))]).then_some(())
    });
    eventually("nothing is degraded", SOON, || (degraded(host) == "[]").then_some(()));
    assert_reaches(host, overlay(1, 2));
}

#[test]
fn an_address_that_was_there_before_does_not_take_over_from_one_that_is_away_for_a_moment() {
    let fleet = fleet();
    let host = &fleet[0];
    host.ip(&format!("address add {OTHER}/16 dev eth0"));
    let _agent = host.agent();
    let (one, _other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    // The first address goes, and the kernel makes the second one the primary instead of deleting it.
    host.sysctl("net.ipv4.conf.all.promote_secondaries", "1");
    for _ in 0..3 {
        host.ip(&format!("address delete {}/16 dev eth0", underlay(0)));
        thread::sleep(Duration::from_millis(300));
        host.ip(&format!("address add {}/16 dev eth0", underlay(0)));
        thread::sleep(Duration::from_millis(300));
    }
    thread::sleep(LONG);
    assert_eq!(fans(host), [format!("{} up", bridge(0))]);
    assert_eq!(degraded(host), "[]");
    assert_reaches(&one, overlay(1, 2));
}

#[test]
fn a_short_gap_of_the_own_address_changes_nothing() {
    let fleet = fleet();
    let host = &fleet[0];
    let _agent = host.agent();
    let (one, _other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    host.ip(&format!("address delete {}/16 dev eth0", underlay(0)));
    host.ip(&format!("address add {OTHER}/32 dev eth0"));
    thread::sleep(Duration::from_millis(300));
    host.ip(&format!("address add {}/16 dev eth0", underlay(0)));
    thread::sleep(Duration::from_millis(500));
    let ping = Ping::start(&one, overlay(1, 2), 50);
    thread::sleep(Duration::from_secs(2));
    let pinged = ping.stop();
    assert_eq!(pinged.lost(), 0, "{pinged:?}");
    assert_eq!(fans(host), [format!("{} up", bridge(0))]);
}

#[test]
fn a_new_address_makes_a_new_slice_after_a_grace_and_an_empty_bridge_goes() {
    let fleet = fleet();
    let host = &fleet[0];
    let _agent = host.agent();
    host.ip(&format!("address delete {}/16 dev eth0", underlay(0)));
    host.ip(&format!("address add {OTHER}/16 dev eth0"));
    let start = Instant::now();
    eventually("the new slice is up", LONG, || host.has_device("fan-250-0-99").then_some(()));
    assert!(start.elapsed() > Duration::from_secs(2), "{:?}", start.elapsed());
    eventually("the old bridge is gone", SOON, || (!host.has_device(&bridge(0))).then_some(()));
    eventually("nothing is left of it", SOON, || (fans(host) == ["fan-250-0-99 up"]).then_some(()));
    eventually("nothing is degraded", SOON, || (degraded(host) == "[]").then_some(()));
}

#[test]
fn without_an_agent_the_next_up_says_that_the_host_was_renumbered_and_so_does_status() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let port = fleet.port(0, 5);
    host.ip(&format!("address delete {}/16 dev eth0", underlay(0)));
    host.ip(&format!("address add {OTHER}/16 dev eth0"));
    let up = host.fanlight(["fan", "up", "250.0.0.0/8", "eth0"]).exits(0);
    let named = |text: &str| {
        text.contains("renumbered: ") && text.contains(&bridge(0)) && text.contains("172.30.0.27")
    };
    assert!(named(&up.stdout), "{up}");
    assert!(named(&degraded(host)), "{}", degraded(host));
    assert!(host.has_device("vc5"), "what is in the old bridge stays");
    host.ip("link delete vc5");
    drop(port);
    host.run("fan up 250.0.0.0/8 eth0");
    assert!(!host.has_device(&bridge(0)));
    assert_eq!(degraded(host), "[]");
}

#[test]
fn down_takes_a_stale_bridge_along() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let port = fleet.port(0, 5);
    host.ip(&format!("address delete {}/16 dev eth0", underlay(0)));
    host.ip(&format!("address add {OTHER}/16 dev eth0"));
    host.run("fan up 250.0.0.0/8 eth0");
    let refused = host.fanlight(["fan", "down", "250.0.0.0/8", "eth0"]).exits(1);
    assert!(refused.stderr.contains("vc5"), "{refused}");
    host.ip("link delete vc5");
    drop(port);
    host.run("fan down 250.0.0.0/8 eth0");
    assert!(!host.has_device(&bridge(0)) && !host.has_device("fan-250-0-99"));
    assert_eq!(fans(host), [""; 0]);
}

#[test]
fn an_up_beside_a_second_address_keeps_the_one_that_the_fan_has() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    // The kernel lists the address with the wider scope of its network first.
    host.ip(&format!("address delete {}/16 dev eth0", underlay(0)));
    host.ip(&format!("address add {OTHER}/16 dev eth0"));
    host.ip(&format!("address add {}/16 dev eth0", underlay(0)));
    host.run("fan up 250.0.0.0/8 eth0");
    assert_eq!(fans(host), [format!("{} up", bridge(0))]);
}

#[test]
fn another_mac_address_of_the_helper_device_is_put_right() {
    let fleet = Fleet::up(2);
    let (host, other) = (&fleet[0], fleet.endpoint(1, 2));
    let macs = || [host.mac("fanlight0"), host.mac("fanlight1")];
    let before = macs();
    host.ip("link set fanlight0 address 02:11:22:33:44:55");
    host.ip("link set fanlight1 address 02:11:22:33:44:56");
    host.run("fan up 250.0.0.0/8 eth0");
    assert_eq!(macs(), before);
    assert_reaches(host, overlay(1, 2));
    let _agent = host.agent();
    host.ip("link set fanlight0 address 02:11:22:33:44:55");
    eventually("the agent puts it right", SOON, || (macs() == before).then_some(()));
    assert_eq!(degraded(host), "[]");
    assert_reaches(host, overlay(1, 2));
    drop(other);
}

#[test]
fn an_address_that_a_quiet_container_uses_is_neither_given_out_nor_accepted() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let _quiet = [fleet.port(0, 2), fleet.port(0, 3)];
    let container = host.container("new");
    let refused = host.fanlight(["endpoint", "add", "--netns", "new", "--address", "250.0.27.2"]).exits(1);
    assert!(refused.stderr.contains("250.0.27.2") && refused.stderr.contains("answers"), "{refused}");
    host.run("endpoint add --netns new");
    assert!(container.ip("-4 -o address show eth0").contains("250.0.27.4/"));
}

#[test]
fn an_address_that_was_leased_by_dhcp_is_neither_given_out_nor_accepted() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    host.run("fan up 250.0.0.0/8 eth0 dhcp");
    let year = 4_000_000_000u64;
    let leases = format!(
        "{year} 02:00:00:00:00:02 250.0.27.2 laptop *\n1 02:00:00:00:00:03 250.0.27.3 gone *\n0 02:00:00:00:00:04 \
         250.0.27.4 * *\n"
    );
    host.write(&format!("/run/fanlight/dhcp/{}.leases", bridge(0)), &leases);
    let container = host.container("new");
    let refused = host.fanlight(["endpoint", "add", "--netns", "new", "--address", "250.0.27.2"]).exits(1);
    assert!(refused.stderr.contains("leased") && refused.stderr.contains("laptop"), "{refused}");
    host.run("endpoint add --netns new");
    assert!(container.ip("-4 -o address show eth0").contains("250.0.27.3/"), "the lease was over");
    let second = host.container("second");
    host.run("endpoint add --netns second");
    assert!(second.ip("-4 -o address show eth0").contains("250.0.27.5/"), "a lease without end");
    host.run("endpoint remove new");
    host.run("endpoint remove second");
    host.run("fan down 250.0.0.0/8 eth0");
}

#[test]
fn devices_that_tunnel_packets_may_come_in_by_are_named_until_the_configuration_says_which() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    fleet.switch.join(host, "eth1", "172.30.1.27/16");
    let fan = format!("250.0.0.0/8 {}/16", underlay(0));
    let up = host.run(&format!("fan up {fan}"));
    assert!(up.contains("uplinks: ") && up.contains(r#"uplink = ["eth0", "eth1"]"#), "{up}");
    host.run(&format!("fan down {fan}"));
    host.write("/etc/fanlight/fanlight.toml", "[node]\nuplink = [\"eth0\", \"eth1\"]\n");
    let up = host.run(&format!("fan up {fan}"));
    assert!(!up.contains("uplinks: "), "{up}");
    assert_eq!(host.json("status")["uplink"], "eth0,eth1");
}
