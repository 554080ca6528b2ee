//! Packet filters of the host's that programs would carry overlay packets past: they hold, unless the operator says otherwise,
//! and `status` tells.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    thread,
    time::Duration,
};

use fanlight_tests::{
    Host, Site, eventually,
    fleet::{Fleet, bridge, overlay},
    load::{assert_reaches, ping},
    server::{Greeted, Named, ask, is_silent},
    services::{configure, service},
    tools::in_guest,
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Rules hold this soon.
const SOON: Duration = Duration::from_secs(3);
/// The same beside a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A rule on the first host.
struct Form {
    /// A command of iptables, or a table of nftables.
    make: String,
    remove: &'static str,
    /// What `status` names.
    named: &'static str,
}

fn iptables(program: &str, rule: &str) -> Form {
    Form {
        make: format!("{program} -I FORWARD {rule} -j DROP"),
        remove: if program == "iptables-nft" {
            "iptables-nft -F FORWARD"
        } else {
            "iptables-legacy -F FORWARD"
        },
        named: "FORWARD",
    }
}

fn nft(family: &str, chain: &str, rule: &str) -> Form {
    Form {
        make: format!("table {family} site {{ chain site {{ type filter {chain} priority 0; {rule}; }}; }}"),
        remove: match family {
            "inet" => "nft delete table inet site",
            "bridge" => "nft delete table bridge site",
            _ => "nft delete table netdev site",
        },
        named: "site site",
    }
}

/// Those that can be made here: guests have no iptables, and few modules.
fn possible(forms: impl IntoIterator<Item = Form>) -> impl Iterator<Item = Form> {
    forms.into_iter().filter(|form| !in_guest() || form.make.starts_with("table inet "))
}

/// A filter of packets for one port of the first container.
const SOME: &str = "table inet site { chain site { type filter hook forward priority 0; ip daddr 250.0.27.0/24 tcp dport 81 drop; }; }";

/// Rules that drop packets of the container 250.0.27.5, behind device `port` of the first host, and of others' to it.
fn forms(port: &str) -> Vec<Form> {
    let bridge = bridge(0);
    vec![
        iptables("iptables-nft", "-d 250.0.27.5"),
        iptables("iptables-nft", "-s 250.0.27.5 -d 250.0.0.0/8"),
        nft("inet", "hook forward", "ip saddr 250.0.27.5 drop"),
        nft("inet", "hook prerouting", "ip daddr { 250.0.27.5, 250.0.27.77 } reject"),
        nft("inet", "hook postrouting", "ip daddr 250.0.27.5 drop"),
        nft("bridge", "hook output", "ip daddr 250.0.27.5 drop"),
        nft("bridge", "hook prerouting", "ip saddr 250.0.27.5 drop"),
        nft("netdev", &format!("hook ingress device {port}"), "ip saddr 250.0.27.5 drop"),
        nft("netdev", &format!("hook egress device {port}"), "ip daddr 250.0.27.5 drop"),
        nft("netdev", &format!("hook ingress device {bridge}"), "ip saddr 250.0.27.5 drop"),
        nft("netdev", "hook ingress device fanlight0", "ip daddr 250.0.27.5 drop"),
        // By a chain of its own, and all but one.
        nft(
            "inet",
            "hook forward",
            "policy drop; iifname fanlight0 ip saddr 250.0.99.0/24 accept; oifname != fan-250-0-27 accept",
        ),
    ]
}

#[track_caller]
fn make(host: &Host, rule: &str) {
    if rule.starts_with("table ") {
        host.command("nft").args(["-f", "-"]).input(rule).ok();
    } else {
        host.sh(rule);
    }
}

fn filtered(host: &Host) -> Option<String> {
    let status = host.json("status");
    let reasons = status["degraded"].as_array().expect("a list").iter().filter_map(|reason| reason.as_str());
    reasons.map(str::to_owned).find(|reason| reason.starts_with("filtered: "))
}

fn is_flagged(host: &Host) -> bool {
    let fans = host.json("fan show");
    fans[0]["flags"].as_array().expect("a list").iter().any(|flag| flag == "filtered")
}

/// The device of a host behind which an endpoint lives.
fn device(host: &Host, address: Ipv4Addr) -> String {
    let listed = host.json("endpoint list");
    let endpoints = listed.as_array().expect("a list");
    let own = endpoints.iter().find(|endpoint| endpoint["address"] == address.to_string());
    own.and_then(|endpoint| endpoint["device"].as_str()).expect("an endpoint").to_owned()
}

fn reaches(from: &Site, to: Ipv4Addr) -> bool {
    from.command("ping").args(["-c", "1", "-W", "0.3", &to.to_string()]).run().status.success()
}

#[track_caller]
fn assert_drops(form: &Form, host: &Host, is_dropped: impl Fn() -> bool) {
    make(host, &form.make);
    eventually(&format!("it holds: {}", form.make), if in_guest() { PATIENCE } else { SOON }, || {
        is_dropped().then_some(())
    });
    let told = eventually("status tells", PATIENCE, || filtered(host));
    assert!(told.contains(form.named) && told.contains("250.0.0.0/8: all of them go by"), "{told}");
    assert!(is_flagged(host), "{}", form.make);
    host.sh(form.remove);
    eventually("the fast way is back", PATIENCE, || {
        (filtered(host).is_none() && !is_flagged(host)).then_some(())
    });
    eventually(&format!("it is gone: {}", form.make), PATIENCE, || (!is_dropped()).then_some(()));
}

//@ guest: 6.1, 6.12
#[test]
fn what_a_filter_drops_does_not_pass_between_containers_of_two_hosts() {
    let fleet = Fleet::up(2);
    let (server, client) = (fleet.endpoint(0, 5), fleet.endpoint(1, 6));
    let neighbour = fleet.endpoint(0, 7);
    let _agents = [fleet[0].agent(), fleet[1].agent()];
    assert_reaches(&client, overlay(0, 5));
    for form in possible(forms(&device(&fleet[0], overlay(0, 5)))) {
        assert_drops(&form, &fleet[0], || {
            !reaches(&client, overlay(0, 5)) && !reaches(&server, overlay(1, 6))
        });
        assert_reaches(&client, overlay(0, 7));
    }
    drop(neighbour);
}

//@ guest: 6.1
#[test]
fn what_a_filter_does_not_drop_passes_by_the_stack() {
    let fleet = Fleet::up(2);
    let (server, client) = (fleet.endpoint(0, 5), fleet.endpoint(1, 6));
    let _server = Named::start(&server, "behind", overlay(0, 5), 80);
    let _agents = [fleet[0].agent(), fleet[1].agent()];
    make(&fleet[0], SOME);
    eventually("status tells", PATIENCE, || filtered(&fleet[0]));
    let before = fleet[0].counters();
    let web = SocketAddrV4::new(overlay(0, 5), 80);
    let mut greeted = Greeted::connect(&client, web).expect("it answers");
    for _ in 0..16 {
        greeted.echo(&[7; 1 << 16]).expect("bytes come back");
    }
    for size in ["56", "1452", "4000"] {
        assert_eq!(ping(&client, overlay(0, 5), 3, &["-s", size]).lost(), 0, "{size} bytes");
        assert_eq!(ping(&server, overlay(1, 6), 3, &["-s", size]).lost(), 0, "{size} bytes");
    }
    let counted = fleet[0].counters().since(&before);
    for (hook, outcome) in
        [("uplink-ingress", "decapsulated-filtered"), ("endpoint-ingress", "pass-filtered")]
    {
        assert!(counted.of(hook, outcome) > 0, "{outcome}: {counted:?}");
    }
    assert_eq!((counted.total("decapsulated"), counted.of("endpoint-ingress", "encapsulated")), (0, 0));
}

//@ guest: 6.1
#[test]
fn what_a_filter_drops_does_not_pass_through_a_vip() {
    for backend in 0..2 {
        let fleet = Fleet::up(2);
        let (client, server) = (fleet.endpoint(0, 6), fleet.endpoint(backend, 9));
        let named = Named::start(&server, "web", overlay(backend, 9), 80);
        let services = [
            service("web", "10.96.0.10:80/tcp", &[named.backend()]),
            service("dns", "10.96.0.10:80/udp", &[named.backend()]),
        ];
        configure(&fleet[0], &services);
        let _agent = fleet[0].agent();
        let web = SocketAddrV4::new(VIP, 80);
        let is_served = || Greeted::connect(&client, web).is_ok() && ask(&client, web).is_ok();
        eventually("it is served", PATIENCE, || is_served().then_some(()));
        let address = overlay(backend, 9);
        for form in possible([
            iptables("iptables-nft", &format!("-d {address}")),
            iptables("iptables-nft", &format!("-s 250.0.27.6 -d {address}")),
            nft("inet", "hook forward", &format!("ip daddr {address} reject")),
        ]) {
            assert_drops(&form, &fleet[0], || is_silent(&client, web));
        }
        make(&fleet[0], SOME);
        eventually("status tells", PATIENCE, || filtered(&fleet[0]));
        let mut greeted = Greeted::connect(&client, web).expect("it is served by the stack");
        assert_eq!(greeted.seen_as.ip(), overlay(0, 6));
        for _ in 0..16 {
            greeted.echo(&[7; 1 << 16]).expect("bytes come back");
        }
        assert!(ask(&client, web).is_ok());
        let explained = fleet[0].json("explain 250.0.27.6 10.96.0.10 --proto tcp --dport 80");
        assert_eq!(explained["outcome"], "pass-filtered", "{explained}");
    }
}

//@ guest: 6.1
#[test]
fn the_operator_may_have_filters_ignored() {
    let fleet = Fleet::up(2);
    let (_server, client) = (fleet.endpoint(0, 5), fleet.endpoint(1, 6));
    configure(&fleet[0], &["[datapath]\nhost-filters = \"ignore\"\n".to_owned()]);
    let mut agent = fleet[0].agent();
    make(&fleet[0], &nft("inet", "hook forward", "ip daddr 250.0.27.5 drop").make);
    let told = eventually("status tells", PATIENCE, || filtered(&fleet[0]));
    assert!(told.contains("does not: programs carry them past it"), "{told}");
    assert_reaches(&client, overlay(0, 5));
    assert!(!is_flagged(&fleet[0]));
    configure(&fleet[0], &[]);
    agent.reload();
    eventually("it holds", PATIENCE, || (!reaches(&client, overlay(0, 5))).then_some(()));
    // As its agent left it.
    agent.stop();
    assert!(!reaches(&client, overlay(0, 5)));
    assert!(filtered(&fleet[0]).expect("it is told").contains("all of them go by"));
}

#[test]
fn without_an_agent_filters_hold_from_the_next_fan_up_on_and_status_tells() {
    for program in ["iptables-nft", "iptables-legacy"] {
        let fleet = Fleet::up(2);
        let (_server, client) = (fleet.endpoint(0, 5), fleet.endpoint(1, 6));
        let form = iptables(program, "-d 250.0.27.5");
        make(&fleet[0], &form.make);
        let told = filtered(&fleet[0]).expect("it is told");
        assert!(told.contains("does not yet"), "{told}");
        assert_reaches(&client, overlay(0, 5));
        fleet[0].run("fan up 250.0.0.0/8 eth0");
        assert!(filtered(&fleet[0]).expect("it is told").contains("all of them go by"));
        assert!(!reaches(&client, overlay(0, 5)));
        fleet[0].sh(form.remove);
        fleet[0].run("fan up 250.0.0.0/8 eth0");
        assert_eq!(filtered(&fleet[0]), None);
        assert_reaches(&client, overlay(0, 5));
    }
}

#[test]
fn rules_about_others_slow_no_packet_down() {
    let fleet = Fleet::up(2);
    let (_server, client) = (fleet.endpoint(0, 5), fleet.endpoint(1, 6));
    let _agent = fleet[0].agent();
    fleet[0].sh("iptables-nft -I FORWARD -d 192.0.2.0/24 -j DROP");
    fleet[0].sh("iptables-nft -I FORWARD -i eth9 -j DROP");
    fleet[0].sh("iptables-nft -I FORWARD -m conntrack --ctstate INVALID -j DROP");
    for rule in [
        "bridge site { chain site { type filter hook output priority 0; ether type ip6 drop; }; }",
        "netdev site { chain site { type filter hook ingress device lo priority 0; drop; }; }",
    ] {
        make(&fleet[0], &format!("table {rule}"));
    }
    thread::sleep(SOON);
    let before = fleet[0].counters();
    assert_eq!(ping(&client, overlay(0, 5), 20, &[]).lost(), 0);
    let counted = fleet[0].counters().since(&before);
    assert_eq!(
        (counted.total("pass-filtered"), counted.total("decapsulated-filtered")),
        (0, 0),
        "{counted:?}"
    );
    assert_eq!(filtered(&fleet[0]), None);
}
