//! What services cost a node, and one without any.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use fanlight_tests::{
    Agent, Host,
    fleet::{Fleet, overlay},
    load::ping,
    server::{Greeted, Named},
    services::{configure, service},
};

const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
const MIB: u64 = 1 << 20;

fn flow_memory(host: &Host) -> u64 {
    host.json("status")["memory"]["flows"].as_u64().expect("a number")
}

/// A host with a server behind a bridge, a client and an agent without services.
fn idle(fleet: &Fleet) -> Agent {
    configure(&fleet[0], &[]);
    let agent = fleet[0].agent();
    assert!(flow_memory(&fleet[0]) < 8 * MIB, "{} bytes", flow_memory(&fleet[0]));
    agent
}

fn works(fleet: &Fleet, client: &fanlight_tests::Container<'_>) {
    assert!(flow_memory(&fleet[0]) > 20 * MIB, "{} bytes", flow_memory(&fleet[0]));
    assert_eq!(fleet[0].json("status")["degraded"], serde_json::json!([]));
    for site in [&**client, &*fleet[0]] {
        for _ in 0..5 {
            let mut greeted = Greeted::connect(site, WEB).expect("the backend answers");
            greeted.echo(&[7; 3000]).expect("bytes come back");
        }
    }
}

#[test]
fn flow_tables_are_small_until_the_first_service_of_the_file() {
    let fleet = Fleet::up(2);
    let server = fleet.endpoint(1, 9);
    let named = Named::start(&server, "b1", overlay(1, 9), 8080);
    let mut agent = idle(&fleet);
    let client = fleet.endpoint(0, 5);
    configure(&fleet[0], &[service("web", format!("{WEB}/tcp"), &[named.backend()])]);
    std::thread::scope(|scope| {
        let pinging = scope.spawn(|| ping(&client, overlay(1, 9), 100, &["-i", "0.02"]));
        agent.reload();
        let pinged = pinging.join().expect("it ends");
        assert_eq!(pinged.lost(), 0, "packets of the fan while programs are replaced: {pinged:?}");
    });
    works(&fleet, &client);
}

#[test]
fn flow_tables_are_small_until_the_first_service_is_applied() {
    let fleet = Fleet::up(2);
    let server = fleet.endpoint(1, 9);
    let named = Named::start(&server, "b1", overlay(1, 9), 8080);
    let _agent = idle(&fleet);
    let client = fleet.endpoint(0, 5);
    let service = format!(
        "service:\n- name: web\n  vip: {WEB}/tcp\n  backends: [ {{ address: \"{}\" }} ]\n",
        named.backend()
    );
    fleet[0].write("/etc/fanlight/web.yaml", &service);
    fleet[0].run("service apply -f /etc/fanlight/web.yaml");
    works(&fleet, &client);
}

#[test]
fn status_with_thousands_of_services_is_told_at_once() {
    let fleet = Fleet::up(1);
    let count = 10_000;
    let services = (0..count).map(|number| {
        let backend = |one: u32| format!("250.{}.{}.2:{}", number / 250, number % 250 + 1, 8000 + one);
        let backends: Vec<String> = (0..10).map(backend).collect();
        service(&format!("s{number}"), format!("10.96.{}.{}:80/tcp", number / 256, number % 256), &backends)
    });
    configure(&fleet[0], &services.collect::<Vec<_>>());
    let _agent = fleet[0].agent();
    let start = Instant::now();
    let status = fleet[0].fanlight(["status", "--json"]).run();
    let took = start.elapsed();
    println!("status of {count} services: {took:?}");
    assert_eq!(status.stdout.matches("\"name\"").count(), count as usize);
    assert!(took < Duration::from_secs(3), "{took:?}");
}
