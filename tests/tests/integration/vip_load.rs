//! Services under load: connections that stay and connections that come and go, while the agent is disturbed or a flood
//! of forged clients arrives.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    thread,
    time::Duration,
};

use fanlight_tests::{
    Agent, Container,
    crowd::{Crowd, CrowdServer},
    eventually,
    fleet::{Fleet, bridge, overlay},
    flood::{Flood, Forged, confirmed_flows},
    host,
    http::HttpLoad,
    nginx::Nginx,
    services::{configure, service, weighted},
    tools::available,
};

const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);

/// The usual fan on three hosts; the first has an agent with a service over a backend on each.
struct Scene<'f> {
    client: Container<'f>,
    agent: Agent,
    _backends: Vec<Container<'f>>,
    _servers: Vec<CrowdServer>,
}

impl<'f> Scene<'f> {
    fn new(fleet: &'f Fleet) -> Self {
        let backends: Vec<_> = (0..fleet.hosts().len()).map(|host| fleet.endpoint(host, 9)).collect();
        let address = |host| SocketAddrV4::new(overlay(host, 9), 8080);
        let servers = backends.iter().enumerate();
        let servers = servers.map(|(host, backend)| CrowdServer::start(backend, address(host))).collect();
        let listed: Vec<_> = (0..backends.len()).map(|host| address(host).to_string()).collect();
        configure(&fleet[0], &[service("web", format!("{WEB}/tcp"), &listed)]);
        let client = fleet.endpoint(0, 5);
        Self { client, agent: fleet[0].agent(), _backends: backends, _servers: servers }
    }
}

/// 200 new connections a second and 50 that stay, while the agent is disturbed: none of them fails.
pub(crate) fn nothing_fails_while(disturb: impl FnOnce(&Fleet, Agent) -> Agent) {
    let fleet = Fleet::up(3);
    let Scene { client, agent, _backends, _servers } = Scene::new(&fleet);
    let staying = Crowd::staying(&client, WEB, 50, Duration::from_millis(100));
    let coming = Crowd::coming_and_going(&client, WEB, 200);
    thread::sleep(Duration::from_millis(500));
    let _agent = disturb(&fleet, agent);
    thread::sleep(Duration::from_secs(1));
    for (what, fared) in [("coming", coming.stop()), ("staying", staying.stop())] {
        assert!(fared.answers >= 100, "{what}: {fared:?}");
        assert!(fared.failures.is_empty(), "{what}: {} failed: {fared:?}", fared.failures.len());
    }
}

//@ guest: 6.1, 6.12
#[test]
fn no_connection_fails_while_the_agent_is_killed_and_started_again() {
    nothing_fails_while(|fleet, agent| {
        agent.kill9();
        thread::sleep(Duration::from_millis(500));
        fleet[0].agent()
    });
}

#[test]
fn no_connection_fails_while_the_agent_stops_and_starts_three_times() {
    nothing_fails_while(|fleet, mut agent| {
        for _ in 0..3 {
            let output = agent.stop();
            assert!(output.status.success(), "{output}");
            agent = fleet[0].agent();
        }
        agent
    });
}

#[test]
fn no_connection_fails_while_another_binary_takes_over() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let rebuilt = host::rebuilt(directory.path());
    nothing_fails_while(|fleet, agent| {
        fleet[0].use_binary(rebuilt);
        agent.stop();
        fleet[0].agent()
    });
}

//@ guest
#[test]
fn no_connection_fails_while_the_flow_table_gets_another_size() {
    nothing_fails_while(|fleet, mut agent| {
        let file =
            std::fs::read_to_string(fleet[0].path("/etc/fanlight/fanlight.toml")).expect("it is there");
        for flows in [80_000, 70_000] {
            let sized = format!("[datapath]\nflows = {flows}\n{file}");
            fleet[0].write("/etc/fanlight/fanlight.toml", &sized);
            agent.reload();
            eventually("the flows are in the other table", Duration::from_secs(10), || {
                let table = &fleet[0].json("status")["flows"];
                (table["capacity"] == 2 * flows && confirmed_flows(&fleet[0], overlay(0, 5)) >= 50)
                    .then_some(())
            });
        }
        agent
    });
}

/// A short flood of forged clients: no confirmed flow leaves the table, and a quiet client gets through.
fn a_flood_harms_nobody(forged: Forged) {
    let fleet = Fleet::up(3);
    let Scene { client, agent: _agent, _backends, _servers } = Scene::new(&fleet);
    let quiet = fleet.endpoint(0, 6);
    let attacker = fleet[0].container("attacker");
    attacker.plug(&bridge(0));
    let staying = Crowd::staying(&client, WEB, 200, Duration::from_secs(1));
    let before = confirmed_flows(&fleet[0], overlay(0, 5));
    assert_eq!(before, 200, "a flow a connection");
    let flood = Flood::start((&fleet[0], &bridge(0), overlay(0, 0)), &attacker, WEB, forged, 100_000);
    let coming = Crowd::coming_and_going(&quiet, WEB, 50);
    thread::sleep(Duration::from_secs(3));
    let coming = coming.stop();
    let (sent, rate) = flood.stop();
    let after = confirmed_flows(&fleet[0], overlay(0, 5));
    let staying = staying.stop();
    let counted = fleet[0].counters();
    println!("{sent} forged clients, {rate:.0} a second\n{coming:?}\n{counted}");
    let translated = counted.total("encapsulated") + counted.total("delivered-locally");
    assert!(sent > 5000 && translated > sent, "{sent} were sent; counted was\n{counted}");
    assert_eq!(after, before, "no confirmed flow was evicted");
    assert!(staying.failures.is_empty(), "{staying:?}");
    let failed = coming.failures.len() as u64;
    assert!(coming.answers >= 30 && failed * 100 <= coming.answers, "{coming:?}");
}

//@ guest: 6.1
#[test]
fn a_flood_of_syns_evicts_no_established_flow_and_shuts_no_client_out() {
    a_flood_harms_nobody(Forged::Syns);
}

#[test]
fn a_flood_of_forged_acknowledgements_evicts_no_established_flow_and_shuts_no_client_out() {
    a_flood_harms_nobody(Forged::SynsAndAcks);
}

/// The service over nginx on port 80 of these addresses, with their weights.
fn configure_weights(fleet: &Fleet, backends: &[(Ipv4Addr, u32)]) {
    let backends: Vec<_> =
        backends.iter().map(|(address, weight)| (format!("{address}:80"), *weight)).collect();
    configure(&fleet[0], &[weighted("web", format!("{WEB}/tcp"), &backends)]);
}

#[test]
fn no_request_fails_while_backends_are_drained_weighted_and_added_and_few_when_one_is_killed() {
    const CLIENTS: u32 = 4;
    if !available(&["nginx", "wrk"]) {
        return;
    }
    let fleet = Fleet::up(3);
    let containers: Vec<_> = (0..3).map(|host| fleet.endpoint(host, 9)).collect();
    let client = fleet.endpoint(0, 5);
    let [one, two, three] = [0, 1, 2].map(|host| overlay(host, 9));
    let mut servers: Vec<_> =
        (0..3).map(|host| Nginx::start(&fleet[host], &containers[host], &format!("b{host}"))).collect();
    configure_weights(&fleet, &[(one, 1), (two, 1)]);
    let mut agent = fleet[0].agent();
    let changes: [(&str, &[(Ipv4Addr, u32)]); 4] = [
        ("drained", &[(one, 1), (two, 0)]),
        ("taken back", &[(one, 1), (two, 1)]),
        ("weighted", &[(one, 5), (two, 1)]),
        ("added", &[(one, 1), (two, 1), (three, 1)]),
    ];
    for (what, backends) in changes {
        let load = HttpLoad::start(&client, WEB, CLIENTS, 3);
        thread::sleep(Duration::from_millis(700));
        configure_weights(&fleet, backends);
        agent.reload();
        let requested = load.finish();
        assert!(requested.answered > 100 && requested.failed == 0, "{what}: {requested:?}");
        let before: Vec<_> = servers.iter().map(Nginx::answered).collect();
        let after = HttpLoad::start(&client, WEB, CLIENTS, 1).finish();
        let grown = servers.iter().zip(before).map(|(server, before)| server.answered() - before);
        let grown: Vec<_> = grown.collect();
        println!("{what}: {requested:?}, then {after:?}, {grown:?}");
        for (address, share) in [one, two, three].iter().zip(grown) {
            let chosen = backends.iter().any(|(backend, weight)| backend == address && *weight > 0);
            assert_eq!(share > 0, chosen, "{what}: {address} answered {share}");
        }
    }
    let load = HttpLoad::start(&client, WEB, CLIENTS, 2);
    thread::sleep(Duration::from_millis(700));
    configure_weights(&fleet, &[(one, 1), (three, 1)]);
    agent.reload();
    servers.remove(1).kill();
    let requested = load.finish();
    println!("killed: {requested:?}");
    assert!(requested.answered > 100 && requested.failed <= u64::from(CLIENTS), "killed: {requested:?}");
}
