//! `fanlight flow list`: the live flow table, whole and fast.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use fanlight_tests::{
    Agent, eventually,
    fleet::{Fleet, overlay},
    flows::{self, fill},
    server::{Greeted, Named, ask},
    services::{configure, service},
};
use serde_json::Value;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 80);
const DNS: SocketAddrV4 = SocketAddrV4::new(VIP, 53);
const SOON: Duration = Duration::from_secs(5);

/// Services `web` and `dns` on one backend, and `silent` on an address that never answers.
fn serving(fleet: &Fleet, server: &Named) -> Agent {
    let tables = [
        service("web", format!("{WEB}/tcp"), &[server.backend()]),
        service("dns", format!("{DNS}/udp"), &[server.backend()]),
        service("silent", format!("{VIP}:{}/tcp", flows::PORT), &[format!("{}:81", flows::BACKEND)]),
    ];
    configure(&fleet[0], &tables);
    fleet[0].agent()
}

fn list(fleet: &Fleet, options: &str) -> Vec<Value> {
    let json = fleet[0].json(&format!("flow list {options}"));
    json.as_array().expect("a list").clone()
}

#[test]
fn flows_of_every_state_are_listed_with_client_vip_backend_and_service() {
    let fleet = Fleet::up(2);
    let container = fleet.endpoint(1, 9);
    let server = Named::start(&container, "b0", overlay(1, 9), 8080);
    let agent = serving(&fleet, &server);
    let (client, other) = (fleet.endpoint(0, 5), fleet.endpoint(0, 6));
    let mut greeted = Greeted::connect(&client, WEB).expect("the backend answers");
    greeted.echo(&[7; 3000]).expect("bytes come back");
    ask(&other, DNS).expect("the backend answers");
    other.inside(|| {
        let silent = SocketAddrV4::new(VIP, 81).into();
        let _ = std::net::TcpStream::connect_timeout(&silent, Duration::from_millis(300));
    });

    let flows = list(&fleet, "");
    let of = |name: &str| {
        let mut found = flows.iter().filter(|flow| flow["service"] == name);
        let flow = found.next().unwrap_or_else(|| panic!("no flow of {name}: {flows:?}"));
        assert!(found.next().is_none(), "two flows of {name}: {flows:?}");
        flow
    };
    let web = of("web");
    assert_eq!((&web["protocol"], &web["state"]), (&"tcp".into(), &"established".into()));
    assert_eq!(web["client"], greeted.seen_as.to_string());
    assert_eq!((&web["vip"], &web["backend"]), (&"10.96.0.10:80".into(), &server.backend().into()));
    assert!(web["packets"].as_u64() >= Some(4) && web["bytes"].as_u64() > Some(6_000), "{web}");
    assert!(web["age"].as_f64() < Some(30.0), "{web}");
    assert_eq!((&of("dns")["protocol"], &of("dns")["state"]), (&"udp".into(), &"established".into()));
    assert_eq!((&of("silent")["state"], &of("silent")["backend"]), (&"new".into(), &"250.0.99.2:81".into()));

    let names = |options: &str| -> Vec<String> {
        let flows = list(&fleet, options);
        let mut names: Vec<_> = flows.iter().filter_map(|flow| flow["service"].as_str()).collect();
        names.sort_unstable();
        names.into_iter().map(str::to_owned).collect()
    };
    assert_eq!(names("--service web"), ["web"]);
    assert_eq!(names(&format!("--client {}", overlay(0, 6))), ["dns", "silent"]);
    assert_eq!(names(&format!("--client {} --service web", overlay(0, 6))), [""; 0]);
    let text = fleet[0].run("flow list --service web");
    assert!(text.lines().count() == 2 && text.ends_with(" web"), "{text}");

    drop(greeted);
    eventually("it closes", SOON, || {
        list(&fleet, "--service web").iter().all(|flow| flow["state"] == "closed").then_some(())
    });
    let wrong = fleet[0].fanlight(["flow", "list", "--service", "wbe"]).exits(1);
    assert_eq!(wrong.stderr, "fanlight: flow list: no service 'wbe'; 'fanlight service list' lists them\n");
    agent.kill9();
    let none = fleet[0].fanlight(["flow", "list"]).exits(1);
    assert!(none.stderr.starts_with("fanlight: flow list: no agent is running: "), "{none}");
}

#[test]
fn a_large_table_is_listed_whole() {
    const FLOWS: u32 = 60_000;
    let fleet = Fleet::up(1);
    let container = fleet.endpoint(0, 9);
    let _agent = serving(&fleet, &Named::start(&container, "b0", overlay(0, 9), 8080));
    fill(&fleet[0], VIP, FLOWS);
    let start = Instant::now();
    let text = fleet[0].run("flow list --json");
    println!("{FLOWS} flows within {:?}", start.elapsed());
    let flows: Vec<Value> = serde_json::from_str(&text).expect("a list");
    let clients: BTreeSet<&str> = flows.iter().filter_map(|flow| flow["client"].as_str()).collect();
    assert_eq!((flows.len(), clients.len()), (FLOWS as usize, FLOWS as usize));
}
