//! `fanlight explain`: what it says of a packet is what becomes of one.

use std::net::{Ipv4Addr, SocketAddrV4};

use fanlight_tests::{
    Container, Host,
    fleet::{Fleet, overlay},
    server::{Greeted, Named},
    services::{configure, service},
};
use serde_json::{Value, json};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 80);

fn explain(host: &Host, words: &str) -> Value {
    host.json(&format!("explain {words}"))
}

fn outcome(host: &Host, words: &str) -> [Value; 2] {
    let told = explain(host, words);
    [told["hook"].clone(), told["outcome"].clone()]
}

#[test]
fn packets_of_a_fan_are_explained_without_an_agent_and_without_being_sent() {
    let fleet = Fleet::up(2);
    let _client = fleet.endpoint(0, 5);
    let before = fleet[0].counters();
    let told = explain(&fleet[0], "250.0.27.5 250.0.28.9 --proto udp --dport 53");
    assert_eq!((&told["overlay"], &told["host"]), (&"250.0.0.0/8".into(), &"172.30.0.28".into()));
    assert_eq!((&told["outcome"], &told["mtu"]), (&"encapsulated".into(), &1480.into()));
    assert_eq!((&told["service"], &told["backend"]), (&Value::Null, &Value::Null));
    let text = fleet[0].run("explain 250.0.27.5 250.0.28.9");
    assert!(
        text.contains("\n250.0.28.9 lies in overlay 250.0.0.0/8 and computes to host 172.30.0.28\n"),
        "{text}"
    );
    assert!(text.contains("\nencapsulated: Put into a tunnel packet"), "{text}");

    for (words, expected) in [
        ("250.0.28.9 250.0.27.5", json!(["uplink-ingress", "decapsulated"])),
        ("250.0.28.9 250.0.27.6", json!(["uplink-ingress", "decapsulated-to-host"])),
        ("250.0.28.9 250.0.29.5", json!(["uplink-ingress", "drop-not-our-slice"])),
        ("250.0.27.1 250.0.28.9", json!(["host-egress", "encapsulated"])),
        ("172.30.0.27 250.0.28.9", json!(["host-egress", "encapsulated"])),
        ("172.30.0.27 250.0.27.5", json!([null, null])),
        ("250.0.27.1 192.0.2.9", json!([null, null])),
        ("192.0.2.9 250.0.27.5", json!(["uplink-ingress", "pass-not-ours"])),
        ("250.0.27.6 192.0.2.9", json!(["bridge-ingress", "pass-not-ours"])),
        ("250.0.27.5 250.0.27.6", json!(["endpoint-ingress", "pass-not-ours"])),
        ("250.0.27.5 250.0.0.9", json!(["endpoint-ingress", "answered-unreachable"])),
    ] {
        assert_eq!(json!(outcome(&fleet[0], words)), expected, "{words}");
    }
    let counted = fleet[0].counters().since(&before);
    assert!(counted.iter().all(|(_, outcome, _)| outcome == "pass-not-ours"), "nothing was sent: {counted}");
}

#[test]
fn words_that_make_no_packet_are_refused() {
    let fleet = Fleet::bare(1);
    let refused = |words: &str, status| {
        let output = fleet[0].fanlight(["explain"].into_iter().chain(words.split(' '))).exits(status);
        assert_eq!(output.stdout, "", "{output}");
        output.stderr
    };
    assert!(refused("250.0.27.5", 2).contains("DST is missing"));
    assert!(refused("250.0.27.5 web", 2).contains("'web'"));
    assert!(refused("250.0.27.5 250.0.28.5 --proto tpc", 2).contains("no protocol such as tcp"));
    assert!(refused("250.0.27.5 250.0.28.5 --dport 65536", 2).contains("65536"));
    assert!(refused("250.0.27.5 250.0.28.5 --proto tcp", 1).contains("give it with --dport"));
    assert!(refused("250.0.27.5 250.0.28.5 --proto icmp --dport 1", 1).contains("has no ports"));
    assert!(refused("250.0.27.5 250.0.28.5", 1).contains("no fan is up here"));
}

/// Two services on containers of two hosts: `web` with backends, `empty` without.
fn serving<'f>(fleet: &'f Fleet) -> (Vec<Container<'f>>, Vec<Named>, fanlight_tests::Agent) {
    let containers: Vec<_> = (0..2).map(|host| fleet.endpoint(host, 9)).collect();
    let servers: Vec<_> = (0..2)
        .map(|host| Named::start(&containers[host], &format!("b{host}"), overlay(host, 9), 8080))
        .collect();
    let backends: Vec<_> = servers.iter().map(Named::backend).collect();
    let tables =
        [service("web", format!("{WEB}/tcp"), &backends), service("empty", format!("{VIP}:81/tcp"), &[])];
    configure(&fleet[0], &tables);
    (containers, servers, fleet[0].agent())
}

//@ guest
#[test]
fn the_backend_that_is_foretold_is_the_one_that_a_connection_meets_and_keeps() {
    let fleet = Fleet::up(2);
    let (_containers, servers, _agent) = serving(&fleet);
    let client = fleet.endpoint(0, 5);
    for port in 40_000..40_010 {
        let words = format!("250.0.27.5 {VIP} --dport 80 --sport {port}");
        let told = explain(&fleet[0], &words);
        assert_eq!((&told["service"], &told["vip"]), (&"web".into(), &"10.96.0.10:80/tcp".into()));
        assert_eq!((&told["hook"], &told["flow"]), (&"endpoint-ingress".into(), &Value::Null));
        assert_eq!(told["candidates"].as_array().map(Vec::len), Some(2), "{told}");
        assert_eq!(explain(&fleet[0], &words)["backend"], told["backend"], "nothing was entered");
        let greeted = Greeted::connect_from(&client, port, WEB).expect("a backend answers");
        let met = if greeted.name == "b0" { &servers[0] } else { &servers[1] };
        assert_eq!(told["backend"], met.backend(), "port {port}");
        let kept = explain(&fleet[0], &words);
        assert_eq!((&kept["flow"]["state"], &kept["backend"]), (&"established".into(), &told["backend"]));
        assert_eq!(kept["translation"][1], met.backend());

        let (backend, host) = if greeted.name == "b0" { (overlay(0, 9), 0) } else { (overlay(1, 9), 1) };
        let back = explain(&fleet[0], &format!("{backend} 250.0.27.5 --sport 8080 --dport {port}"));
        assert_eq!(back["outcome"], ["delivered-locally", "decapsulated"][host], "{back}");
        assert_eq!((&back["service"], &back["translation"][0]), (&"web".into(), &"10.96.0.10:80".into()));
    }
}

#[test]
fn what_a_vip_refuses_answers_or_serves_to_the_host_is_explained() {
    let fleet = Fleet::up(2);
    let (_containers, _servers, agent) = serving(&fleet);
    let _client = fleet.endpoint(0, 5);
    for (words, expected) in [
        ("250.0.27.5 10.96.0.10 --dport 81", json!(["endpoint-ingress", "refused-no-backend"])),
        ("250.0.27.5 10.96.0.10 --dport 82", json!(["endpoint-ingress", "refused-no-service"])),
        ("250.0.27.5 10.96.0.10", json!(["endpoint-ingress", "answered-echo"])),
        ("250.0.27.1 10.96.0.10 --dport 81", json!(["host-egress", "refused-no-backend"])),
        ("192.0.2.9 10.96.0.10 --dport 82", json!(["uplink-ingress", "pass-not-ours"])),
    ] {
        assert_eq!(json!(outcome(&fleet[0], words)), expected, "{words}");
    }
    assert_eq!(explain(&fleet[0], "250.0.27.1 10.96.0.10 --dport 81")["service"], "empty");
    agent.kill9();
    let text = fleet[0].run("explain 250.0.27.1 10.96.0.10 --dport 80");
    assert!(text.contains("\n10.96.0.10:80/tcp is the VIP of service web\n"), "{text}");
    assert!(text.contains("(from source port 40000; another port may meet another)"), "{text}");
}
