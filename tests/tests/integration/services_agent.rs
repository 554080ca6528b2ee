//! Services of the file: the agent brings them to the kernel, with their routes, and `status` shows them.

use std::time::Duration;

use fanlight_tests::{
    Host, eventually,
    fleet::Fleet,
    services::{configure, weighted},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
const VIP: &str = "10.96.0.10";

/// A service on the VIP, with these backends.
fn web(backends: &[(&str, u32)]) -> String {
    let backends: Vec<_> = backends.iter().map(|&(address, weight)| (address.to_owned(), weight)).collect();
    weighted("web", format!("{VIP}:80/tcp"), &backends)
}

fn services(host: &Host) -> Value {
    host.json("status")["services"].clone()
}

fn degraded(host: &Host) -> String {
    host.json("status")["degraded"].to_string()
}

fn route(host: &Host) -> String {
    host.ip(&format!("route show {VIP}")).trim().to_owned()
}

#[test]
fn a_service_of_the_file_is_served_shown_and_gone_with_its_line() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0], &[web(&[("250.0.1.2:8080", 3), ("250.0.2.2:8080", 0)])]);
    let mut agent = fleet[0].agent();
    assert_eq!(
        services(&fleet[0]),
        json!([{
            "name": "web", "vip": format!("{VIP}:80/tcp"), "forward": "nat", "algorithm": "maglev", "state": "up",
            "backends": [
                {"address": "250.0.1.2:8080", "weight": 3, "state": "up"},
                {"address": "250.0.2.2:8080", "weight": 0, "state": "drained"},
            ],
        }])
    );
    let set = route(&fleet[0]);
    assert!(set.contains("dev fanlight0") && set.contains("proto 250") && set.contains(" src 250."), "{set}");
    assert_eq!(degraded(&fleet[0]), "[]");
    let memory = fleet[0].json("status")["memory"].clone();
    assert!(
        memory["services"].as_u64() > Some(1 << 20) && memory["flows"].as_u64() > Some(1 << 20),
        "{memory}"
    );

    fleet[0].ip(&format!("route delete {VIP}"));
    eventually("the route is back", SOON, || route(&fleet[0]).contains("fanlight0").then_some(()));

    configure(&fleet[0], &[web(&[("250.0.1.2:8080", 0)])]);
    agent.reload();
    assert_eq!(services(&fleet[0])[0]["state"], "down");
    configure(&fleet[0], &[]);
    agent.reload();
    assert_eq!((services(&fleet[0]), route(&fleet[0])), (json!([]), String::new()));
    assert_eq!(degraded(&fleet[0]), "[]");
}

#[test]
fn services_stay_while_the_agent_is_away_and_are_taken_over() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0], &[web(&[("250.0.1.2:8080", 1), ("250.0.2.2:8080", 1)])]);
    let agent = fleet[0].agent();
    let before = services(&fleet[0]);
    agent.kill9();
    assert_eq!(services(&fleet[0]), before);
    assert!(route(&fleet[0]).contains("fanlight0"));
    let _agent = fleet[0].agent();
    assert_eq!((services(&fleet[0]), degraded(&fleet[0])), (before, "[]".to_owned()));
}

#[test]
fn a_vip_that_others_route_or_the_host_has_is_degraded_until_it_is_free() {
    let fleet = Fleet::bare(1);
    fleet[0].ip(&format!("route add blackhole {VIP}"));
    configure(&fleet[0], &[web(&[("250.0.1.2:8080", 1)])]);
    let _agent = fleet[0].agent();
    let reasons = degraded(&fleet[0]);
    assert!(reasons.contains(&format!("vip-route {VIP}: held by ")), "{reasons}");
    assert!(route(&fleet[0]).starts_with("blackhole"));
    fleet[0].ip(&format!("route delete blackhole {VIP}"));
    eventually("the route is ours", SOON, || route(&fleet[0]).contains("fanlight0").then_some(()));
    eventually("nothing is degraded", SOON, || (degraded(&fleet[0]) == "[]").then_some(()));

    fleet[0].ip(&format!("address add {VIP}/32 dev eth0"));
    let is_refused = || degraded(&fleet[0]).contains(&format!("vip-address {VIP}: ")).then_some(());
    eventually("the VIP is refused", SOON, is_refused);
    assert_eq!(services(&fleet[0])[0]["state"], "failed");
    fleet[0].ip(&format!("address delete {VIP}/32 dev eth0"));
    eventually("the VIP is served", SOON, || (services(&fleet[0])[0]["state"] == "up").then_some(()));
}

#[test]
fn the_flow_table_is_made_as_configured_and_made_anew_when_the_file_changes() {
    let fleet = Fleet::bare(1);
    let processors = thread_count();
    let flows = |flows: usize| {
        configure(&fleet[0], &[format!("[datapath]\nflows = {flows}\n"), web(&[])]);
    };
    flows(4096 * processors);
    let mut agent = fleet[0].agent();
    assert_eq!(degraded(&fleet[0]), "[]");
    let capacity = || fleet[0].json("status")["flows"]["capacity"].clone();
    assert_eq!(capacity(), 2 * 4096 * processors);
    for other in [8192, 2048] {
        flows(other * processors);
        agent.reload();
        assert_eq!((capacity(), degraded(&fleet[0]).as_str()), ((2 * other * processors).into(), "[]"));
    }
}

/// Possible CPUs.
fn thread_count() -> usize {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").expect("sysfs");
    let last = text.trim().rsplit(['-', ',']).next().expect("a number");
    last.parse::<usize>().expect("a number") + 1
}
