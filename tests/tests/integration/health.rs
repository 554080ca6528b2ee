//! Health checks: what fails them takes no new flows, on this node alone and in a cluster.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use fanlight_tests::{
    Host, Site, eventually,
    fleet::{Fleet, OUTSIDE, overlay},
    nginx::Nginx,
    server::{Greeted, Named},
    services::{configure, service},
};
use serde_json::Value;

use super::{
    cluster::{reasons, started},
    cluster_services::{apply, becomes, clustered},
};

const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
/// Checks come every 100 ms here; the rest is what a loaded machine takes.
const SOON: Duration = Duration::from_secs(10);

/// A line for the shell; it must succeed. Its output.
#[track_caller]
fn shell(site: &Site, line: &str) -> String {
    site.command("sh").args(["-c", line]).ok()
}

/// The table of a service that is checked, quickly unless its check says otherwise.
fn checked(backends: &[String], check: &str) -> String {
    let quick = if check.contains("interval") { "" } else { ", interval = '100ms'" };
    format!("{}check = {{ {check}{quick} }}\n", service("web", format!("{VIP}/tcp"), backends))
}

fn web(host: &Host) -> Value {
    host.json("service show web")
}

/// The states of backends, in their order, and the service's.
fn states(host: &Host) -> String {
    let web = web(host);
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let backends = web["backends"].as_array().into_iter().flatten().map(|own| {
        let reason = own["reason"].as_str().map(|reason| format!("({reason})")).unwrap_or_default();
        format!(" {}{reason}", text(&own["state"]))
    });
    format!("{}:{}", text(&web["state"]), backends.collect::<String>())
}

#[track_caller]
fn are(host: &Host, want: &str) {
    let mut seen = String::new();
    let is_so = || {
        seen = states(host);
        (seen == want).then_some(())
    };
    eventually(&format!("{}: {want}", host.name()), SOON, is_so);
}

/// The names of servers that a client finds.
fn found(client: &Site, times: usize) -> Vec<String> {
    let mut names: Vec<String> =
        (0..times).map(|_| Greeted::connect(client, VIP).expect("a backend answers").name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn backend(octet: u8, port: u16) -> String {
    format!("{}:{port}", overlay(0, octet))
}

#[test]
fn a_backend_whose_http_check_fails_takes_no_new_flows_until_it_passes_again() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let (first, second) = (fleet.endpoint(0, 8), fleet.endpoint(0, 9));
    let (one, two) = (Nginx::start(host, &first, "one"), Nginx::start(host, &second, "two"));
    configure(host, &[checked(&[backend(8, 80), backend(9, 80)], "kind = 'http', path = '/name'")]);
    let _agent = host.agent();
    are(host, "up: up up");
    let monitor = host.fanlight(["monitor", "--service", "web", "--json"]).spawn_heard();
    // Its first readers have the programs tell.
    std::thread::sleep(Duration::from_millis(300));

    fs::remove_file(host.path("/run/nginx-two/name")).expect("its page");
    are(host, "up: up down(check-failed)");
    let check = &web(host)["backends"][1]["check"];
    assert_eq!((&check["state"], &check["passed"]), (&"down".into(), &false.into()), "{check}");
    assert_eq!(check["reason"], "404 Not Found", "{check}");
    let refused = host.fanlight(["check", "web"]).exits(1);
    assert!(refused.stdout.contains("404 Not Found") && refused.stdout.contains("200 OK"), "{refused}");
    host.run(&format!("check web {}", backend(8, 80)));
    let client = fleet.endpoint(0, 5);
    let get = format!("for i in $(seq 20); do curl -sf http://{VIP}/name; done");
    assert_eq!(shell(&client, &get).replace('\n', " ").trim(), ["one"; 20].join(" "));
    assert_eq!(reasons(host), Vec::<String>::new());

    host.write("/run/nginx-two/name", "two\n");
    are(host, "up: up up");
    let told = monitor.kill().stdout;
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let turns: Vec<&str> = told
        .iter()
        .filter(|event| event["backend"] == backend(9, 80))
        .filter_map(|event| event["event"].as_str().filter(|kind| kind.starts_with("check")))
        .collect();
    assert_eq!(turns, ["check-down", "check-up"], "{told:?}");
    let metrics = host.sh("curl -s --unix-socket /run/fanlight/api.sock http://fanlight/metrics");
    assert!(metrics.contains("fanlight_checked_backends 2"), "{metrics}");
    drop((one, two));
}

#[test]
fn a_restart_takes_nobody_out_and_brings_nobody_back() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let server = fleet.endpoint(0, 9);
    let named = Named::start(&server, "one", overlay(0, 9), 8080);
    let all = [backend(9, 8080), backend(9, 8081)];
    configure(host, &[checked(&all, "kind = 'tcp'")]);
    let mut agent = host.agent();
    are(host, "up: up down(check-failed)");
    // From now on no check says anything new for a long time.
    configure(host, &[checked(&all, "kind = 'tcp', interval = '1h'")]);
    agent.reload();
    agent.kill9();
    let agent = host.agent();
    assert_eq!(states(host), "up: up down(check-failed)");
    let of = |place: usize| web(host)["backends"][place]["check"]["state"].clone();
    eventually("the checks have begun", SOON, || of(1).as_str().map(drop));
    assert_eq!((of(0), of(1)), ("up".into(), "down".into()));
    assert_eq!(states(host), "up: up down(check-failed)");
    drop((agent, named));
}

#[test]
fn if_all_fail_all_take_flows_and_that_is_told() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let (server, client) = (fleet.endpoint(0, 9), fleet.endpoint(0, 5));
    let named = [8080, 8081].map(|port| Named::start(&server, &port.to_string(), overlay(0, 9), port));
    host.write("/run/healthy", "");
    let command = "kind = 'command', command = 'test -e /run/healthy'";
    configure(host, &[checked(&[backend(9, 8080), backend(9, 8081)], command)]);
    let _agent = host.agent();
    are(host, "up: up up");
    fs::remove_file(host.path("/run/healthy")).expect("it was written");
    are(host, "all-down: down(check-failed) down(check-failed)");
    let want = "all-down: web: none of 2 backends is up, so that all take new flows";
    eventually("status tells it", SOON, || reasons(host).iter().any(|reason| reason == want).then_some(()));
    assert_eq!(found(&client, 20), ["8080", "8081"]);
    host.write("/run/healthy", "");
    are(host, "up: up up");
    eventually("it is over", SOON, || reasons(host).is_empty().then_some(()));
    drop(named);
}

#[test]
fn a_program_knows_its_backend_and_is_killed_with_all_it_started() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    // Of the second backend it never ends, and has started another.
    let line = "case $FANLIGHT_SERVICE.$FANLIGHT_BACKEND in *.9:8080) exit 0;; esac; sleep 7777 & wait";
    let check =
        format!("kind = 'command', command = '{}', timeout = '200ms'", line.replace("*.9", "web.250.0.27.9"));
    configure(host, &[checked(&[backend(9, 8080), backend(9, 8081)], &check)]);
    let agent = host.agent();
    are(host, "up: up down(check-failed)");
    let check = &web(host)["backends"][1]["check"];
    assert_eq!(check["reason"], "did not end within 200 ms and was killed");
    // More than the one that may be under way, or was just killed, would be left behind.
    let sleeping = || {
        shell(host, "ps -eo args | grep -c '^[s]leep 7777' || true").trim().parse::<u32>().expect("a number")
    };
    assert!(sleeping() <= 2);
    drop(agent.stop());
    eventually("all are killed", SOON, || (sleeping() == 0).then_some(()));
}

#[test]
fn https_trusts_the_ca_that_is_named_and_checks_the_name() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let server = fleet.endpoint(0, 9);
    shell(
        host,
        "cd /run && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout key.pem -out cert.pem \
         -subj /CN=web.test -addext subjectAltName=DNS:web.test -addext basicConstraints=critical,CA:FALSE 2>/dev/null",
    );
    let serving = "s_server -accept 8443 -cert /run/cert.pem -key /run/key.pem -www -quiet";
    let serving = server.command("openssl").args(serving.split(' ')).spawn();
    let tables = [
        ("named", "ca = '/run/cert.pem', host = 'web.test'"),
        ("other", "ca = '/run/cert.pem', host = 'other.test'"),
        ("system", "host = 'web.test'"),
        ("any", "insecure = true"),
    ];
    let tables = tables.iter().enumerate().map(|(place, (name, keys))| {
        let table = service(name, format!("10.96.0.{}:80/tcp", 20 + place), &[backend(9, 8443)]);
        format!("{table}check = {{ kind = 'https', timeout = '5s', interval = '1h', {keys} }}\n")
    });
    configure(host, &tables.collect::<Vec<_>>());
    let _agent = host.agent();
    let seen = |name: &str| {
        let row = host.json(&format!("check {name}"))[0].clone();
        (row["passed"].as_bool().unwrap_or_default(), row["reason"].as_str().unwrap_or_default().to_owned())
    };
    eventually("the server listens", SOON, || seen("any").0.then_some(()));
    assert!(seen("named").0, "{:?}", seen("named"));
    for name in ["other", "system"] {
        let (passed, reason) = seen(name);
        assert!(!passed && reason.starts_with("tls: "), "{name}: {reason}");
    }
    serving.kill();
}

#[test]
fn flows_of_a_backend_that_fails_stay_or_end_as_is_asked_for() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let (server, client) = (fleet.endpoint(0, 9), fleet.endpoint(0, 5));
    let named = Named::start(&server, "one", overlay(0, 9), 8080);
    let spare = Named::start(&server, "spare", overlay(0, 9), 8081);
    let all = [backend(9, 8080), backend(9, 8081)];
    let command = "kind = 'command', command = 'test ! -e /run/ill-$FANLIGHT_BACKEND'";
    for on_down in ["keep", "reset"] {
        configure(host, &[format!("{}on-down = '{on_down}'\n", checked(&all, command))]);
        let agent = host.agent();
        are(host, "up: up up");
        let flow = || Greeted::connect(&client, VIP).expect("a backend answers");
        let mut flow =
            eventually("a flow to the first", SOON, || Some(flow()).filter(|flow| flow.name == "one"));
        host.write(&format!("/run/ill-{}", all[0]), "");
        are(host, "up: down(check-failed) up");
        let goes_on = flow.echo(b"hello").is_ok();
        assert_eq!(goes_on, on_down == "keep", "{on_down}");
        fs::remove_file(host.path(&format!("/run/ill-{}", all[0]))).expect("it was written");
        drop(agent.stop());
    }
    drop((named, spare));
}

#[test]
fn what_a_contributor_finds_holds_on_all_nodes() {
    let fleet = clustered(3);
    let _agents = started(&fleet);
    let server = fleet.endpoint(1, 9);
    let named = [8080, 8081].map(|port| Named::start(&server, &port.to_string(), overlay(1, 9), port));
    let [first, second] = [8080, 8081].map(|port| format!("{}:{port}", overlay(1, 9)));
    apply(&fleet[0], &checked(&[], "kind = 'tcp'"));
    fleet[1].run(&format!("backend add web {first}"));
    fleet[1].run(&format!("backend add web {second}"));
    let vip = format!("{VIP}/tcp");
    becomes(&fleet, &[0, 1, 2], "web", &format!("{vip} up {first}=up {second}=up"), SOON);
    // Who contributes it checks it.
    let checks = |host: usize| web(&fleet[host])["backends"][0].get("check").is_some();
    assert_eq!([0, 1, 2].map(checks), [false, true, false]);
    let [one, other] = named;
    drop(other);
    becomes(&fleet, &[0, 1, 2], "web", &format!("{vip} up {first}=up {second}=down"), SOON);
    drop(one);
    becomes(&fleet, &[0, 1, 2], "web", &format!("{vip} all-down {first}=down {second}=down"), SOON);
    let named = Named::start(&server, "again", overlay(1, 9), 8081);
    becomes(&fleet, &[0, 1, 2], "web", &format!("{vip} up {first}=down {second}=up"), SOON);
    drop(named);
}

#[test]
fn three_members_check_what_no_member_has_and_two_of_them_take_it_out() {
    let fleet = clustered(4);
    let _agents = started(&fleet);
    let outside = fleet.stranger("outside", OUTSIDE);
    let named = [8080, 8081].map(|port| Named::start(&outside, &port.to_string(), OUTSIDE, port));
    let [first, second] = [8080, 8081].map(|port| format!("{OUTSIDE}:{port}"));
    apply(
        &fleet[0],
        &checked(&[first.clone(), second.clone()], "kind = 'tcp', timeout = '200ms', interval = '100ms'"),
    );
    let (vip, all) = (format!("{VIP}/tcp"), [0, 1, 2, 3]);
    let both = format!("{vip} up {first}=up {second}=up");
    becomes(&fleet, &all, "web", &both, SOON);
    let checks = |host: &usize| web(&fleet[*host])["backends"][0].get("check").is_some();
    let checkers: Vec<usize> = all.into_iter().filter(checks).collect();
    assert_eq!(checkers.len(), 3, "{checkers:?}");
    let cut = |host: usize| {
        let rules = format!(
            "table ip cut {{\nchain out {{\ntype filter hook output priority 0;\nip daddr {OUTSIDE} tcp dport 8080 drop\n}}\n}}\n"
        );
        fleet[host].command("nft").args(["-f", "-"]).input(rules).ok();
        let state = || web(&fleet[host])["backends"][0]["check"]["state"] == "down";
        eventually("it finds the backend down", SOON, || state().then_some(()));
    };
    cut(checkers[0]);
    becomes(&fleet, &all, "web", &both, SOON);
    cut(checkers[1]);
    becomes(&fleet, &all, "web", &format!("{vip} up {first}=down {second}=up"), SOON);
    drop(named);
}
