//! The agent's API on its socket, and `fanlight service`.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use fanlight_tests::{
    Container, Host, Output, eventually,
    fleet::{Fleet, overlay},
    server::{Greeted, Named},
    services::{configure, service as table},
};
use serde_json::{Value, json};

const SOCKET: &str = "/run/fanlight/api.sock";
const STATE: &str = "/var/lib/fanlight/services";
const FILE: &str = "/etc/fanlight/fanlight.toml";
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 80);
const SOON: Duration = Duration::from_secs(5);

/// Asks the API as any program may; status and body.
fn curl(host: &Host, path: &str) -> (String, String) {
    let url = format!("http://fanlight{path}");
    let words = ["-sS", "--max-time", "5", "--unix-socket", SOCKET, "-w", "\n%{http_code}", &url];
    let output = host.command("curl").args(words).ok();
    let (body, status) = output.rsplit_once('\n').expect("the status on a line of its own");
    (status.to_owned(), body.to_owned())
}

#[test]
fn the_socket_is_roots_alone_and_outlives_a_killed_agent_as_a_file_only() {
    let fleet = Fleet::bare(1);
    let agent = fleet[0].agent();
    let mode = fleet[0].path(SOCKET).metadata().expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(curl(&fleet[0], "/v1/services"), ("200".to_owned(), "[]".to_owned()));
    let (status, body) = curl(&fleet[0], "/v1/nothing");
    assert_eq!(
        (status.as_str(), body.as_str()),
        ("404", r#"{"errors":[{"message":"/v1/nothing: no such path"}]}"#)
    );

    let second = fleet[0].fanlight(["agent"]).exits(1);
    assert!(second.stderr.contains("another one is running"), "{second}");
    assert_eq!(curl(&fleet[0], "/v1/services").0, "200");

    agent.kill9();
    assert!(fleet[0].path(SOCKET).exists());
    let agent = fleet[0].agent();
    assert_eq!(curl(&fleet[0], "/v1/services").0, "200");
    agent.stop();
    assert!(!fleet[0].path(SOCKET).exists());
}

#[test]
fn a_socket_elsewhere_is_reached_from_the_usual_place() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0], &["[api]\nsocket = \"/run/elsewhere/api.sock\"\n".to_owned()]);
    let mut agent = fleet[0].agent();
    assert!(fleet[0].path("/run/elsewhere/api.sock").exists());
    assert_eq!(curl(&fleet[0], "/v1/services").0, "200");
    configure(&fleet[0], &[]);
    agent.reload();
    assert!(!fleet[0].path("/run/elsewhere/api.sock").exists());
    assert_eq!(curl(&fleet[0], "/v1/services").0, "200");
}

#[test]
fn a_reload_takes_over_everything_or_nothing_and_says_which() {
    let (fleet, mut agent) = one();
    let host = &fleet[0];
    let mut reload = || {
        let output = host.fanlight(["reload", "--json"]).run();
        agent.wait_for("READY=1", SOON);
        output
    };
    let json_of = |output: Output| -> Value { serde_json::from_str(&output.stdout).expect("JSON") };
    let refused = |output: Output| {
        assert!(!output.status.success(), "{output}");
        output.stderr
    };
    let web = table("web", "10.96.0.10:80/tcp", &[]);
    configure(host, std::slice::from_ref(&web));
    let reloaded = |changed: bool| json!({"changed": changed, "fans": 1, "services": 1});
    assert_eq!(json_of(reload()), reloaded(true));
    assert_eq!(names(host), ["web"]);
    assert_eq!(json_of(reload()), reloaded(false));
    let before = (names(host), host.json("fan show"), host.json("status")["node"].clone());
    let now = || (names(host), host.json("fan show"), host.json("status")["node"].clone());

    // Each of these is wrong in one place, and right in all others.
    let dns = table("dns", "10.96.0.11:53/udp", &[]);
    let others = "[node]\nname = \"other\"\n[api]\nsocket = \"/run/elsewhere/api.sock\"\n";
    configure(
        host,
        &[dns.clone(), format!("{others}[[fan]]\noverlay = \"251\"\nunderlay = \"eth0\"\nx = 1\n")],
    );
    let said = refused(reload());
    assert!(said.starts_with(&format!("fanlight: reload: {FILE}:")), "{said}");
    assert!(said.contains(": fan.x: unknown key"), "{said}");
    assert_eq!(now(), before);

    configure(host, &[dns.clone(), others.to_owned()]);
    host.write("/etc/fanlight/fans", "252 eth0\n300 eth0\n");
    let said = refused(reload());
    assert!(said.starts_with("fanlight: reload: /etc/fanlight/fans:2: "), "{said}");
    assert_eq!(now(), before);
    host.write("/etc/fanlight/fans", "");

    host.write("/run/elsewhere", "a file where the socket's folder would be");
    let said = refused(reload());
    assert!(said.contains("API socket /run/elsewhere"), "{said}");
    assert_eq!(now(), before);
    assert!(host.json("status")["degraded"].to_string().contains("config-invalid: "));

    std::fs::remove_file(host.path("/run/elsewhere")).expect("the file in the way");
    assert_eq!(json_of(reload()), reloaded(true));
    assert_eq!((names(host), host.json("status")["node"].clone()), (vec!["dns".to_owned()], "other".into()));
    assert!(host.path("/run/elsewhere/api.sock").exists());
    assert_eq!(host.json("status")["degraded"], json!([]));
}

#[test]
fn without_an_agent_there_is_nothing_to_reload() {
    let fleet = Fleet::bare(1);
    let output = fleet[0].fanlight(["reload"]).exits(1);
    assert!(output.stderr.starts_with("fanlight: reload: no agent is running: "), "{output}");
}

/// `service apply` of a text on standard input.
fn apply(host: &Host, text: &str) -> Value {
    let printed = host.fanlight(["service", "apply", "-f", "-", "--json"]).input(text).ok();
    serde_json::from_str(&printed).expect("JSON")
}

/// What is said of a text that can't be applied.
fn refused(host: &Host, text: &str) -> String {
    let output = host.fanlight(["service", "apply", "-f", "-"]).input(text).exits(1);
    output.stderr.replace("fanlight: service apply: stdin:", "").trim_end().to_owned()
}

/// Applied, unchanged, removed.
fn counts(done: &Value) -> [u64; 3] {
    assert!(done["ms"].as_f64().is_some_and(|ms| ms > 0.0 && ms < 30_000.0), "{done}");
    ["applied", "unchanged", "removed"].map(|key| done[key].as_u64().expect("a count"))
}

/// A service in JSON.
fn service(name: &str, vip: &str, backends: &[&str]) -> Value {
    let backends: Vec<_> = backends.iter().map(|address| json!({ "address": address })).collect();
    json!({ "name": name, "vip": vip, "backends": backends })
}

fn services(services: &[Value]) -> String {
    json!({ "service": services }).to_string()
}

/// Name, VIP, and state of each service.
fn listed(host: &Host) -> Vec<[String; 3]> {
    let list = host.json("service list");
    let text = |row: &Value, key: &str| row[key].as_str().expect("a word").to_owned();
    let rows = list.as_array().expect("a list").iter();
    rows.map(|row| ["name", "vip", "state"].map(|key| text(row, key))).collect()
}

fn names(host: &Host) -> Vec<String> {
    listed(host).into_iter().map(|[name, ..]| name).collect()
}

/// A host with a fan of the file and an agent.
fn one() -> (Fleet, fanlight_tests::Agent) {
    let fleet = Fleet::bare(1);
    configure(&fleet[0], &[]);
    let agent = fleet[0].agent();
    (fleet, agent)
}

/// The servers that answer so many connections.
fn met(client: &Container<'_>, count: usize) -> BTreeSet<String> {
    (0..count).map(|_| Greeted::connect(client, WEB).expect("a backend answers").name).collect()
}

//@ guest
#[test]
fn an_applied_service_is_served_listed_and_gone_when_it_is_removed() {
    let fleet = Fleet::up(2);
    let _agent = fleet[0].agent();
    let (here, there) = (fleet.endpoint(0, 9), fleet.endpoint(1, 9));
    let servers = [
        Named::start(&here, "here", overlay(0, 9), 8080),
        Named::start(&there, "there", overlay(1, 9), 8080),
    ];
    let client = fleet.endpoint(0, 5);
    let backends = servers.iter().map(Named::backend).collect::<Vec<_>>();
    let text = services(&[service("web", "10.96.0.10:80/tcp", &[&backends[0], &backends[1]])]);
    assert_eq!(counts(&apply(&fleet[0], &text)), [1, 0, 0]);
    assert_eq!(met(&client, 30).len(), 2);
    assert_eq!(counts(&apply(&fleet[0], &text)), [0, 1, 0]);

    let mut kept: Vec<Greeted> =
        (0..8).map(|_| Greeted::connect(&client, WEB).expect("a backend answers")).collect();
    kept.iter_mut().for_each(|connection| connection.echo(b"hello").expect("bytes come back"));
    let shown = fleet[0].json("service show web");
    let flows: u64 = (0..2).map(|place| shown["backends"][place]["flows"].as_u64().expect("a count")).sum();
    assert!(flows >= 8, "{shown}");
    let mut expected = json!({
        "name": "web", "vip": "10.96.0.10:80/tcp", "forward": "nat", "algorithm": "maglev", "affinity": "none",
        "state": "up", "backends": [
            {"address": backends[0], "weight": 1, "state": "up", "node": shown["backends"][0]["node"]},
            {"address": backends[1], "weight": 1, "state": "up", "node": "172.30.0.28"},
        ],
    });
    for place in 0..2 {
        expected["backends"][place]["flows"] = shown["backends"][place]["flows"].clone();
    }
    assert_eq!(shown, expected);
    assert_eq!(fleet[0].json("service list"), json!([shown]));
    eventually("status shows it", SOON, || {
        (fleet[0].json("status")["services"][0]["name"] == "web").then_some(())
    });

    let output = fleet[0].fanlight(["service", "remove", "web", "--json"]).ok();
    assert_eq!(counts(&serde_json::from_str(&output).expect("JSON")), [0, 0, 1]);
    assert_eq!((names(&fleet[0]).len(), fleet[0].ip(&format!("route show {VIP}"))), (0, String::new()));
    kept[0].echo(b"hello").expect_err("the service is gone");
    let output = fleet[0].fanlight(["service", "remove", "web"]).exits(1);
    assert_eq!(
        output.stderr.trim_end(),
        "fanlight: service remove: no service 'web'; see 'fanlight service list'"
    );
}

#[test]
fn a_drained_backend_keeps_its_connections_and_takes_no_new_ones_until_it_is_undrained() {
    let fleet = Fleet::up(1);
    let agent = fleet[0].agent();
    let containers = [fleet.endpoint(0, 8), fleet.endpoint(0, 9)];
    let servers = [
        Named::start(&containers[0], "a", overlay(0, 8), 8080),
        Named::start(&containers[1], "b", overlay(0, 9), 8080),
    ];
    let client = fleet.endpoint(0, 5);
    let [a, b] = [servers[0].backend(), servers[1].backend()];
    apply(&fleet[0], &services(&[service("web", "10.96.0.10:80/tcp", &[&a, &b])]));
    let mut kept = eventually("a connection to a", SOON, || {
        Greeted::connect(&client, WEB).ok().filter(|greeted| greeted.name == "a")
    });
    let drain = |word: &str| fleet[0].json(&format!("service {word} web {a}"));
    assert_eq!(drain("drain"), json!({"service": "web", "backend": a, "state": "drained", "changed": true}));
    assert_eq!(drain("drain")["changed"], false);
    assert_eq!(met(&client, 20), ["b".to_owned()].into());
    kept.echo(b"still there").expect("bytes come back");
    assert_eq!(fleet[0].json("service show web")["backends"][0]["state"], "drained");
    eventually("status shows it", SOON, || {
        (fleet[0].json("status")["services"][0]["backends"][0]["state"] == "drained").then_some(())
    });

    agent.kill9();
    let mut agent = fleet[0].agent();
    agent.reload();
    assert_eq!(met(&client, 20), ["b".to_owned()].into());
    kept.echo(b"still there").expect("bytes come back");
    assert_eq!(drain("undrain"), json!({"service": "web", "backend": a, "state": "up", "changed": true}));
    assert_eq!(met(&client, 30).len(), 2);

    let output = fleet[0].fanlight(["service", "drain", "web", "250.0.27.77:1"]).exits(1);
    assert_eq!(
        output.stderr.trim_end(),
        format!("fanlight: service drain: service web has no backend 250.0.27.77:1; it has {a}, {b}")
    );
}

#[test]
fn what_was_applied_outlives_the_agent_and_damage_is_told_and_leaves_the_kernel_alone() {
    let (fleet, agent) = one();
    let state = || fleet[0].path(STATE);
    let applied = [
        service("web", "10.96.0.10:80/tcp", &["250.0.27.9:80"]),
        service("dns", "10.96.0.11:53/udp", &["250.0.27.9:53"]),
    ];
    apply(&fleet[0], &services(&applied));
    let before = listed(&fleet[0]);
    agent.kill9();
    let agent = fleet[0].agent();
    assert_eq!(listed(&fleet[0]), before);
    agent.stop();

    let mut bytes = std::fs::read(state()).expect("the log");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(state(), &bytes).expect("the log");
    let _agent = fleet[0].agent();
    let degraded = || fleet[0].json("status")["degraded"].to_string();
    assert!(
        degraded().contains(&format!("services-damaged: {STATE}.damaged can't be read")),
        "{}",
        degraded()
    );
    let route = |vip: &str| fleet[0].ip(&format!("route show {vip}"));
    assert!(route("10.96.0.10").contains("fanlight0") && route("10.96.0.11").contains("fanlight0"));
    assert_eq!(counts(&apply(&fleet[0], &services(&applied[..1]))), [1, 0, 0]);
    std::fs::remove_file(fleet[0].path(&format!("{STATE}.damaged"))).expect("the log put aside");
    eventually("the other is gone", Duration::from_secs(15), || route("10.96.0.11").is_empty().then_some(()));
    assert!(route("10.96.0.10").contains("fanlight0"));
    assert_eq!((names(&fleet[0]), degraded()), (vec!["web".to_owned()], "[]".to_owned()));
}

#[test]
fn a_log_that_could_not_be_read_while_reloading_is_never_overwritten() {
    let (fleet, mut agent) = one();
    let host = &fleet[0];
    let [web, dns, www] = [("web", 10), ("dns", 11), ("www", 12)]
        .map(|(name, last)| service(name, &format!("10.96.0.{last}:80/tcp"), &["250.0.27.9:80"]));
    apply(host, &services(&[web, dns]));
    let folder = "/var/lib/fanlight";
    host.command("mount").args(["--bind", folder, folder]).ok();
    host.command("mount").args(["-o", "remount,bind,ro", folder]).ok();
    agent.reload();
    host.command("umount").args([folder]).ok();
    assert_eq!(names(host), ["dns", "web"]);
    apply(host, &services(&[www]));
    agent.kill9();
    let _agent = host.agent();
    assert_eq!(names(host), ["dns", "web", "www"]);
}

#[test]
fn an_earlier_version_leaves_a_later_ones_log_and_the_kernels_services_alone() {
    let (fleet, agent) = one();
    let host = &fleet[0];
    apply(host, &services(&[service("web", "10.96.0.10:80/tcp", &["250.0.27.9:80"])]));
    agent.stop();
    let log = std::fs::read_to_string(host.path(STATE)).expect("the log");
    let later = log.replacen("fanlight services 1", "fanlight services 9", 1);
    host.write(STATE, &later);
    let output = host.fanlight(["agent"]).exits(1);
    assert!(
        output.stderr.contains(&format!(
            "{STATE}: a later fanlight wrote it (version 9 of the log; this one reads 3); run that one"
        )),
        "{output}"
    );
    assert_eq!(std::fs::read_to_string(host.path(STATE)).expect("the log"), later);
    assert!(host.ip("route show 10.96.0.10").contains("fanlight0"));
    host.write(STATE, &log);
    let _agent = host.agent();
    assert_eq!(names(host), ["web"]);
}

#[test]
fn the_files_services_are_changed_only_there_but_for_drain_marks() {
    let (fleet, mut agent) = one();
    let file = [table("web", "10.96.0.10:80/tcp", &["250.0.27.9:80".to_owned()])];
    configure(&fleet[0], &file);
    agent.reload();
    let web = service("web", "10.96.0.12:80/tcp", &[]);
    assert_eq!(
        refused(&fleet[0], &services(std::slice::from_ref(&web))),
        format!("1: service.name: service web is of {FILE}; change it there")
    );
    let output = fleet[0].fanlight(["service", "remove", "web"]).exits(1);
    assert!(output.stderr.contains(&format!("service web is of {FILE}; change it there")), "{output}");
    let clash = service("other", "10.96.0.10:80/tcp", &[]);
    assert_eq!(
        refused(&fleet[0], &services(&[clash])),
        format!("1: service.vip: 10.96.0.10:80/tcp is the VIP of service web of {FILE}; give each its own")
    );
    fleet[0].run("service drain web 250.0.27.9:80");
    agent.reload();
    assert_eq!(listed(&fleet[0]), [["web", "10.96.0.10:80/tcp", "down"]]);

    configure(&fleet[0], &[]);
    agent.reload();
    apply(&fleet[0], &services(&[web]));
    configure(&fleet[0], &file);
    agent.reload();
    assert_eq!(listed(&fleet[0]), [["web", "10.96.0.10:80/tcp", "up"]]);
    let degraded = fleet[0].json("status")["degraded"].to_string();
    assert!(degraded.contains(&format!("service web: {FILE} has it too, and is followed")), "{degraded}");
    configure(&fleet[0], &[]);
    agent.reload();
    assert_eq!(listed(&fleet[0]), [["web", "10.96.0.12:80/tcp", "down"]]);
}

#[test]
fn a_set_is_applied_as_a_whole_or_not_at_all_in_each_format() {
    let (fleet, _agent) = one();
    let wrong =
        [service("a", "10.96.0.10:80/tcp", &[]), service("b", "10.96.0.11:80/tcp", &["10.96.0.10:80"])];
    let why = refused(&fleet[0], &services(&wrong));
    assert!(why.starts_with("1: service.backends.address: 10.96.0.10 is the VIP of service a"), "{why}");
    assert_eq!(names(&fleet[0]), [""; 0]);

    let toml = "[[service]]\nname = 'a'\nvip = '10.96.0.10:80/tcp'\nbackends = []\n\n\
                [[service]]\nname = 'b'\nvip = '10.96.0.11:80/tcp'\nbackends = []\n";
    let yaml = "service:\n- name: b\n  vip: 10.96.0.11:80/tcp\n  backends: []\n\
                - name: c\n  labels:\n    VIP_0: udp://10.96.0.12:53\n  backends: []\n";
    let json = services(&[service("d", "10.96.0.13:0/tcp", &["250.0.27.9:0"])]);
    for (name, text, expected) in
        [("a.toml", toml, [2, 0, 0]), ("b.yaml", yaml, [1, 1, 0]), ("c.json", json.as_str(), [1, 0, 0])]
    {
        fleet[0].write(&format!("/run/{name}"), text);
        let done = fleet[0].json(&format!("service apply -f /run/{name}"));
        assert_eq!(counts(&done), expected, "{name}");
    }
    assert_eq!(names(&fleet[0]), ["a", "b", "c", "d"]);
    assert_eq!(listed(&fleet[0])[2][1], "10.96.0.12:53/udp");
    fleet[0].write("/run/e.yaml", "service:\n- name: e\n  vipp: 10.96.0.14:80/tcp\n  backends: []\n");
    let output = fleet[0].fanlight(["service", "apply", "-f", "/run/e.yaml"]).exits(1);
    assert_eq!(
        output.stderr,
        "fanlight: service apply: /run/e.yaml:2: service.vip: is missing; add one such as \"10.96.0.10:80/tcp\"\n\
         fanlight: service apply: /run/e.yaml:3: service.vipp: unknown key; did you mean 'vip'?\n"
    );
}

#[test]
fn a_vip_of_the_host_or_of_another_service_is_refused_and_vips_may_be_exchanged() {
    let (fleet, _agent) = one();
    let why = refused(&fleet[0], &services(&[service("a", "172.30.0.27:80/tcp", &[])]));
    assert_eq!(why, "1: service.vip: 172.30.0.27 is an address of eth0; give the service another VIP");
    apply(
        &fleet[0],
        &services(&[service("a", "10.96.0.10:80/tcp", &[]), service("b", "10.96.0.11:80/tcp", &[])]),
    );
    let why = refused(&fleet[0], &services(&[service("c", "10.96.0.11:80/tcp", &[])]));
    assert_eq!(why, "1: service.vip: 10.96.0.11:80/tcp is the VIP of service b; give each its own");
    let why = refused(&fleet[0], &services(&[service("c", "10.96.0.12:80/tcp", &["10.96.0.11:80"])]));
    assert_eq!(why, "1: service.backends.address: 10.96.0.11 is the VIP of service b; name its backends");
    apply(&fleet[0], &services(&[service("d", "10.96.0.13:80/tcp", &["172.30.0.99:80"])]));
    let why = refused(&fleet[0], &services(&[service("c", "172.30.0.99:80/tcp", &[])]));
    assert_eq!(
        why,
        "1: service.vip: 172.30.0.99 is a backend's address of service d; give the service another VIP"
    );
    fleet[0].run("service remove d");
    let exchanged = [service("a", "10.96.0.11:80/tcp", &[]), service("b", "10.96.0.10:80/tcp", &[])];
    assert_eq!(counts(&apply(&fleet[0], &services(&exchanged))), [2, 0, 0]);
    assert_eq!(listed(&fleet[0]), [["a", "10.96.0.11:80/tcp", "down"], ["b", "10.96.0.10:80/tcp", "down"]]);
    let moved = [service("a", "10.96.0.12:80/tcp", &[])];
    apply(&fleet[0], &services(&moved));
    assert_eq!(fleet[0].ip("route show 10.96.0.11"), "");
    assert!(fleet[0].ip("route show 10.96.0.12").contains("fanlight0"));
}

#[test]
fn a_vip_of_the_default_gateway_or_of_a_resolver_is_refused_unless_it_resolves() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    host.ip("route add default via 172.30.0.1 dev eth0");
    host.write("/run/resolv.conf", "nameserver 10.96.0.53\n");
    host.command("mount").args(["--bind", "/run/resolv.conf", "/etc/resolv.conf"]).ok();
    configure(host, &[table("web", "172.30.0.1:80/tcp", &[])]);
    let mut agent = host.agent();
    let degraded = || host.json("status")["degraded"].to_string();
    let said = "vip-address 172.30.0.1: it is the default gateway's; give the service another VIP";
    assert!(degraded().contains(said), "{}", degraded());
    assert_eq!(host.ip("route show 172.30.0.1"), "");
    configure(host, &[]);
    agent.reload();
    let why = refused(host, &services(&[service("a", "172.30.0.1:80/tcp", &[])]));
    assert_eq!(why, "1: service.vip: 172.30.0.1 is the default gateway's; give the service another VIP");
    let why = refused(host, &services(&[service("a", "10.96.0.53:80/tcp", &[])]));
    assert_eq!(
        why,
        "1: service.vip: 10.96.0.53 is a resolver of this host (/etc/resolv.conf); give the service another VIP"
    );
    let both = [service("a", "10.96.0.53:80/tcp", &[]), service("dns", "10.96.0.53:53/udp", &[])];
    assert_eq!(counts(&apply(host, &services(&both))), [2, 0, 0]);
}

#[test]
fn without_an_agent_or_a_fan_nothing_is_applied() {
    let fleet = Fleet::bare(1);
    let output = fleet[0].fanlight(["service", "list"]).exits(1);
    assert!(
        output.stderr.starts_with(&format!("fanlight: service list: no agent is running: {SOCKET}: "))
            && output.stderr.ends_with("; start it with 'fanlight agent'\n"),
        "{output}"
    );
    let agent = fleet[0].agent();
    let why = refused(&fleet[0], &services(&[service("a", "10.96.0.10:80/tcp", &[])]));
    assert!(why.ends_with("no fan is up, so that no service can be served; bring one up first"), "{why}");
    assert_eq!(names(&fleet[0]), [""; 0]);
    agent.kill9();
    let output = fleet[0].fanlight(["service", "show", "a"]).exits(1);
    assert!(output.stderr.contains("no agent is running"), "{output}");
}
