//! Groups: each node's own prefix is announced by another while it is away.

use std::{net::Ipv4Addr, thread, time::Instant};

use fanlight_tests::{
    Agent, Host,
    cluster::{DEAD, JOINED, LOOK, configure, seed, started},
    eventually,
    fleet::{Fleet, underlay},
    load::ping,
    speaker::{ASN, Kind, Manner, NODE_ASN, Speaker},
};
use serde_json::Value;

use super::bgp::SOON;

const NODES: usize = 3;
/// The second node's.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 20, 255, 28);
const ROUTER: Manner =
    Manner { node: "172.30.0.27 172.30.0.28 172.30.0.29", is_signed: false, ..Manner::USUAL };

/// A node's own prefix.
fn own(node: usize) -> String {
    format!("10.20.255.{}/32", 27 + node)
}

fn fleet() -> Fleet {
    let fleet = Fleet::bare(NODES);
    for (node, host) in fleet.hosts().iter().enumerate() {
        let bgp = format!(
            "[node]\nuplink = \"eth0\"\n[bgp]\nasn = {NODE_ASN}\ngraceful-restart = \"0s\"\n\
             [[bgp.peer]]\naddress = \"172.30.0.1\"\nasn = {ASN}\n\
             [[announce]]\nname = \"apex\"\nown = [\"{}\"]\ngroup = \"apex\"\nsetup = \"lo\"\n",
            own(node)
        );
        configure(host, "prod", &[seed(0)], &bgp);
    }
    fleet
}

/// The router's best route to each node's prefix: by whom, and its MED.
fn best(router: &Speaker) -> Vec<Option<(String, u64)>> {
    let seen = |node| router.seen(&own(node)).map(|seen| (seen.next_hop, seen.med));
    (0..NODES).map(seen).collect()
}

fn is_at_home(router: &Speaker) -> Option<()> {
    let home = |node: usize| Some((underlay(node).to_string(), 100));
    (best(router) == (0..NODES).map(home).collect::<Vec<_>>()).then_some(())
}

/// What a host says of a node's prefix: state, owner, MED.
fn said(host: &Host, node: usize) -> Option<(String, String, Value)> {
    let shown = host.json("announce show apex");
    let rows = shown["prefixes"].as_array().expect("a list").iter();
    let row = rows.clone().find(|row| row["prefix"] == own(node))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some((text(&row["state"]), text(&row["owner"]), row["med"].clone()))
}

#[test]
fn the_prefix_of_a_member_that_dies_is_taken_over_and_given_back_without_a_loss() {
    let fleet = fleet();
    let router = Speaker::start(&fleet.switch, Kind::Bird, ROUTER);
    let mut agents: Vec<Option<Agent>> = started(&fleet).into_iter().map(Some).collect();
    eventually("every prefix is announced by its own node", JOINED, || is_at_home(&router));

    agents[1].take().expect("it runs").kill9();
    let start = Instant::now();
    eventually("another has taken it over", SOON, || {
        let (hop, med) = router.seen(&own(1)).map(|seen| (seen.next_hop, seen.med))?;
        (hop != underlay(1).to_string() && med == 200).then_some(())
    });
    assert!(start.elapsed() < DEAD + LOOK, "{:?}", start.elapsed());
    let mut taken = Vec::new();
    for taker in [0, 2] {
        let (state, owner, med) = eventually("it says so", SOON, || said(&fleet[taker], 1));
        assert_eq!((&*state, &*owner), ("taken-over", "host-28"));
        taken.push(med.as_u64().expect("a MED"));
    }
    taken.sort_unstable();
    assert_eq!(taken, [200, 300], "each has its own rank");

    // Back: routers have a route all the time.
    thread::scope(|scope| {
        let pings = scope.spawn(|| ping(&router, ADDRESS, 1_200, &["-i", "0.005"]));
        agents[1] = Some(fleet[1].agent());
        eventually("it is at home again", JOINED, || is_at_home(&router));
        for taker in [0, 2] {
            eventually("it is given up", SOON, || said(&fleet[taker], 1).is_none().then_some(()));
        }
        assert!(!pings.is_finished(), "it came back too late for the pings");
        assert_eq!(pings.join().expect("pings end").lost(), 0);
    });
}

#[test]
fn a_disabled_member_is_stood_in_for_and_a_group_in_maintenance_is_nowhere() {
    let fleet = fleet();
    let router = Speaker::start(&fleet.switch, Kind::Bird, ROUTER);
    let _agents = started(&fleet);
    eventually("every prefix is announced by its own node", JOINED, || is_at_home(&router));
    fleet[2].run("announce disable apex");
    router.wait_for(&own(2), SOON, |seen| seen.next_hop != underlay(2).to_string() && seen.med == 200);
    assert_eq!(said(&fleet[2], 2).expect("it is listed").0, "withdrawn");

    let on = fleet[1].json("maintenance on --group apex");
    assert_eq!(on, serde_json::json!({"group": "apex", "maintenance": true, "changed": true}));
    for node in 0..NODES {
        router.wait_gone(&own(node), SOON);
    }
    assert_eq!(fleet[0].json("announce show apex")["state"], "maintenance");
    fleet[2].run("announce enable apex");
    fleet[0].run("maintenance off --group apex");
    eventually("all is as it was", SOON, || is_at_home(&router));
    let unknown = fleet[0].fanlight(["maintenance", "on", "--group", "other"]).exits(1).stderr;
    assert!(unknown.contains("no node announces for group other"), "{unknown}");
}
