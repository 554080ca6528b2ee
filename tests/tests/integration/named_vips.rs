//! VIPs that have their address by a name.

use std::{net::SocketAddrV4, time::Duration};

use fanlight_tests::{
    Host, eventually,
    fleet::{Fleet, overlay},
    server::{Greeted, Named},
    services::configure,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
const RANGE: &str = "[datapath]\nvip-range = \"11.0.0.0/8\"\n";
/// In these, "c" and "e" hash to the first address.
const SMALL: &str = "[datapath]\nvip-range = \"11.0.0.0/29\"\n";

fn table(name: &str, vip: &str, backends: &str) -> String {
    format!("[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nbackends = [{backends}]\n")
}

/// VIPs by the names of their services.
fn vips(host: &Host) -> Vec<String> {
    let services = host.json("service list");
    let one = |service: &Value| format!("{} {}", service["name"], service["vip"]).replace('"', "");
    services.as_array().into_iter().flatten().map(one).collect()
}

fn apply(host: &Host, tables: &[String]) {
    host.write("/run/services.toml", &tables.concat());
    host.run("service apply -f /run/services.toml");
}

fn degraded(host: &Host) -> String {
    host.json("status")["degraded"].to_string()
}

#[test]
fn a_named_vip_is_the_same_on_all_nodes_and_serves() {
    let fleet = Fleet::bare(2);
    let backend = format!("{{ address = \"{}:8080\" }}", overlay(1, 2));
    let tables = [RANGE.to_owned(), table("web", "auto:80/tcp", &backend)];
    fleet.hosts().iter().for_each(|host| configure(host, &tables));
    let agents = [fleet[0].agent(), fleet[1].agent()];
    let (client, server) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    let named = vips(&fleet[0]);
    assert!(named[0].starts_with("web 11.") && named[0].ends_with(":80/tcp"), "{named:?}");
    assert_eq!(vips(&fleet[1]), named);
    let vip: SocketAddrV4 =
        named[0].trim_start_matches("web ").trim_end_matches("/tcp").parse().expect("an address and a port");
    let _server = Named::start(&server, "one", overlay(1, 2), 8080);
    assert_eq!(Greeted::connect(&client, vip).expect("an answer").name, "one");
    assert!(fleet[0].ip("route show 11.0.0.0/8").contains("dev fanlight0"), "the range is routed");

    // Minuteman's label, on another port of the same name.
    fleet[0].write(
        "/run/label.yaml",
        "service:\n- name: tls\n  labels: { VIP_0: '/web:443' }\n  backends: []\n- name: dns\n  labels: { VIP_0: 'udp:///web:53' }\n  backends: []\n",
    );
    fleet[0].run("service apply -f /run/label.yaml");
    let address = vip.ip();
    assert_eq!(
        vips(&fleet[0]),
        [format!("dns {address}:53/udp"), format!("tls {address}:443/tcp"), format!("web {address}:80/tcp")]
    );
    drop(agents);
}

#[test]
fn of_two_that_meet_the_one_applied_first_keeps_its_address_over_restarts_too() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    configure(host, &[SMALL.to_owned()]);
    let agent = host.agent();
    apply(host, &[table("e", "auto:80/tcp", "")]);
    apply(host, &[table("c", "auto:80/tcp", "")]);
    let both = ["c 11.0.0.2:80/tcp", "e 11.0.0.1:80/tcp"];
    assert_eq!(vips(host), both);
    let collision =
        "vip-collision c: 11.0.0.1, which its VIP's name hashes to, is another's; it has 11.0.0.2: ";
    assert!(degraded(host).contains(collision), "{}", degraded(host));
    assert_eq!(host.json("service show c")["hashed"], "11.0.0.1");
    assert!(host.run("service show c").contains("11.0.0.2:80/tcp (11.0.0.1, which its name hashes to"));
    agent.kill9();
    let mut agent = host.agent();
    assert_eq!(vips(host), both);

    // An address of this host is no VIP's; it is free again when the host gives it up.
    host.ip("address add 11.0.0.1/32 dev lo");
    let moved = ["c 11.0.0.3:80/tcp", "e 11.0.0.2:80/tcp"];
    eventually("both make room", SOON, || (vips(host) == moved).then_some(()));
    agent.kill9();
    agent = host.agent();
    assert_eq!(vips(host), moved);
    host.ip("address delete 11.0.0.1/32 dev lo");
    eventually("both are back", SOON, || (vips(host) == both).then_some(()));

    host.run("service remove e");
    assert_eq!(vips(host), ["c 11.0.0.1:80/tcp"]);
    eventually("nothing is degraded", SOON, || (degraded(host) == "[]").then_some(()));
    agent.stop();
}

#[test]
fn without_a_range_a_named_vip_is_refused_with_the_remedy() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    let why = "named VIPs need a range; set vip-range in [datapath], or give the VIP an address";
    configure(host, &[table("web", "auto:80/tcp", "")]);
    let refused = host.fanlight(["check-config"]).exits(1).stderr;
    assert!(refused.contains(&format!("/etc/fanlight/fanlight.toml:6: service.vip: {why}")), "{refused}");
    configure(host, &[]);
    let mut agent = host.agent();
    host.write("/run/services.toml", &table("web", "auto:80/tcp", ""));
    let refused = host.fanlight(["service", "apply", "-f", "/run/services.toml"]).exits(1).stderr;
    assert!(refused.contains(&format!("/run/services.toml:3: service.vip: {why}")), "{refused}");

    // What was applied waits for its range.
    configure(host, &[SMALL.to_owned()]);
    agent.reload();
    host.run("service apply -f /run/services.toml");
    configure(host, &[]);
    agent.reload();
    assert_eq!(vips(host), [""; 0]);
    assert!(degraded(host).contains(&format!("service web: /web:80/tcp: {why}")), "{}", degraded(host));
    configure(host, &[RANGE.to_owned()]);
    agent.reload();
    assert_eq!((vips(host).len(), degraded(host).as_str()), (1, "[]"));
}
