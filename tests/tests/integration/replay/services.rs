//! What the answers say of services and backends.

//@ guest: 6.1

use std::{fs, net::SocketAddrV4};

use control::service::{Algorithm, Backend, Protocol, Service, Vip};
use fanlight::inspect::replay::Served;
use fanlight_tests::{
    fleet::{Fleet, overlay},
    services::service as table,
};

use super::*;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

fn service(name: &str, port: u16, protocol: Protocol, backends: &[Ipv4Addr]) -> Service {
    Service {
        name: name.to_owned(),
        vip: Vip { address: VIP.into(), port, protocol },
        algorithm: Algorithm::Maglev,
        checking: None,
        backends: backends.iter().map(|&at| Backend { address: at.into(), port: 8080, weight: 1 }).collect(),
    }
}

fn serving(hooks: &[Hook]) -> Engine {
    let services = vec![
        service("dns", 53, Protocol::Udp, &[REMOTE]),
        service("near", 54, Protocol::Udp, &[NEIGHBOUR]),
        service("outside", 55, Protocol::Udp, &[OUTSIDE]),
        service("empty", 0, Protocol::Udp, &[]),
    ];
    Engine::new(&Setup { services, ..setup() }, hooks).expect("the programs load")
}

/// Outcome, service and backend of a frame.
#[track_caller]
fn told(engine: &mut Engine, hook: Hook, frame: Vec<u8>) -> (&'static str, Served) {
    let packet = Packet { number: 1, frame, ..Packet::default() };
    let verdict = engine.run(hook, &packet).unwrap_or_else(|error| panic!("{error}"));
    (verdict.outcome.name(), verdict.served)
}

fn served(service: &str, backend: Option<Ipv4Addr>) -> Served {
    let backend = backend.map(|address| SocketAddrV4::new(address, 8080));
    Served { service: Some(service.to_owned()), backend }
}

#[test]
fn a_packet_to_a_vip_and_its_answer_name_service_and_backend() {
    let mut engine = serving(&[Hook::EndpointIngress, Hook::UplinkIngress]);
    let to_vip = |port| sent(&Ipv4::udp((LOCAL, 1000), (VIP, port), b"who"));
    let far = served("dns", Some(REMOTE));
    assert_eq!(told(&mut engine, Hook::EndpointIngress, to_vip(53)), ("encapsulated", far.clone()));
    let answer = Ipv4::udp((REMOTE, 8080), (LOCAL, 1000), b"me");
    assert_eq!(told(&mut engine, Hook::UplinkIngress, arrived(&received(&answer))), ("decapsulated", far));
    // This namespace has no route to it.
    let outside = served("outside", Some(OUTSIDE));
    assert_eq!(told(&mut engine, Hook::EndpointIngress, to_vip(55)), ("answered-unreachable", outside));
    let near = served("near", Some(NEIGHBOUR));
    assert_eq!(told(&mut engine, Hook::EndpointIngress, to_vip(54)), ("delivered-locally", near));
}

#[test]
fn the_stack_has_counted_the_hops_of_what_it_sends_to_a_backend_here() {
    let mut engine = serving(&[Hook::HostEgress, Hook::EndpointIngress]);
    for (hook, client, ttl, arrives) in
        [(Hook::HostEgress, GATEWAY, 1, 1), (Hook::EndpointIngress, LOCAL, 64, 63)]
    {
        let packet = Ipv4::udp((client, 1000), (VIP, 54), b"who").with(|packet| packet.ttl = ttl);
        let run = engine.run(hook, &Packet { number: 1, frame: sent(&packet), ..Packet::default() });
        let verdict = run.expect("it runs");
        assert_eq!(verdict.outcome, Outcome::DeliveredLocally);
        let output = verdict.output.and_then(|frame| Ipv4::of_frame(&frame));
        assert_eq!(output.map(|packet| packet.ttl), Some(arrives), "{}", hook.name());
    }
}

#[test]
fn an_error_about_a_flow_names_its_service_and_backend() {
    let mut engine = serving(&[Hook::EndpointIngress, Hook::UplinkIngress]);
    let (to_vip, from_vip) = ((LOCAL, 1000), (VIP, 53));
    let question = sent(&Ipv4::udp(to_vip, from_vip, b"who"));
    let dns = served("dns", Some(REMOTE));
    assert_eq!(told(&mut engine, Hook::EndpointIngress, question).1, dns);
    let about_answer = Ipv4::fragmentation_needed(LOCAL, 600, &Ipv4::udp(from_vip, to_vip, &[7; 900]), 28);
    assert_eq!(told(&mut engine, Hook::EndpointIngress, sent(&about_answer)), ("encapsulated", dns.clone()));
    let question_there = Ipv4::udp(to_vip, (REMOTE, 8080), b"who");
    let about_question = Ipv4::fragmentation_needed(REMOTE, 600, &question_there, 28);
    let told_of = told(&mut engine, Hook::UplinkIngress, arrived(&received(&about_question)));
    assert_eq!(told_of, ("decapsulated", dns));
    let of_nothing = Ipv4::udp((VIP, 53), (LOCAL, 1001), b"me");
    let about_nothing = sent(&Ipv4::fragmentation_needed(LOCAL, 600, &of_nothing, 28));
    assert_eq!(told(&mut engine, Hook::EndpointIngress, about_nothing).1, Served::default());
}

#[test]
fn a_refused_packet_names_the_service_that_could_not_serve_it_and_no_backend() {
    let mut engine = serving(&[Hook::EndpointIngress]);
    let any = sent(&Ipv4::udp((LOCAL, 1000), (VIP, 99), b"who"));
    assert_eq!(
        told(&mut engine, Hook::EndpointIngress, any),
        ("refused-no-backend", served("empty", None)),
        "port 99 is one of any"
    );
    let nobody = sent(&Ipv4::new(LOCAL, VIP, packet::TCP, [&[0, 9, 0, 9][..], &[0; 16]].concat()));
    assert_eq!(told(&mut engine, Hook::EndpointIngress, nobody), ("refused-no-service", Served::default()));
}

#[test]
fn a_packet_of_no_service_names_none() {
    let mut engine = serving(&[Hook::EndpointIngress]);
    let straight = sent(&Ipv4::udp((LOCAL, 1000), (REMOTE, 8080), b"who"));
    assert_eq!(told(&mut engine, Hook::EndpointIngress, straight), ("encapsulated", Served::default()));
}

#[test]
fn the_command_names_them_in_its_lines_for_people_and_for_scripts() {
    let fleet = Fleet::bare(2);
    let host = &fleet[1];
    host.write(
        "/etc/fanlight/fanlight.toml",
        "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"eth0\"\n\
         [[service]]\nname = \"dns\"\nvip = \"10.96.0.10:53/udp\"\n\
         backends = [ { address = \"250.0.27.2:8080\" } ]\n",
    );
    let hex: String = Ipv4::udp((LOCAL, 1000), (VIP, 53), b"who")
        .frame([0; 6], LOCAL_MAC)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let line = format!("{{\"packet\":\"{hex}\"}}\n");
    let replay = |more: &[&str]| {
        let words = ["replay", "--in", "-", "--hook", "bridge-ingress"].iter().chain(more);
        host.fanlight(words).input(line.clone()).ok()
    };
    assert!(replay(&[]).ends_with("  dns 250.0.27.2:8080"), "{}", replay(&[]));
    let json: serde_json::Value = serde_json::from_str(&replay(&["--json"])).expect("a line of JSON");
    assert_eq!((&json["service"], &json["backend"]), (&"dns".into(), &"250.0.27.2:8080".into()), "{json}");
}

/// A pcap file of Ethernet frames.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for frame in frames {
        let length = frame.len() as u32;
        file.extend(words(&[0, 0, length, length]));
        file.extend(frame);
    }
    file
}

#[test]
fn the_command_takes_the_nodes_own_services_and_the_device_of_a_frames_sender() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let client = fleet.endpoint(0, 5);
    let _agent = host.agent();
    let web = table("web", "10.96.0.10:80/tcp", &["250.0.28.9:8080".to_owned()]);
    host.fanlight(["service", "apply", "-f", "-"]).input(web).ok();
    let syn = [&[0x04, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02][..], &[0xff; 6]].concat();
    let (to, from) = (host.mac("fan-250-0-27"), client.mac("eth0"));
    let packet =
        |segment: &[u8]| Ipv4::new(overlay(0, 5), VIP, packet::TCP, segment.to_vec()).frame(to, from);
    fs::write(host.path("/run/packets.pcap"), pcap(&[packet(&syn), packet(&syn[..8])]))
        .expect("a file of the host");
    let told = host.run("replay --in /run/packets.pcap --hook endpoint-ingress --json");
    let lines =
        told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
    let found: Vec<_> = lines.map(|line| (line["outcome"].clone(), line["service"].clone())).collect();
    assert_eq!(
        found,
        [("encapsulated".into(), "web".into()), ("drop-truncated".into(), serde_json::Value::Null)],
        "{told}"
    );
}

#[test]
fn datagrams_to_a_closed_port_are_answered_a_hundred_times_a_second_to_each_client() {
    let mut engine = serving(&[Hook::EndpointIngress]);
    let mut refused = |source| {
        let frame = sent(&Ipv4::udp((source, 1000), (VIP, 99), b"who"));
        let packet = Packet { number: 1, frame, ..Packet::default() };
        let verdict = engine.run(Hook::EndpointIngress, &packet).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(verdict.outcome.name(), "refused-no-backend");
        verdict.action == Action::Redirect
    };
    let answered = (0..300).filter(|_| refused(LOCAL)).count();
    // Two seconds begin in the time that this takes, at most.
    assert!((100..=200).contains(&answered), "{answered}");
    assert!(refused(Ipv4Addr::from_bits(LOCAL.to_bits() + 50)), "another client");
}
