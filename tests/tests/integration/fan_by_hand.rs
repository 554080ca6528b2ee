//! What a host without an agent does for containers that nobody told it of, and for itself.

use std::{net::Ipv4Addr, time::Duration};

use fanlight_tests::{
    Container, Host, Site,
    capture::Capture,
    fleet::{Fleet, bridge, overlay, underlay},
    load::{Iperf, IperfServer, assert_reaches, ping},
    network::wire,
    site::Offload,
};

/// Bytes and packets that a device has received.
fn received(site: &Site, device: &str) -> (u64, u64) {
    let text = site.ip(&format!("-j -s link show dev {device}"));
    let links: serde_json::Value = serde_json::from_str(&text).expect("what ip prints is JSON");
    let number = |key: &str| links[0]["stats64"]["rx"][key].as_u64().expect("a counter");
    (number("bytes"), number("packets"))
}

/// The mean size of the packets in which 64 MB arrive at a container's device.
fn mean_size(one: &Container<'_>, other: &Container<'_>, to: Ipv4Addr) -> u64 {
    let _server = IperfServer::start(other);
    let before = received(other, "eth0");
    Iperf::run(one, to, &["-n", "64M"]);
    let after = received(other, "eth0");
    (after.0 - before.0) / (after.1 - before.1)
}

//@ guest: 6.1, 6.12
#[test]
fn super_packets_reach_containers_on_a_bridge_whole() {
    let hosts = [27, 28].map(|octet| Host::new(&format!("host-{octet}")));
    wire(1500, (&hosts[0], "eth0", "172.30.0.27/16"), (&hosts[1], "eth0", "172.30.0.28/16"));
    for host in &hosts {
        host.run("fan up 250.0.0.0/8 eth0");
    }
    let ends = [0, 1].map(|index| {
        let container = hosts[index].container("c2");
        let (address, gateway) = (overlay(index, 2), overlay(index, 1));
        container.join_bridge(&bridge(index), &format!("{address}/24"), &gateway.to_string());
        container
    });
    assert_reaches(&ends[0], overlay(1, 2));
    for tso in [true, false] {
        for host in &hosts {
            host.offload("eth0", Offload::Tso, tso);
            host.offload("eth0", Offload::Gro, true);
        }
        let mean = mean_size(&ends[0], &ends[1], overlay(1, 2));
        assert!(mean > 5_000, "{mean} bytes, segmentation left to the wire: {tso}");
    }
    let counted = hosts[1].counters();
    assert!(counted.of("uplink-ingress", "decapsulated-to-host") > 0, "{counted}");
}

//@ guest
#[test]
fn the_way_into_the_bridge_gets_no_packets_of_its_ports_and_answers_for_nobody() {
    let fleet = Fleet::up(1);
    let container = fleet.port(0, 2);
    let capture = Capture::start(&container, "eth0", "arp");
    assert_reaches(&container, overlay(0, 1));
    // A broadcast, and a question for an address that only the host has.
    ping(&container, overlay(0, 200), 1, &[]);
    let ports = fleet[0].ip(&format!("-o link show master {}", bridge(0)));
    let inlet = ports.lines().filter_map(|line| line.split(": ").nth(1)?.split_once('@'));
    let inlet = inlet.map(|(name, _)| name).find(|name| name.starts_with("fani0-"));
    let inlet = inlet.unwrap_or_else(|| panic!("no inlet: {ports}"));
    assert_eq!(received(&fleet[0], inlet).1, 0);
    let answers = capture.decode();
    assert_eq!(answers.matches("Reply 250.0.27.1 is-at").count(), 1, "{answers}");
    let listed = fleet[0].json("endpoint list").to_string();
    assert!(!listed.contains(inlet), "{listed}");
}

//@ guest
#[test]
fn a_second_up_changes_nothing() {
    let fleet = Fleet::up(1);
    let _container = fleet.port(0, 2);
    let host: &Host = &fleet[0];
    let monitor = host.command("ip").args(["monitor", "link", "address", "route", "rule", "neigh"]);
    let monitor = monitor.spawn_heard();
    std::thread::sleep(Duration::from_millis(300));
    host.run("fan up 250.0.0.0/8 eth0");
    std::thread::sleep(Duration::from_millis(300));
    monitor.signal(nix::sys::signal::Signal::SIGINT);
    let told = monitor.finish(Duration::from_secs(10)).stdout;
    // Devices learn of each other, and check their IPv6 addresses, in their own time.
    let by_kernel = ["lladdr", "fe80:", "valid_lft"];
    let is_ours = |line: &&str| !by_kernel.iter().any(|word| line.contains(word));
    let told: Vec<_> = told.lines().filter(is_ours).collect();
    assert!(told.is_empty(), "{told:#?}");
    host.ip("rule delete priority 250");
    host.ip("address delete 250.0.27.1/8 dev fanlight0");
    host.run("fan up 250.0.0.0/8 eth0");
    assert!(host.ip("rule").contains("from all iif fanlight0 lookup 250"));
    assert!(host.ip("address show dev fanlight0").contains("250.0.27.1/8"));
}

//@ guest
#[test]
fn a_host_answers_containers_that_call_its_underlay_address_under_their_own() {
    let fleet = Fleet::bare(2);
    for host in fleet.hosts() {
        host.run("fan up 250.0.0.0/8 eth0 egress route");
    }
    let by_hand = fleet.port(0, 2);
    let wired = fleet.endpoint(0, 3);
    for container in [&by_hand, &wired] {
        assert_reaches(container, overlay(1, 1));
        assert_eq!(ping(container, underlay(1), 3, &[]).lost(), 0);
    }
    let counted = fleet[1].counters();
    assert_eq!(counted.total("drop-foreign-source"), 0, "{counted}");
}

//@ guest
#[test]
fn clients_behind_a_host_that_masquerades_reach_the_overlay() {
    let fleet = Fleet::up(2);
    let (server, client) = (fleet.port(1, 2), Site::bare("client"));
    wire(1400, (&fleet[0], "vpn", "10.8.0.1/24"), (&client, "eth0", "10.8.0.2/24"));
    client.ip("route add default via 10.8.0.1");
    assert_reaches(&fleet[0], overlay(1, 2));
    fleet[0].sh("nft add table ip vpn");
    fleet[0].sh("nft add chain ip vpn post { type nat hook postrouting priority 100 ; }");
    fleet[0].sh("nft add rule ip vpn post ip saddr 10.8.0.0/24 masquerade");
    let capture = Capture::start(&server, "eth0", "icmp");
    assert_eq!(ping(&client, overlay(1, 2), 3, &[]).lost(), 0);
    let seen = capture.decode();
    assert!(seen.contains("250.0.27.1 > 250.0.28.2"), "{seen}");
}

//@ guest
#[test]
fn an_uplink_without_ethernet_headers_is_refused_with_what_to_do() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    if !host.command("ip").args(["tuntap", "add", "dev", "tun0", "mode", "tun"]).run().status.success() {
        fanlight_tests::tools::ignore("this kernel has no tun devices");
        return;
    }
    host.ip("address add 10.50.0.28/16 dev tun0");
    host.ip("link set tun0 up");
    let refused = host.fanlight(["fan", "up", "250.0.0.0/8", "tun0/16"]).run();
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    let said = "tun0 has no Ethernet headers";
    assert!(refused.stderr.contains(said) && refused.stderr.contains("tap or vxlan"), "{refused}");
    assert!(!host.has_device("fanlight0"));
    host.write(
        "/etc/fanlight/fanlight.toml",
        "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"10.50.0.0/16\"\n",
    );
    let _agent = host.agent();
    let status = host.json("status");
    assert!(status["degraded"].to_string().contains(said), "{status}");
}
