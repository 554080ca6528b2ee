//! Health checks: what fails them takes no new flows, on this node alone and in a cluster.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use fanlight_tests::{
    Host, Site, api, eventually,
    fleet::{Fleet, OUTSIDE, overlay},
    nginx::Nginx,
    server::{Greeted, Named},
    services::{configure, service},
};
use rcgen::{CertifiedKey, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer};
use serde_json::Value;

use super::{
    cluster::{reasons, started},
    cluster_services::{apply, becomes, clustered},
};

const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
/// Checks come every 100 ms here; the rest is what a loaded machine takes.
const SOON: Duration = Duration::from_secs(10);

/// A page of a web server.
fn page(client: &Site, path: &str) -> String {
    client.inside(|| {
        let mut stream = TcpStream::connect(VIP).expect("a backend takes the connection");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("it takes a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer.rsplit("\r\n").next().unwrap_or_default().trim().to_owned()
    })
}

/// How many processes run with these words.
fn running(words: &str) -> usize {
    let line: Vec<u8> = words.split(' ').flat_map(|word| word.bytes().chain([0])).collect();
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes.filter(|one| fs::read(one.path().join("cmdline")).is_ok_and(|own| own == line)).count()
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

/// A web server by TLS, for as long as the value lives.
struct TlsServer(Arc<AtomicBool>);

impl TlsServer {
    fn start(site: &Site, own: CertifiedKey<KeyPair>, at: SocketAddrV4) -> Self {
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()).into();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![own.cert.into()], key));
        let config = Arc::new(config.expect("a certificate and its key"));
        let listener = site.bound(|| TcpListener::bind(at));
        listener.set_nonblocking(true).expect("a listener can be asked");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => drop(answer(stream, &config)),
                    Err(_nobody) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self(is_over)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn answer(stream: TcpStream, config: &Arc<ServerConfig>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SOON))?;
    let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    let mut head = [0; 1024];
    if tls.read(&mut head)? > 0 {
        tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
    Ok(())
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
    thread::sleep(Duration::from_millis(300));

    fs::remove_file(host.path("/run/nginx-two/name")).expect("its page");
    are(host, "up: up down(check-failed)");
    let check = &web(host)["backends"][1]["check"];
    assert_eq!((&check["state"], &check["passed"]), (&"down".into(), &false.into()), "{check}");
    assert_eq!(check["reason"], "404 Not Found", "{check}");
    let refused = host.fanlight(["check", "web"]).exits(1);
    assert!(refused.stdout.contains("404 Not Found") && refused.stdout.contains("200 OK"), "{refused}");
    host.run(&format!("check web {}", backend(8, 80)));
    let client = fleet.endpoint(0, 5);
    let pages: BTreeSet<String> = (0..20).map(|_| page(&client, "/name")).collect();
    assert_eq!(pages, ["one".to_owned()].into());
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
    let metrics = api::ask(host, "GET", "/metrics", "").expect("the agent answers").body;
    assert!(String::from_utf8_lossy(&metrics).contains("fanlight_checked_backends 2"));
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
    let sleeping = || running("sleep 7777");
    assert!(sleeping() <= 2);
    drop(agent.stop());
    eventually("all are killed", SOON, || (sleeping() == 0).then_some(()));
}

#[test]
fn https_trusts_the_ca_that_is_named_and_checks_the_name() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let server = fleet.endpoint(0, 9);
    let names = vec!["web.test".to_owned()];
    let own = rcgen::generate_simple_self_signed(names).expect("a certificate");
    host.write("/run/cert.pem", &own.cert.pem());
    let _serving = TlsServer::start(&server, own, SocketAddrV4::new(overlay(0, 9), 8443));
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
    for name in ["any", "named"] {
        assert_eq!(seen(name), (true, "200 OK".to_owned()), "{name}");
    }
    for name in ["other", "system"] {
        let (passed, reason) = seen(name);
        assert!(!passed && reason.starts_with("tls: "), "{name}: {reason}");
    }
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
