//! Which backends take new flows as members come and go.

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use fanlight_tests::{
    cluster::reasons,
    eventually,
    fleet::{overlay, underlay},
    server::{Greeted, Named},
};

use super::{
    cluster::{DEAD, JOINED, LOOK, TOLD, are_members, becomes as is_member, is_degraded, started},
    cluster_services::{OTHER_VIP, VIP, apply, becomes, clustered, line, service, shown, tells},
};

/// A backend in each of these hosts' slices.
fn inside(hosts: &[usize]) -> Vec<String> {
    hosts.iter().map(|&host| format!("{}:8080", overlay(host, 9))).collect()
}

/// A backend on each of these hosts: nobody looks whether these answer.
fn on(hosts: &[usize]) -> Vec<String> {
    hosts.iter().map(|&host| format!("{}:8080", underlay(host))).collect()
}

fn table(name: &str, vip: &str, backends: &[String]) -> String {
    service(name, vip, &backends.iter().map(String::as_str).collect::<Vec<_>>())
}

fn states(backends: &[String], states: &[&str]) -> String {
    backends.iter().zip(states).map(|(backend, state)| format!(" {backend}={state}")).collect()
}

fn vip() -> SocketAddrV4 {
    "10.96.0.10:80".parse().expect("an address and a port")
}

#[test]
fn backends_of_a_dead_node_leave_every_ring_and_come_back_with_it_and_external_ones_stay() {
    let fleet = clustered(3);
    let mut agents = started(&fleet);
    let mut backends = on(&[0, 1, 2]);
    // The dead node contributes one that is no member's.
    backends.push("192.0.2.9:80".to_owned());
    apply(&fleet[2], &service("web", VIP, &backends.iter().map(String::as_str).collect::<Vec<_>>()));
    let want =
        |last: &str| format!("{VIP} up{} 192.0.2.9:80=up", states(&on(&[0, 1, 2]), &["up", "up", last]));
    becomes(&fleet, &[0, 1, 2], "web", &want("up"), TOLD);
    let killed = Instant::now();
    agents.remove(2).kill9();
    becomes(&fleet, &[0, 1], "web", &want("down"), DEAD + LOOK);
    assert!(killed.elapsed() < DEAD + LOOK, "{:?}", killed.elapsed());
    let down = shown(&fleet[0], "web").expect("there")["backends"][2].clone();
    assert_eq!((&down["reason"], &down["node"]), (&"node-dead".into(), &"host-29".into()), "{down}");
    agents.push(fleet[2].agent());
    becomes(&fleet, &[0, 1, 2], "web", &want("up"), JOINED);
    agents.remove(2).stop();
    becomes(&fleet, &[0, 1], "web", &want("down"), Duration::from_secs(1) + LOOK);
    assert_eq!(shown(&fleet[0], "web").expect("there")["backends"][2]["reason"], "node-left");
    // What it contributed ends when it is forgotten, wherever the backend is.
    fleet[0].run("node forget host-29");
    becomes(&fleet, &[0, 1], "web", &format!("{VIP} down"), TOLD);
}

#[test]
fn fewer_than_half_are_never_left_and_a_service_is_not_emptied() {
    let fleet = clustered(5);
    let mut agents = started(&fleet);
    apply(&fleet[0], &table("web", VIP, &on(&[1, 3, 4])));
    apply(&fleet[0], &table("db", OTHER_VIP, &on(&[4])));
    becomes(&fleet, &[0, 4], "db", &format!("{OTHER_VIP} up{}", states(&on(&[4]), &["up"])), TOLD);
    agents.remove(4).kill9();
    let all_down = format!("{OTHER_VIP} all-down{}", states(&on(&[4]), &["down"]));
    becomes(&fleet, &[0, 1, 2, 3], "db", &all_down, TOLD);
    assert_eq!(shown(&fleet[0], "db").expect("there")["backends"][0]["kept"], true);
    tells(&fleet[2], "all-down: db: none of 1 backends is up", true);
    becomes(
        &fleet,
        &[0],
        "web",
        &format!("{VIP} up{}", states(&on(&[1, 3, 4]), &["up", "up", "down"])),
        TOLD,
    );
    agents.remove(3).kill9();
    let kept = format!("{VIP} kept{}", states(&on(&[1, 3, 4]), &["up", "down", "down"]));
    becomes(&fleet, &[0, 1, 2], "web", &kept, TOLD);
    tells(&fleet[1], "kept: web: 2 of 3 backends are down and take new flows all the same", true);
    agents.push(fleet[3].agent());
    agents.push(fleet[4].agent());
    are_members(&fleet, &[0, 1, 2, 3, 4], JOINED);
    becomes(&fleet, &[0, 1, 2], "web", &format!("{VIP} up{}", states(&on(&[1, 3, 4]), &["up"; 3])), TOLD);
    fleet.hosts().iter().for_each(|host| tells(host, "kept: ", false));
}

#[test]
fn a_partitions_smaller_side_goes_on_serving_what_it_last_knew() {
    let fleet = clustered(3);
    let _agents = started(&fleet);
    apply(&fleet[0], &table("web", VIP, &on(&[0, 1, 2])));
    let all = format!("{VIP} up{}", states(&on(&[0, 1, 2]), &["up"; 3]));
    becomes(&fleet, &[0, 1, 2], "web", &all, TOLD);
    fleet.switch.ip("link set p-host-29-eth0 down");
    is_member(&fleet, &[2], 0, "dead", TOLD);
    is_member(&fleet, &[2], 1, "dead", TOLD);
    is_degraded(&fleet[2], "minority: ");
    becomes(&fleet, &[2], "web", &all, TOLD);
    let without = format!("{VIP} up{}", states(&on(&[0, 1, 2]), &["up", "up", "down"]));
    becomes(&fleet, &[0, 1], "web", &without, TOLD);
    // Both sides change it; all of it is there in the end. One VIP that both give away stays with the name that had it first.
    apply(&fleet[2], &table("first", OTHER_VIP, &[]));
    apply(&fleet[0], &table("second", OTHER_VIP, &[]));
    fleet[2].run("backend add web 192.0.2.2:80");
    fleet[0].run("backend add web 192.0.2.1:80");
    fleet.switch.ip("link set p-host-29-eth0 up");
    are_members(&fleet, &[0, 1, 2], JOINED);
    let merged = format!("{VIP} up{} 192.0.2.1:80=up 192.0.2.2:80=up", states(&on(&[0, 1, 2]), &["up"; 3]));
    becomes(&fleet, &[0, 1, 2], "web", &merged, TOLD);
    becomes(&fleet, &[0, 1, 2], "first", &format!("{OTHER_VIP} down"), TOLD);
    for host in fleet.hosts() {
        let clash = format!("clash: second: {OTHER_VIP} is the VIP of service first");
        eventually(&format!("{}: {clash}", host.name()), TOLD, || {
            reasons(host).iter().any(|reason| reason.starts_with(&clash)).then_some(())
        });
    }
}

#[test]
fn a_node_in_maintenance_keeps_its_flows_and_gets_no_new_ones_until_it_is_back() {
    let fleet = clustered(3);
    let mut agents = started(&fleet);
    let client = fleet.endpoint(0, 5);
    let servers: Vec<_> = (1..3).map(|host| fleet.endpoint(host, 9)).collect();
    let names = ["one", "two"];
    let _named: Vec<Named> =
        (0..2).map(|at| Named::start(&servers[at], names[at], overlay(at + 1, 9), 8080)).collect();
    apply(&fleet[0], &table("web", VIP, &inside(&[1, 2])));
    becomes(&fleet, &[0], "web", &format!("{VIP} up{}", states(&inside(&[1, 2]), &["up", "up"])), TOLD);
    let mut flow = eventually("a flow to the first", TOLD, || {
        Greeted::connect(&client, vip()).ok().filter(|flow| flow.name == "one")
    });
    let said = fleet[1].json("maintenance on");
    assert_eq!(said, serde_json::json!({"node": "host-28", "maintenance": true, "changed": true}));
    let drained = format!("{VIP} up{}", states(&inside(&[1, 2]), &["drained", "up"]));
    becomes(&fleet, &[0, 1, 2], "web", &drained, LOOK);
    is_member(&fleet, &[0, 1, 2], 1, "maintenance", LOOK + LOOK);
    for _round in 0..20 {
        assert_eq!(Greeted::connect(&client, vip()).expect("the other one answers").name, "two");
    }
    flow.echo(b"still here").expect("the flow goes on");
    // It survives a restart of its agent, during which the flow goes on.
    agents.remove(1).kill9();
    agents.push(fleet[1].agent());
    flow.echo(b"still here").expect("the flow goes on");
    is_member(&fleet, &[0, 1, 2], 1, "maintenance", JOINED);
    assert_eq!(line(&fleet[1], "web"), drained);
    assert_eq!(fleet[1].json("maintenance on")["changed"], false);
    fleet[1].run("maintenance off");
    becomes(&fleet, &[0, 1, 2], "web", &format!("{VIP} up{}", states(&inside(&[1, 2]), &["up", "up"])), LOOK);
    is_member(&fleet, &[0, 1, 2], 1, "alive", LOOK + LOOK);
}

#[test]
fn a_restarted_agent_takes_nothing_away_that_packets_find() {
    let fleet = clustered(2);
    let mut agents = started(&fleet);
    let client = fleet.endpoint(0, 5);
    let server = fleet.endpoint(1, 9);
    let _server = Named::start(&server, "one", overlay(1, 9), 8080);
    apply(&fleet[1], &table("web", VIP, &inside(&[1])));
    becomes(&fleet, &[0], "web", &format!("{VIP} up{}", states(&inside(&[1]), &["up"])), TOLD);
    agents.remove(0).kill9();
    let starting = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let end = Instant::now() + Duration::from_secs(4);
            while Instant::now() < end {
                let name = Greeted::connect(&client, vip()).map(|flow| flow.name);
                assert_eq!(name.expect("the VIP answers all the time"), "one");
            }
        });
        let agent = fleet[0].agent();
        connecting.join().expect("no connection failed");
        agent
    });
    agents.push(starting);
    becomes(&fleet, &[0], "web", &format!("{VIP} up{}", states(&inside(&[1]), &["up"])), LOOK);
}

#[test]
fn without_a_cluster_there_is_no_maintenance() {
    let fleet = fanlight_tests::fleet::Fleet::bare(1);
    fanlight_tests::services::configure(&fleet[0], &[]);
    let _agent = fleet[0].agent();
    for words in ["maintenance on", "maintenance off"] {
        let refused = fleet[0].fanlight(words.split(' ')).exits(1).stderr;
        assert!(refused.contains("no cluster is configured; add [cluster]"), "{refused}");
    }
}
