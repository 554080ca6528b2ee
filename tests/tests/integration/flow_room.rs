//! How full the flow tables are, and how much the kernel has evicted from them.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use dataplane_common::abi::{FLOW_LAYOUT, LAYOUT};
use fanlight::kernel::bpf::{Datapath, FlowCount};
use fanlight_tests::{
    Agent, Host, eventually,
    fleet::{Fleet, overlay},
    flows,
    packet::Ipv4,
    server::{Greeted, Named},
    services::{configure, service},
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 80);
const DNS: SocketAddrV4 = SocketAddrV4::new(VIP, 53);
const SOON: Duration = Duration::from_secs(20);

/// A service on this backend, and one that takes every port and is never answered.
fn serving(fleet: &Fleet, backend: &str) -> Agent {
    let tables = [
        "[datapath]\nflows = 65536\n".to_owned(),
        service("web", format!("{WEB}/tcp"), &[backend.to_owned()]),
        service("any", format!("{VIP}:0/udp"), &[format!("{}:0", overlay(0, 9))]),
    ];
    configure(&fleet[0], &tables);
    fleet[0].agent()
}

/// The configuration with tables for so many flows.
fn configure_flows(host: &Host, flows: u64, backend: &str) {
    let datapath = format!("[datapath]\nflows = {flows}\n");
    configure(host, &[datapath, service("web", format!("{WEB}/tcp"), &[backend.to_owned()])]);
}

fn degraded(host: &Host) -> String {
    host.json("status")["degraded"].to_string()
}

/// Flows that the table holds, as the programs find it.
fn capacity(host: &Host) -> u32 {
    host.inside(|| {
        let datapath = Datapath::open_existing().expect("it is asked").expect("it is pinned");
        datapath.services().flow_capacity().expect("the table's size")
    })
}

/// What a whole walk over the tables finds.
fn counted(host: &Host) -> FlowCount {
    host.inside(|| {
        let datapath = Datapath::open_existing().expect("it is asked").expect("it is pinned");
        datapath.services().walk().finish().expect("the tables are read")
    })
}

#[test]
fn status_tells_how_full_the_flow_tables_are() {
    let fleet = Fleet::up(1);
    let container = fleet.endpoint(0, 9);
    let server = Named::start(&container, "b0", overlay(0, 9), 8080);
    let _agent = serving(&fleet, &server.backend());
    let client = fleet.endpoint(0, 5);
    let open: Vec<_> = (0..5).map(|_| Greeted::connect(&client, WEB).expect("the backend answers")).collect();
    let flows = eventually("a walk found them", SOON, || {
        let flows = fleet[0].json("status")["flows"].clone();
        (flows["held"].as_u64() >= Some(2 * open.len() as u64)).then_some(flows)
    });
    assert_eq!((&flows["capacity"], &flows["unconfirmed_capacity"]), (&131_072.into(), &131_072.into()));
    assert_eq!((&flows["evicted"], &flows["unconfirmed_evicted"]), (&0.into(), &0.into()));
    let text = fleet[0].run("status");
    assert!(text.contains("\nflows     10 of 131072 entries, "), "{text}");
}

#[test]
fn what_the_kernel_evicts_for_want_of_room_is_estimated() {
    const SENT: u32 = 100_000;
    let fleet = Fleet::up(1);
    let _backend = fleet.endpoint(0, 9);
    let _agent = serving(&fleet, "250.0.99.2:80");
    let client = fleet.endpoint(0, 5);
    assert_eq!(counted(&fleet[0]).unconfirmed_evicted, 0);
    let (gateway, own) = (fleet[0].mac(&fanlight_tests::fleet::bridge(0)), client.mac("eth0"));
    let socket = client.raw("eth0");
    for number in 0..SENT {
        let (sport, dport) = (1_000 + number / 50_000, 1_000 + number % 50_000);
        let packet = Ipv4::udp((overlay(0, 5), sport as u16), (VIP, dport as u16), b"x");
        socket.send(&packet.frame(gateway, own));
    }
    let count = counted(&fleet[0]);
    let made = 2 * u64::from(SENT);
    assert!(count.unconfirmed <= 131_072, "{count:?}");
    let missing = made - count.unconfirmed;
    assert!(
        count.unconfirmed_evicted <= missing && count.unconfirmed_evicted >= missing * 9 / 10,
        "{count:?}"
    );
    assert_eq!(count.evicted, 0, "{count:?}");
}

#[test]
fn forged_datagrams_that_are_answered_evict_no_connection() {
    let fleet = Fleet::up(2);
    let container = fleet.endpoint(1, 9);
    let server = Named::start(&container, "b1", overlay(1, 9), 8080);
    let backends = [server.backend()];
    let tables = [
        "[datapath]\nflows = 2048\n".to_owned(),
        service("web", format!("{WEB}/tcp"), &backends),
        service("dns", format!("{DNS}/udp"), &backends),
    ];
    configure(&fleet[0], &tables);
    let _agent = fleet[0].agent();
    let client = fleet.endpoint(0, 5);
    let mut open: Vec<_> =
        (0..50).map(|_| Greeted::connect(&client, WEB).expect("the backend answers")).collect();
    let (gateway, own) = (fleet[0].mac(&fanlight_tests::fleet::bridge(0)), client.mac("eth0"));
    let socket = client.raw("eth0");
    let count = eventually("the table of datagrams overflows", SOON, || {
        for sport in 1_000..21_000 {
            let packet = Ipv4::udp((overlay(0, 5), sport), (VIP, DNS.port()), b"who");
            socket.send(&packet.frame(gateway, own));
        }
        Some(counted(&fleet[0])).filter(|count| count.datagrams_evicted > 0)
    });
    assert_eq!((count.evicted, count.flows), (0, 2 * open.len() as u64), "{count:?}");
    // Without the entries that connections had before they were confirmed.
    flows::age(&fleet[0], Duration::from_secs(31));
    for connection in &mut open {
        connection.echo(b"still there").expect("the connection lives");
    }
}

#[test]
fn tables_that_cannot_be_had_leave_the_present_ones_and_their_flows() {
    let fleet = Fleet::up(2);
    let server = fleet.endpoint(1, 9);
    let named = Named::start(&server, "b1", overlay(1, 9), 8080);
    configure_flows(&fleet[0], 70_000, &named.backend());
    let mut agent = fleet[0].agent();
    let client = fleet.endpoint(0, 5);
    let mut open: Vec<_> =
        (0..5).map(|_| Greeted::connect(&client, WEB).expect("the backend answers")).collect();
    let mut speak = |when: &str| {
        for connection in &mut open {
            connection.echo(&[7; 3000]).unwrap_or_else(|error| panic!("{when}: {error}"));
        }
        Greeted::connect(&client, WEB).unwrap_or_else(|error| panic!("{when}: a new connection: {error}"));
    };
    // `status` reads what the agent writes when it has answered.
    let is_told = |reason: &str| {
        eventually(reason, SOON, || degraded(&fleet[0]).contains(reason).then_some(()));
    };
    speak("before");
    // More than any memory holds.
    configure_flows(&fleet[0], 4_000_000_000, &named.backend());
    agent.reload();
    is_told("config-invalid: datapath.flows: 4000000000 flows take 1173019 MiB");
    assert_eq!(capacity(&fleet[0]), 70_000);
    speak("after a size that is refused");
    // Something is in the way of the new tables, after they were made.
    let maps = format!("/sys/fs/bpf/fanlight/v{LAYOUT}/maps");
    let obstacle = format!("{maps}/fresh_unconfirmed-{FLOW_LAYOUT}");
    fleet[0].command("mkdir").arg(&obstacle).ok();
    configure_flows(&fleet[0], 80_000, &named.backend());
    agent.reload();
    is_told("flow-tables: they stay at 70000 flows");
    assert_eq!(capacity(&fleet[0]), 70_000);
    speak("after a change that failed half-way");
    // Every look since would have dropped them.
    std::thread::sleep(Duration::from_secs(6));
    speak("some looks later");
    fleet[0].command("rmdir").arg(&obstacle).ok();
    configure_flows(&fleet[0], 90_000, &named.backend());
    agent.reload();
    assert_eq!(degraded(&fleet[0]), "[]");
    assert_eq!(capacity(&fleet[0]), 90_000);
    speak("with other tables");
    eventually("the rest of the flows is brought over", SOON, || {
        let former = fleet[0].sh(&format!("ls {maps}"));
        ["former_flows", "former_datagrams", "former_unconfirmed"]
            .iter()
            .all(|name| !former.contains(name))
            .then_some(())
    });
    speak("when the former tables are gone");
}
