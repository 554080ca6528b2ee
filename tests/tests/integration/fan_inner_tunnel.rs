//! Tunnels of containers' own over the fan: an overlay of theirs (flannel, k3s, swarm) inside ours.

use std::net::Ipv4Addr;

use fanlight_tests::{
    Container, Site, eventually,
    fleet::{Fleet, overlay},
    load::{Iperf, IperfServer, assert_reaches, ping},
    site::Offload,
    tools::{self, in_guest},
};

/// Address of the container on a host, in the tunnel.
fn inside(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, host + 1)
}

/// A tunnel device of a kind between the containers with octet 5, on this host and on the other one.
fn tunnel(container: &Container<'_>, kind: &str, host: usize) {
    let (own, other) = (overlay(host, 5), overlay(1 - host, 5));
    let words = if kind == "vxlan" { "id 7 dstport 8472 " } else { "" };
    container.ip(&format!("link add inner type {kind} {words}local {own} remote {other} dev eth0"));
    container.ip(&format!("address add {}/24 dev inner", inside(host as u8)));
    container.ip("link set inner up");
}

/// Segments and datagrams whose checksums the container's kernel found wrong.
fn bad_sums(site: &Site) -> u64 {
    let told = site.sh("cat /proc/net/snmp");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = told.lines().map(words).collect();
    let columns = lines.chunks_exact(2).flat_map(|pair| pair[0].iter().zip(&pair[1]));
    let numbers =
        columns.filter(|(name, _)| *name == "InCsumErrors").map(|(_, number)| number.parse::<u64>());
    numbers.map(|number| number.expect("a number")).sum()
}

#[track_caller]
fn assert_carries(fleet: &Fleet, one: &Container<'_>, other: &Container<'_>) {
    for size in ["56", "1400"] {
        assert_eq!(ping(one, inside(1), 5, &["-s", size]).lost(), 0, "{size} bytes");
    }
    // Emulation is slow.
    let (bytes, least, datagrams) = if in_guest() { ("4M", 1e6, "2M") } else { ("64M", 1e8, "20M") };
    let _servers = [IperfServer::start(one), IperfServer::start(other)];
    for tso in [true, false] {
        fleet[0].offload("eth0", Offload::Tso, tso);
        for (from, to) in [(one, inside(1)), (other, inside(0))] {
            let run = Iperf::run(from, to, &["-n", bytes]);
            assert!(run.bits_per_second() > least, "segmentation {tso}: {run:?}");
            let run = Iperf::run(from, to, &["-u", "-b", datagrams, "-t", "1"]);
            assert!(run.bits_per_second() > 1e6, "segmentation {tso}: {run:?}");
        }
    }
    for host in fleet.hosts() {
        let counted = host.counters();
        assert_eq!(counted.total("drop-helper-failed"), 0, "{counted:?}");
        assert!(counted.total("segmented") > 0, "{counted:?}");
    }
    assert_eq!((bad_sums(one), bad_sums(other)), (0, 0));
}

//@ guest: 6.1, 6.12
#[test]
fn a_vxlan_device_of_two_containers_carries_large_transfers() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 5), fleet.endpoint(1, 5));
    for (host, container) in [&one, &other].into_iter().enumerate() {
        tunnel(container, "vxlan", host);
    }
    assert_carries(&fleet, &one, &other);
}

//@ guest: 6.1
#[test]
fn so_it_does_where_the_bridges_program_serves_them() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.port(0, 5), fleet.port(1, 5));
    for (host, container) in [&one, &other].into_iter().enumerate() {
        tunnel(container, "vxlan", host);
    }
    assert_carries(&fleet, &one, &other);
}

//@ guest
#[test]
fn an_ipip_device_of_two_containers_carries_large_transfers() {
    if !tools::kernel_has_device("ipip") {
        return;
    }
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 5), fleet.endpoint(1, 5));
    for (host, container) in [&one, &other].into_iter().enumerate() {
        tunnel(container, "ipip", host);
    }
    assert_carries(&fleet, &one, &other);
}

#[test]
fn a_containers_tunnel_passes_filters_by_the_stack() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 5), fleet.endpoint(1, 5));
    for (host, container) in [&one, &other].into_iter().enumerate() {
        tunnel(container, "vxlan", host);
    }
    assert_reaches(&one, overlay(1, 5));
    for host in fleet.hosts() {
        let table =
            "table inet site { chain site { type filter hook forward priority 0; tcp dport 1 drop; }; }";
        host.command("nft").args(["-f", "-"]).input(table).ok();
        host.run("fan up 250.0.0.0/8 eth0");
        let fans = host.json("fan show");
        eventually("it is seen", std::time::Duration::from_secs(1), || {
            fans[0]["flags"].as_array()?.iter().any(|flag| flag == "filtered").then_some(())
        });
    }
    assert_carries(&fleet, &one, &other);
}
