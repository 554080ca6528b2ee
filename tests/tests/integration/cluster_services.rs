//! Services that members share: registered on any node, in every node's maps within moments.

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use fanlight_tests::{
    Host, api, eventually,
    fleet::{Fleet, overlay},
    server::{Greeted, Named},
    services::service as table,
};
use serde_json::{Value, json};

use super::cluster::{LOOK, TOLD, are_members, configure as configure_cluster, reasons, seed, started};

/// The usual fan's table.
const FAN: &str = "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"eth0\"\n";
/// What is registered is in every node's maps.
const SERVED: Duration = Duration::from_millis(100);
pub(super) const VIP: &str = "10.96.0.10:80/tcp";
pub(super) const OTHER_VIP: &str = "10.96.0.11:80/tcp";

/// Gives a host of the cluster its fan and these tables.
#[track_caller]
pub(super) fn configure(host: &Host, tables: &[String]) {
    configure_cluster(host, "prod", &[seed(0)], &format!("{FAN}{}", tables.concat()));
}

/// So many hosts with a fan each, which join by the first one.
pub(super) fn clustered(hosts: usize) -> Fleet {
    let fleet = Fleet::bare(hosts);
    fleet.hosts().iter().for_each(|host| configure(host, &[]));
    fleet
}

/// A service's table.
pub(super) fn service(name: &str, vip: &str, backends: &[&str]) -> String {
    table(name, vip, &backends.iter().map(|&backend| backend.to_owned()).collect::<Vec<_>>())
}

/// Applies a service on a host.
#[track_caller]
pub(super) fn apply(host: &Host, table: &str) -> Value {
    host.write("/run/applied.toml", table);
    host.json("service apply -f /run/applied.toml")
}

/// A service as a host's agent has it in the kernel; none where there is no such service.
pub(super) fn shown(host: &Host, name: &str) -> Option<Value> {
    let answer = api::ask(host, "GET", &format!("/v1/services/{name}"), "").expect("the agent answers");
    (answer.status == 200).then(|| serde_json::from_slice(&answer.body).expect("JSON"))
}

/// VIP, state and backends with their states, in one line; empty where there is no such service.
pub(super) fn line(host: &Host, name: &str) -> String {
    let Some(shown) = shown(host, name) else { return String::new() };
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let backends = shown["backends"].as_array().into_iter().flatten();
    let backends = backends.map(|own| format!(" {}={}", text(&own["address"]), text(&own["state"])));
    format!("{} {}{}", text(&shown["vip"]), text(&shown["state"]), backends.collect::<String>())
}

/// Waits until all these hosts have a service so.
#[track_caller]
pub(super) fn becomes(fleet: &Fleet, hosts: &[usize], name: &str, want: &str, limit: Duration) {
    for &host in hosts {
        let mut seen = String::new();
        let deadline = Instant::now() + limit;
        while {
            seen.clone_from(&line(&fleet[host], name));
            seen != want
        } {
            assert!(Instant::now() < deadline, "{}: {seen:?} instead of {want:?}", fleet[host].name());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Waits until a reason of this beginning is told, or none is.
#[track_caller]
pub(super) fn tells(host: &Host, start: &str, is_told: bool) {
    eventually(&format!("{}: {start} is told: {is_told}", host.name()), TOLD, || {
        (reasons(host).iter().any(|reason| reason.starts_with(start)) == is_told).then_some(())
    });
}

fn vip(text: &str) -> SocketAddrV4 {
    text.trim_end_matches("/tcp").parse().expect("an address and a port")
}

#[test]
fn what_is_registered_on_one_node_is_served_on_all_at_once() {
    let fleet = clustered(3);
    let _agents = started(&fleet);
    let (server, client) = (fleet.endpoint(1, 9), fleet.endpoint(2, 5));
    let _server = Named::start(&server, "one", overlay(1, 9), 8080);
    let applied = apply(&fleet[0], &service("web", VIP, &["250.0.28.9:8080"]));
    assert_eq!((&applied["applied"], &applied["unchanged"]), (&1.into(), &0.into()), "{applied}");
    let up = format!("{VIP} up 250.0.28.9:8080=up");
    becomes(&fleet, &[0, 1, 2], "web", &up, SERVED + LOOK);
    assert_eq!(Greeted::connect(&client, vip(VIP)).expect("the backend answers").name, "one");
    let backend = shown(&fleet[2], "web").expect("it is there")["backends"][0].clone();
    assert_eq!((&backend["node"], &backend["contributors"]), (&"host-28".into(), &json!(["host-27"])));
    let again = apply(&fleet[0], &service("web", VIP, &["250.0.28.9:8080"]));
    assert_eq!((&again["applied"], &again["unchanged"]), (&0.into(), &1.into()), "{again}");
}

#[test]
fn a_service_that_is_applied_on_one_node_is_changed_on_another_and_removed_on_a_third() {
    let fleet = clustered(3);
    let _agents = started(&fleet);
    apply(&fleet[0], &service("web", VIP, &["192.0.2.1:80"]));
    becomes(&fleet, &[1], "web", &format!("{VIP} up 192.0.2.1:80=up"), SERVED + LOOK);
    let changed = apply(&fleet[1], &service("web", OTHER_VIP, &["192.0.2.2:80"]));
    let others = json!([{"service": "web", "address": "192.0.2.1:80", "node": "host-27"}]);
    assert_eq!(changed["others"], others);
    let both = format!("{OTHER_VIP} up 192.0.2.1:80=up 192.0.2.2:80=up");
    becomes(&fleet, &[0, 1, 2], "web", &both, SERVED + LOOK);
    // What another service has is refused wherever that is known.
    fleet[2].write("/run/db.toml", &service("db", OTHER_VIP, &[]));
    let refused = fleet[2].fanlight(["service", "apply", "-f", "/run/db.toml"]).exits(1).stderr;
    assert!(
        refused.contains(&format!("{OTHER_VIP} is the VIP of service web; give each its own")),
        "{refused}"
    );
    fleet[2].run("service remove web");
    becomes(&fleet, &[0, 1, 2], "web", "", SERVED + LOOK);
    let unknown = fleet[0].fanlight(["service", "remove", "web"]).exits(1).stderr;
    assert!(unknown.contains("no service 'web'"), "{unknown}");
    // A later one of that name begins without what belonged to it.
    apply(&fleet[0], &service("web", VIP, &[]));
    becomes(&fleet, &[0, 1, 2], "web", &format!("{VIP} down"), SERVED + LOOK);
}

#[test]
fn each_node_adds_and_removes_its_own_backends_and_marks_are_everybodys() {
    let fleet = clustered(3);
    let mut agents = started(&fleet);
    apply(&fleet[0], &service("web", VIP, &["192.0.2.1:80"]));
    becomes(&fleet, &[1], "web", &format!("{VIP} up 192.0.2.1:80=up"), SERVED + LOOK);
    let added = fleet[1].json("backend add web 192.0.2.2:80 --weight 3");
    let want = json!({"service": "web", "address": "192.0.2.2:80", "weight": 3, "changed": true});
    assert_eq!(added, want);
    assert_eq!(fleet[1].json("backend add web 192.0.2.2:80")["changed"], false);
    fleet[1].run("backend add web 192.0.2.1:80 --weight 7");
    let own = json!([
        {"service": "web", "address": "192.0.2.1:80", "weight": 7},
        {"service": "web", "address": "192.0.2.2:80", "weight": 3},
    ]);
    assert_eq!((fleet[1].json("backend list"), fleet[1].json("backend list web")), (own.clone(), own));
    assert_eq!(fleet[2].json("backend list"), json!([]));
    let both = format!("{VIP} up 192.0.2.1:80=up 192.0.2.2:80=up");
    becomes(&fleet, &[0, 1, 2], "web", &both, SERVED + LOOK);
    let first = shown(&fleet[2], "web").expect("it is there")["backends"][0].clone();
    assert_eq!((&first["weight"], &first["contributors"]), (&1.into(), &json!(["host-27", "host-28"])));
    assert_eq!(first["node"], Value::Null, "it is no member's");

    let refused = fleet[2].fanlight(["backend", "remove", "web", "192.0.2.2:80"]).exits(1).stderr;
    assert!(
        refused.contains("does not contribute 192.0.2.2:80 to service web; remove it on host-28"),
        "{refused}"
    );
    fleet[2].run("service drain web 192.0.2.2:80");
    let marked = format!("{VIP} up 192.0.2.1:80=up 192.0.2.2:80=drained");
    becomes(&fleet, &[0, 1, 2], "web", &marked, SERVED + LOOK);
    agents.remove(2).kill9();
    agents.push(fleet[2].agent());
    becomes(&fleet, &[2], "web", &marked, TOLD);
    fleet[0].run("service undrain web 192.0.2.2:80");
    becomes(&fleet, &[0, 1, 2], "web", &both, TOLD);
    // What two contribute is there until both have removed it.
    fleet[0].run("backend remove web 192.0.2.1:80");
    let second = || shown(&fleet[2], "web").expect("it is there")["backends"][0]["weight"].clone();
    eventually("the other one's weight holds", TOLD, || (second() == 7).then_some(()));
    fleet[1].run("backend remove web 192.0.2.1:80");
    becomes(&fleet, &[0, 1, 2], "web", &format!("{VIP} up 192.0.2.2:80=up"), SERVED + LOOK);
}

#[test]
fn a_named_vip_has_one_address_on_all_nodes_and_of_two_names_that_meet_the_older_one_keeps_it() {
    let fleet = Fleet::bare(2);
    for host in fleet.hosts() {
        configure(host, &["[datapath]\nvip-range = \"11.0.0.0/30\"\n".to_owned()]);
    }
    let _agents = started(&fleet);
    // The range has two addresses, and the younger names sort first.
    for (host, name) in [(0, "zeta"), (1, "beta")] {
        apply(&fleet[host], &service(name, "auto:80/tcp", &[]));
        let there = || (0..2).all(|host| shown(&fleet[host], name).is_some()).then_some(());
        eventually("both have it", TOLD, there);
    }
    let vips = |host: usize| {
        ["zeta", "beta"].map(|name| shown(&fleet[host], name).expect("it is there")["vip"].clone())
    };
    assert_eq!(vips(0), vips(1));
    assert_ne!(vips(0)[0], vips(0)[1]);
    fleet[0].write("/run/full.toml", &service("alpha", "auto:80/tcp", &[]));
    fleet[0].fanlight(["service", "apply", "-f", "/run/full.toml"]).exits(1);
}

#[test]
fn what_was_applied_before_the_node_was_in_a_cluster_is_the_clusters_and_not_lost() {
    let fleet = clustered(2);
    fleet[1].write("/etc/fanlight/fanlight.toml", FAN);
    let alone = fleet[1].agent();
    apply(&fleet[1], &service("web", VIP, &["192.0.2.1:80"]));
    fleet[1].run("service drain web 192.0.2.1:80");
    alone.stop();
    configure(&fleet[1], &[]);
    let mut agents = started(&fleet);
    let drained = format!("{VIP} down 192.0.2.1:80=drained");
    becomes(&fleet, &[0, 1], "web", &drained, TOLD);
    // It is changed elsewhere, and a restart does not bring it back.
    fleet[0].run("service remove web");
    becomes(&fleet, &[0, 1], "web", "", TOLD);
    agents.remove(1).kill9();
    agents.push(fleet[1].agent());
    are_members(&fleet, &[0, 1], TOLD);
    assert_eq!((line(&fleet[0], "web"), line(&fleet[1], "web")), (String::new(), String::new()));
}

#[test]
fn ten_thousand_services_of_one_nodes_file_arrive_at_the_other() {
    let fleet = clustered(2);
    let one = |number: u32| {
        let vip = format!("10.97.{}.{}:80/tcp", number / 250, number % 250 + 1);
        service(&format!("s{number}"), &vip, &["192.0.2.1:80", "192.0.2.2:80"])
    };
    configure(&fleet[0], &(0..10_000).map(one).collect::<Vec<_>>());
    let _agents = started(&fleet);
    let count = || {
        let answer = api::ask(&fleet[1], "GET", "/v1/services?flows=no", "").expect("the agent answers");
        let rows: Vec<Value> = serde_json::from_slice(&answer.body).expect("JSON");
        rows.iter().filter(|row| row["state"] == "up").count()
    };
    eventually("all are there", Duration::from_secs(60), || (count() == 10_000).then_some(()));
    // One change among them costs no more than one.
    let begin = Instant::now();
    fleet[1].run("service drain s777 192.0.2.1:80");
    let drained = "10.97.3.28:80/tcp up 192.0.2.1:80=drained 192.0.2.2:80=up";
    becomes(&fleet, &[0, 1], "s777", drained, Duration::from_secs(2));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}
