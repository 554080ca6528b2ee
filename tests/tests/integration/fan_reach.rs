//! Who reaches whom, with the tools that people use.

use std::time::Duration;

use fanlight_tests::{
    Host, Router, Site, Switch, counters, eventually,
    fleet::{self, Fleet, overlay, underlay},
    load::{self, Echo, Iperf, IperfServer, assert_reaches, ping},
    tools,
};

//@ guest: 6.1, 6.12
#[test]
fn containers_on_different_hosts_ping_each_other() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    let before = (fleet[0].counters(), fleet[1].counters());
    assert_reaches(&one, overlay(1, 2));
    assert_reaches(&other, overlay(0, 2));
    let sent = fleet[0].counters().since(&before.0);
    let received = fleet[1].counters().since(&before.1);
    assert!(sent.of("endpoint-ingress", "encapsulated") >= 2, "{sent}");
    assert!(received.of("uplink-ingress", "decapsulated") >= 2, "{received}");
    counters::assert_counted(&before.0, &fleet[0].counters(), &[]);
}

//@ guest
#[test]
fn containers_of_three_hosts_with_agents_all_reach_each_other() {
    let fleet = Fleet::bare(3);
    for host in fleet.hosts() {
        host.write(
            "/etc/fanlight/fanlight.toml",
            "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"172.30.0.0/16\"\n",
        );
    }
    let _agents: Vec<_> = fleet.hosts().iter().map(Host::agent).collect();
    let containers: Vec<_> = (0..3).map(|host| fleet.endpoint(host, 2)).collect();
    for container in &containers {
        for host in 0..3 {
            assert_reaches(container, overlay(host, 2));
            assert_reaches(container, overlay(host, 1));
        }
    }
}

//@ guest: 6.1
#[test]
fn hosts_and_containers_reach_each_other_in_both_directions() {
    let fleet = Fleet::up(2);
    let (one, _other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&fleet[0], overlay(0, 2));
    assert_reaches(&fleet[0], overlay(1, 2));
    assert_reaches(&fleet[0], overlay(1, 1));
    assert_reaches(&one, overlay(0, 1));
    assert_reaches(&one, overlay(1, 1));
}

//@ guest: 6.1, 6.12
#[test]
fn the_first_packet_to_a_host_whose_link_layer_address_is_not_known_is_not_lost() {
    let fleet = Fleet::up(2);
    let (container, _other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    for site in [&*container, &*fleet[0]] {
        assert_reaches(site, overlay(1, 2));
        fleet[0].ip("neighbour flush dev eth0");
        assert_eq!(ping(site, overlay(1, 2), 1, &["-W", "3"]).lost(), 0, "{}", site.name());
    }
}

//@ guest: 6.1
#[test]
fn containers_of_one_host_reach_each_other_bridged_and_routed() {
    let fleet = Fleet::up(1);
    let bridged = fleet.endpoint(0, 2);
    let (routed, second) = (fleet[0].container("c3"), fleet[0].container("c4"));
    for (container, octet) in [(&routed, 3), (&second, 4)] {
        let (netns, address) = (container.netns(), overlay(0, octet));
        fleet[0].run(&format!("endpoint add --netns {netns} --address {address} --routed"));
    }
    let before = fleet[0].counters();
    assert_reaches(&routed, overlay(0, 4));
    let local = fleet[0].counters().since(&before);
    assert!(local.of("endpoint-ingress", "delivered-locally") >= 2, "{local}");
    assert_reaches(&bridged, overlay(0, 3));
    assert_reaches(&second, overlay(0, 2));
    assert_reaches(&fleet[0], overlay(0, 3));
}

//@ guest: 6.1, 6.12
#[test]
fn tcp_streams_cross_the_fan_with_segmentation_left_to_the_device() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    let _server = IperfServer::start(&other);
    let before = fleet[0].counters();
    let run = Iperf::run(&one, overlay(1, 2), &["-n", "64M"]);
    assert!(run.bits_per_second() > 1e8, "{run:?}");
    let packets = fleet[0].counters().since(&before).of("endpoint-ingress", "encapsulated");
    let segments = (64 << 20) / 1428;
    assert!(packets < segments / 4, "{packets} packets for {segments} segments");
    let back = Iperf::run(&one, overlay(1, 2), &["-t", "1", "-R"]);
    assert!(back.bits_per_second() > 1e8, "{back:?}");
    let datagrams = Iperf::run(&one, overlay(1, 2), &["-t", "1", "-u", "-b", "20M", "-l", "1200"]);
    assert!(datagrams.bits_per_second() > 1e7, "{datagrams:?}");
}

//@ guest
#[test]
fn a_web_page_is_fetched_and_netcat_talks_across_the_fan() {
    if !tools::available(&["curl", "nginx", "nc"]) {
        return;
    }
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    let page = "fanlight ".repeat(100_000);
    fleet[1].write("/run/www/index.html", &page);
    let nginx = "daemon off; master_process off; pid /run/nginx.pid; error_log stderr; events {} \
                 http { access_log off; server { listen 80; root /run/www; } }";
    fleet[1].write("/run/nginx.conf", nginx);
    let _server = other.command("nginx").args(["-c", "/run/nginx.conf", "-e", "stderr"]).spawn();
    load::wait_until_listening(&other, 80);
    let got = one.sh(&format!("curl --silent --fail --max-time 10 http://{}/", overlay(1, 2)));
    assert_eq!(got, page.trim_end());
    let from_host = fleet[0].sh(&format!("curl --silent --fail --max-time 10 http://{}/", overlay(1, 2)));
    assert_eq!(from_host.len(), got.len());

    let listener = other.command("nc").args(["-l", "-p", "9000", "-N"]).spawn();
    load::wait_until_listening(&other, 9000);
    one.command("nc").args(["-N", "-w", "5", &overlay(1, 2).to_string(), "9000"]).input("hello\n").ok();
    assert_eq!(listener.finish(Duration::from_secs(10)).stdout, "hello\n");
}

//@ guest: 6.1
#[test]
fn two_fans_share_an_uplink_and_a_container_has_an_address_in_each() {
    let fleet = Fleet::up(2);
    for host in fleet.hosts() {
        host.run("fan up 240.0.0.0/8 eth0");
    }
    let both: Vec<_> = (0..2).map(|host| fleet[host].container("c")).collect();
    for (index, container) in both.iter().enumerate() {
        let second = format!("240.0.{}.9", 27 + index);
        fleet[index].run(&format!(
            "endpoint add --netns {} --address {} --address {second}",
            container.netns(),
            overlay(index, 9)
        ));
    }
    assert_reaches(&both[0], overlay(1, 9));
    let second = "240.0.28.9".parse().expect("an address");
    assert_eq!(ping(&both[0], second, 3, &["-I", "240.0.27.9"]).lost(), 0);
    assert_reaches(&fleet[0], second);
    let shown = fleet[0].json("fan show");
    assert_eq!(shown.as_array().map(Vec::len), Some(2), "{shown}");
}

//@ guest
#[test]
fn other_widths_of_overlay_and_underlay_work_alike() {
    let switch = Switch::new("wire");
    let (one, other) = (Host::new("one"), Host::new("other"));
    switch.join(&one, "eth0", "10.224.220.10/24");
    switch.join(&other, "eth0", "10.224.220.11/24");
    let hosts = [(&one, "100.66.130.7"), (&other, "100.66.200.5")];
    let containers = hosts.map(|(host, address)| {
        host.run("fan up 100.64.0.0/10 10.224.220.0/24");
        let container = host.container("c");
        host.run(&format!("endpoint add --netns {} --address {address}", container.netns()));
        container
    });
    assert_reaches(&containers[0], "100.66.200.5".parse().expect("an address"));
    assert_reaches(&containers[1], "100.66.128.1".parse().expect("an address"));
}

//@ guest: 6.1
#[test]
fn an_address_that_nobody_has_is_answered_by_the_gateway_that_owns_it() {
    let fleet = Fleet::up(2);
    let one = fleet.endpoint(0, 2);
    let _other = fleet.endpoint(1, 2);
    let command = one.command("ping").args(["-c", "1", "-W", "5", &overlay(1, 99).to_string()]);
    let answer = command.limit(Duration::from_secs(15)).exits(1);
    let expected = format!("From {} icmp_seq=1 Destination Host Unreachable", overlay(1, 1));
    assert!(answer.stdout.contains(&expected), "{answer}");
}

//@ guest
#[test]
fn an_address_that_no_host_can_own_is_answered_by_the_own_gateway() {
    let fleet = Fleet::up(1);
    let one = fleet.endpoint(0, 2);
    let before = fleet[0].counters();
    let answer = one.sh_fails(&format!("ping -c 1 -W 2 {}", "250.255.255.9"));
    let expected = format!("From {} icmp_seq=1 Destination Host Unreachable", overlay(0, 1));
    assert!(answer.stdout.contains(&expected), "{answer}");
    let counted = fleet[0].counters().since(&before);
    assert_eq!(counted.total("answered-unreachable"), 1, "{counted}");
}

/// A fan on a host whose default route leads through a router to a client outside; the address that the client
/// sees a container's connection come from.
fn seen_outside(egress: &str) -> Option<String> {
    let fleet = Fleet::bare(1);
    let outside = Switch::new("outside");
    let (router, client) = (Router::new("router"), Site::bare("client"));
    fleet.switch.join(&router, "eth0", "172.30.0.1/16");
    outside.join(&router, "eth1", "192.0.2.1/24");
    outside.join(&client, "eth0", "192.0.2.2/24");
    client.ip("route add default via 192.0.2.1");
    router.ip(&format!("route add 250.0.27.0/24 via {}", underlay(0)));
    fleet[0].ip("route add default via 172.30.0.1");
    fleet[0].run(&format!("fan up {} eth0 egress {egress}", fleet::OVERLAY));
    let container = fleet.endpoint(0, 2);
    let wire = client.raw("eth0");
    let target = "192.0.2.2".parse().expect("an address");
    let pinged = ping(&container, target, 2, &[]);
    let seen = wire.receive(Duration::from_millis(200), |frame| {
        let packet = fanlight_tests::packet::Ipv4::of_frame(frame)?;
        (packet.icmp() == Some((8, 0))).then(|| packet.src.to_string())
    });
    assert_eq!(seen.is_some(), pinged.received > 0, "{pinged:?}");
    seen
}

//@ guest: 6.1
#[test]
fn egress_masquerade_leaves_with_the_hosts_address() {
    assert_eq!(seen_outside("masquerade"), Some(underlay(0).to_string()));
}

//@ guest
#[test]
fn egress_route_leaves_with_the_containers_address() {
    assert_eq!(seen_outside("route"), Some(overlay(0, 2).to_string()));
}

//@ guest
#[test]
fn egress_drop_leaves_not_at_all() {
    assert_eq!(seen_outside("drop"), None);
}

//@ guest
#[test]
fn hosts_on_two_networks_behind_a_router_carry_one_fan() {
    let (left, right) = (Switch::new("left"), Switch::new("right"));
    let router = Router::new("router");
    let (one, other) = (Host::new("one"), Host::new("other"));
    left.join(&router, "eth0", "172.30.1.1/24");
    right.join(&router, "eth1", "172.30.2.1/24");
    left.join(&one, "eth0", "172.30.1.2/24");
    right.join(&other, "eth0", "172.30.2.2/24");
    one.ip("route add default via 172.30.1.1");
    other.ip("route add default via 172.30.2.1");
    for host in [&one, &other] {
        host.run("fan up 250.0.0.0/8 172.30.0.0/16");
    }
    let (a, b) = (one.container("a"), other.container("b"));
    one.run("endpoint add --netns a --address 250.1.2.7");
    other.run("endpoint add --netns b --address 250.2.2.7");
    assert_reaches(&a, "250.2.2.7".parse().expect("an address"));
    assert_reaches(&b, "250.1.2.7".parse().expect("an address"));
    let echo = Echo::start(&b, "250.2.2.7".parse().expect("an address"));
    eventually("a connection", Duration::from_secs(5), || {
        let connect = || std::net::TcpStream::connect(("250.2.2.7", echo.port()));
        a.inside(connect).ok()
    });
}
