//! Path MTU: no black hole, ever.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use fanlight_tests::{
    Host, Site, Switch, eventually,
    fleet::{Fleet, bridge, overlay},
    load::{Echo, Iperf, IperfServer, assert_reaches, ping},
    narrow::Narrow,
    packet::Ipv4,
    site::Offload,
};

/// Don't-fragment pings of a given size of the whole packet; what ping(8) printed.
fn ping_df(from: &Site, to: Ipv4Addr, count: u32, size: u32) -> String {
    let (count, payload) = (count.to_string(), (size - 28).to_string());
    let words = ["-M", "do", "-i", "0.2", "-W", "1", "-c", &count, "-s", &payload, &to.to_string()];
    let output = from.command("ping").args(words).run();
    output.stdout + &output.stderr
}

/// Sends bytes to an echo server and reads them back.
fn transfer(from: &Site, to: Ipv4Addr, port: u16, bytes: usize) {
    let copied = from.inside(|| {
        let mut stream = TcpStream::connect((to, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        stream.set_write_timeout(Some(Duration::from_secs(15)))?;
        let mut reader = stream.try_clone()?;
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || reader.read_exact(&mut vec![0; bytes]));
            stream.write_all(&vec![7; bytes])?;
            reading.join().expect("reading does not panic")
        })
    });
    copied.unwrap_or_else(|error| panic!("{bytes} bytes from {} to {to} and back: {error}", from.name()));
}

/// TCP segments and datagrams with a wrong checksum that a site's kernel has seen.
fn checksum_errors(site: &Site) -> u64 {
    let text =
        site.inside(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).expect("the kernel's counters");
    let mut errors = 0;
    for (names, values) in text.lines().step_by(2).zip(text.lines().skip(1).step_by(2)) {
        let mut fields = names.split(' ').zip(values.split(' '));
        let field = fields.find(|(name, _)| *name == "InCsumErrors");
        errors += field.map_or(0, |(_, value)| value.parse().unwrap_or(0));
    }
    errors
}

//@ guest: 6.1
#[test]
fn a_full_sized_packet_that_must_not_be_fragmented_is_answered_by_the_gateway() {
    let fleet = Fleet::up(2);
    let (one, _other) = (fleet.port(0, 2), fleet.port(1, 2));
    assert_reaches(&one, overlay(1, 2));
    assert!(ping_df(&one, overlay(1, 2), 1, 1480).contains("1 received"));
    let before = fleet[0].counters();
    let wire = one.raw("eth0");
    let printed = ping_df(&one, overlay(1, 2), 1, 1500);
    assert!(printed.contains("mtu = 1480"), "{printed}");
    let answer = wire.receive(Duration::from_secs(1), |frame| {
        Ipv4::of_frame(frame).filter(|packet| packet.icmp() == Some((3, 4)))
    });
    let answer = answer.expect("an ICMP message with a right checksum");
    assert_eq!((answer.src, answer.dst), (overlay(0, 1), overlay(0, 2)));
    assert_eq!(answer.payload[6..8], 1480u16.to_be_bytes());
    let counted = fleet[0].counters().since(&before);
    assert_eq!(counted.total("answered-too-big"), 1, "{counted}");
}

//@ guest: 6.1
#[test]
fn a_packet_that_may_be_fragmented_is() {
    let fleet = Fleet::up(2);
    let (one, _other) = (fleet.port(0, 2), fleet.port(1, 2));
    assert_reaches(&one, overlay(1, 2));
    for size in ["1472", "1500", "4000", "20000"] {
        assert_eq!(ping(&one, overlay(1, 2), 3, &["-M", "dont", "-s", size]).lost(), 0, "{size} bytes");
    }
    assert_eq!(ping(&fleet[0], overlay(1, 2), 3, &["-M", "dont", "-s", "4000"]).lost(), 0);
    assert_eq!(ping(&one, overlay(0, 1), 3, &["-M", "dont", "-s", "4000"]).lost(), 0);
}

//@ guest: 6.1
#[test]
fn fragments_of_which_some_must_be_cut_again_arrive_together() {
    let fleet = Fleet::up(2);
    let _agents: Vec<_> = fleet.hosts().iter().map(Host::agent).collect();
    let (one, _other) = (fleet.port(0, 2), fleet.port(1, 2));
    eventually("the port has its hook", Duration::from_secs(5), || {
        assert_reaches(&one, overlay(1, 2));
        (fleet[0].counters().of("endpoint-ingress", "encapsulated") > 0).then_some(())
    });
    for size in ["1480", "4000", "20000"] {
        assert_eq!(ping(&one, overlay(1, 2), 5, &["-M", "dont", "-s", size]).lost(), 0, "{size} bytes");
    }
}

//@ guest
#[test]
fn tcp_from_a_container_with_too_large_an_mtu_finds_its_way() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.port(0, 2), fleet.port(1, 2));
    let echo = Echo::start(&other, overlay(1, 2));
    transfer(&one, overlay(1, 2), echo.port(), 4 << 20);
}

//@ guest
#[test]
fn a_container_that_raises_its_own_mtu_is_told_the_right_one() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet[0].container("one"), fleet[1].container("other"));
    for way in ["", " --routed"] {
        fleet[0].run(&format!("endpoint add --netns one --address {}{way}", overlay(0, 2)));
        fleet[1].run(&format!("endpoint add --netns other --address {}{way}", overlay(1, 2)));
        for container in [&one, &other] {
            assert!(container.ip("-o link show eth0").contains("mtu 1480"));
            container.ip("link set eth0 mtu 9000");
        }
        assert_reaches(&one, overlay(1, 2));
        let before = fleet[0].counters();
        let printed = ping_df(&one, overlay(1, 2), 1, 3000);
        assert!(printed.contains("mtu = 1480"), "{way}: {printed}");
        let counted = fleet[0].counters().since(&before);
        assert_eq!(counted.of("endpoint-ingress", "answered-too-big"), 1, "{way}: {counted}");
        assert_eq!(ping(&one, overlay(1, 2), 3, &["-M", "dont", "-s", "4000"]).lost(), 0, "{way}");
        one.ip("route flush cache");
        let echo = Echo::start(&other, overlay(1, 2));
        transfer(&one, overlay(1, 2), echo.port(), 2 << 20);
        fleet[0].run("endpoint remove one");
        fleet[1].run("endpoint remove other");
    }
}

//@ guest
#[test]
fn the_host_and_its_bridge_keep_the_fans_mtu_beside_larger_ports() {
    let fleet = Fleet::up(1);
    let (bridged, routed) = (fleet.endpoint(0, 2), fleet[0].container("routed"));
    fleet[0].run(&format!("endpoint add --netns routed --address {} --routed", overlay(0, 3)));
    let bridge = fleet[0].ip(&format!("-o link show {}", bridge(0)));
    assert!(bridge.contains("mtu 1480"), "{bridge}");
    let route = fleet[0].ip(&format!("route show {}", overlay(0, 3)));
    assert!(route.contains("mtu 1480"), "{route}");
    for (container, octet) in [(&bridged, 2), (&routed, 3)] {
        let echo = Echo::start(container, overlay(0, octet));
        transfer(&fleet[0], overlay(0, octet), echo.port(), 1 << 20);
        assert_eq!(ping(&fleet[0], overlay(0, octet), 3, &["-M", "dont", "-s", "4000"]).lost(), 0);
    }
}

//@ guest
#[test]
fn an_adopted_bridge_keeps_its_mtu_beside_larger_ports() {
    let fleet = Fleet::on(Switch::with_mtu("wire", 9000), 1);
    fleet[0].ip("link add br-mine up type bridge");
    fleet[0].run("fan up 250.0.0.0/8 eth0 bridge br-mine");
    let _container = fleet.endpoint(0, 2);
    let link = fleet[0].ip("-o link show br-mine");
    assert!(link.contains("mtu 1500"), "{link}");
    assert_eq!(ping(&fleet[0], overlay(0, 2), 3, &["-M", "dont", "-s", "9000"]).lost(), 0);
}

/// What an older version left: both ends with the fan's MTU, and no word of it in the record.
fn age(host: &Host, netns: &str) {
    let row = host.json("endpoint list")[0].clone();
    let device = row["device"].as_str().expect("a name");
    let record = serde_json::json!({
        "fanlight": "endpoint", "name": netns, "netns": netns, "routed": false, "addresses": [row["address"]],
    });
    host.command("ip").args(["link", "set", device, "mtu", "1480", "alias", &record.to_string()]).ok();
}

//@ guest
#[test]
fn the_hosts_end_of_an_older_versions_endpoint_is_raised_by_the_next_command_or_the_agent() {
    let fleet = Fleet::up(2);
    let container = fleet.endpoint(0, 2);
    container.ip("link set eth0 mtu 9000");
    age(&fleet[0], "c2");
    assert!(!ping_df(&container, overlay(1, 1), 1, 3000).contains("mtu = 1480"));
    fleet[0].run(&format!("endpoint add --netns c2 --address {}", overlay(0, 2)));
    assert!(ping_df(&container, overlay(1, 1), 1, 3000).contains("mtu = 1480"));
    age(&fleet[0], "c2");
    container.ip("route flush cache");
    let _agent = fleet[0].agent();
    assert!(ping_df(&container, overlay(1, 1), 1, 3000).contains("mtu = 1480"));
    assert!(container.ip("-o link show eth0").contains("mtu 9000"));
}

//@ guest: 6.1, 6.12
#[test]
fn tcp_is_intact_with_any_offload_switched_off() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    let echo = Echo::start(&other, overlay(1, 2));
    let _server = IperfServer::start(&other);
    let everywhere: [(&Site, &str); 4] =
        [(&one, "eth0"), (&other, "eth0"), (&fleet[0], "eth0"), (&fleet[1], "eth0")];
    for offload in [Offload::TxChecksum, Offload::Tso, Offload::Gso, Offload::Gro] {
        for (site, device) in everywhere {
            site.offload(device, offload, false);
        }
        transfer(&one, overlay(1, 2), echo.port(), 2 << 20);
        let run = Iperf::run(&one, overlay(1, 2), &["-n", "16M"]);
        assert!(run.bits_per_second() > 1e7, "without {offload:?}: {run:?}");
        for (site, _) in everywhere {
            assert_eq!(checksum_errors(site), 0, "without {offload:?} at {}", site.name());
        }
    }
}

//@ guest: 6.1, 6.12
#[test]
fn a_smaller_link_on_the_way_is_learnt_and_told_to_the_sender() {
    let narrow = Narrow::new();
    let (a, _b) = narrow.containers();
    assert_reaches(&a, Narrow::B);
    assert!(ping_df(&a, Narrow::B, 1, 1380).contains("1 received"));
    let before = narrow.hosts[0].counters();
    let printed = ping_df(&a, Narrow::B, 3, 1480);
    assert!(printed.contains("mtu = 1380"), "{printed}");
    let counted = narrow.hosts[0].counters().since(&before);
    assert_eq!(counted.of("uplink-ingress", "pass-path-mtu-learnt"), 1, "{counted}");
    assert!(counted.of("endpoint-ingress", "answered-too-big") >= 1, "{counted}");
}

//@ guest
#[test]
fn tcp_crosses_a_smaller_link() {
    let narrow = Narrow::new();
    let (a, b) = narrow.containers();
    let echo = Echo::start(&b, Narrow::B);
    transfer(&a, Narrow::B, echo.port(), 2 << 20);
    transfer(&narrow.hosts[0], Narrow::B, echo.port(), 1 << 20);
}

//@ guest: 6.1
#[test]
fn with_an_agent_larger_packets_are_fragmented_to_fit_a_smaller_link() {
    let narrow = Narrow::new();
    let _agents: Vec<_> = narrow.hosts.iter().map(Host::agent).collect();
    let (a, _b) = narrow.containers();
    assert_reaches(&a, Narrow::B);
    // The packets that reveal the smaller path may be lost, in either direction.
    eventually("both hosts know the path", Duration::from_secs(5), || {
        (ping(&a, Narrow::B, 1, &["-M", "dont", "-s", "1440"]).lost() == 0).then_some(())
    });
    for size in ["1440", "3000"] {
        let pinged = ping(&a, Narrow::B, 5, &["-M", "dont", "-s", size]);
        assert_eq!(pinged.lost(), 0, "{size} bytes");
    }
    let from_host = ping(&narrow.hosts[0], Narrow::B, 5, &["-M", "dont", "-s", "3000"]);
    assert_eq!(from_host.lost(), 0);
}

//@ guest: 6.1, 6.12
#[test]
fn without_an_agent_larger_packets_are_fragmented_too() {
    let narrow = Narrow::new();
    let (a, _b) = narrow.containers();
    assert_reaches(&a, Narrow::B);
    // The packets that reveal the smaller path may be lost, in either direction.
    eventually("both hosts know the path", Duration::from_secs(5), || {
        (ping(&a, Narrow::B, 1, &["-M", "dont", "-s", "1440"]).lost() == 0).then_some(())
    });
    for size in ["1440", "3000", "20000"] {
        let pinged = ping(&a, Narrow::B, 5, &["-M", "dont", "-s", size]);
        assert_eq!(pinged.lost(), 0, "{size} bytes");
    }
    let from_host = ping(&narrow.hosts[0], Narrow::B, 5, &["-M", "dont", "-s", "3000"]);
    assert_eq!(from_host.lost(), 0, "from the host");
    let counted = narrow.hosts[0].counters();
    assert_eq!(counted.total("drop-too-big"), 0, "{counted}");
}
