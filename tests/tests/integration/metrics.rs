//! The API by TCP: metrics, reading, and nothing else.

use std::{net::TcpListener, time::Duration};

use fanlight_tests::{
    Host, close, eventually,
    fleet::{Fleet, overlay},
    server::{Greeted, Named},
    services::{configure, service as table},
};

const SOON: Duration = Duration::from_secs(10);
const LISTEN: &str = "127.0.0.1:7480";

fn listen(address: &str) -> String {
    format!("[api]\nlisten = \"{address}\"\n")
}

/// Asks by TCP; status and body.
fn curl(host: &Host, path: &str, options: &[&str]) -> (String, String) {
    let url = format!("http://{LISTEN}{path}");
    let words = ["-sS", "--max-time", "5", "-w", "\n%{http_code}", &url];
    let output = host.command("curl").args(words).args(options).ok();
    let (body, status) = output.rsplit_once('\n').expect("the status on a line of its own");
    (status.to_owned(), body.to_owned())
}

fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn degraded(host: &Host) -> String {
    host.json("status")["degraded"].to_string()
}

#[test]
fn metrics_say_what_the_node_serves_and_what_became_of_its_packets() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let backends = [format!("{}:8080", overlay(0, 9)), "250.0.28.9:8080".to_owned()];
    configure(host, &[listen(LISTEN), table("web", "10.96.0.10:80/tcp", &backends)]);
    let _agent = host.agent();
    let (server, client) = (fleet.endpoint(0, 9), fleet.endpoint(0, 5));
    let _server = Named::start(&server, "one", overlay(0, 9), 8080);
    host.run("service drain web 250.0.28.9:8080");
    let scrape = || curl(host, "/metrics", &[]).1;
    let up = "fanlight_backends{state=\"up\"}";
    eventually("the backend is there", SOON, || (metric(&scrape(), up) == Some(1.0)).then_some(()));
    let mut greeted =
        Greeted::connect(&client, "10.96.0.10:80".parse().expect("an address")).expect("the backend answers");
    greeted.echo(&[7; 1000]).expect("bytes come back");

    let is_counted = || (metric(&scrape(), "fanlight_flows") == Some(1.0)).then_some(());
    eventually("the flow is counted", SOON, is_counted);
    let text = scrape();
    assert_eq!(metric(&text, "fanlight_services"), Some(1.0));
    assert_eq!(metric(&text, "fanlight_backends{state=\"drained\"}"), Some(1.0));
    assert!(metric(&text, "fanlight_map_memory_bytes{tables=\"flows\"}") > Some(1e6), "{text}");
    let status = host.json("status");
    let outcomes = status["outcomes"].as_object().expect("outcomes");
    for (outcome, packets) in outcomes {
        let counted = metric(&text, &format!("fanlight_packets_total{{outcome=\"{outcome}\"}}"));
        let counted = counted.unwrap_or_else(|| panic!("no metric of outcome {outcome}:\n{text}"));
        assert!(counted <= packets.as_f64().unwrap_or_default(), "{outcome}: {counted} of {packets}");
    }
    assert!(outcomes.values().any(|packets| packets.as_u64() > Some(0)));
    assert!(text.ends_with("# EOF\n"), "{text}");
    let socket = host.command("curl").args([
        "-sS",
        "--unix-socket",
        "/run/fanlight/api.sock",
        "http://fanlight/metrics",
        "-o",
        "/dev/null",
        "-w",
        "%{content_type}",
    ]);
    assert_eq!(socket.ok(), "application/openmetrics-text; version=1.0.0; charset=utf-8");
}

#[test]
fn readers_by_tcp_change_nothing_and_ask_for_this_host() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    configure(host, &[listen(LISTEN), table("web", "10.96.0.10:80/tcp", &[])]);
    let _agent = host.agent();
    assert_eq!(curl(host, "/healthz", &[]), ("200".to_owned(), "ok\n".to_owned()));
    let (status, body) = curl(host, "/v1/services/web", &[]);
    assert!(status == "200" && body.contains("10.96.0.10:80/tcp"), "{status} {body}");
    assert_eq!(curl(host, "/v1/services?flows=no", &[]).0, "200");
    let changes: [(&str, &[&str]); 4] = [
        ("/v1/services/web", &["-X", "DELETE"]),
        ("/v1/services", &["-X", "POST", "-H", "content-type: application/toml", "-d", ""]),
        ("/v1/services/web/backends/250.0.27.9:80", &["-X", "PUT"]),
        ("/v1/reload", &["-X", "POST"]),
    ];
    for (path, options) in changes {
        let (status, body) = curl(host, path, options);
        assert!(status == "405" || status == "404", "{path}: {status} {body}");
    }
    assert_eq!(host.json("service list").as_array().map(Vec::len), Some(1));
    for (name, status) in [("evil.example", "421"), ("localhost:7480", "200"), ("10.0.0.1", "200")] {
        assert_eq!(curl(host, "/metrics", &["-H", &format!("Host: {name}")]).0, status, "{name}");
    }
}

#[test]
fn an_address_that_is_taken_is_told_until_it_is_free_and_refused_at_a_reload() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    let taken = |address: &str| host.inside(|| TcpListener::bind(address)).expect("a free address");
    let other = taken(LISTEN);
    configure(host, &[listen(LISTEN)]);
    let mut agent = host.agent();
    let taken_reason = format!("api-listen {LISTEN}: Address already in use");
    eventually("it is told", SOON, || degraded(host).contains(&taken_reason).then_some(()));
    close(other);
    eventually("it is answered", SOON, || (degraded(host) == "[]").then_some(()));
    assert_eq!(curl(host, "/healthz", &[]).0, "200");

    let other = taken("127.0.0.1:7481");
    configure(host, &[listen("127.0.0.1:7481")]);
    let refused = host.fanlight(["reload"]).exits(1).stderr;
    agent.wait_for("READY=1", SOON);
    assert!(refused.contains("api-listen 127.0.0.1:7481: Address already in use"), "{refused}");
    assert_eq!(curl(host, "/healthz", &[]).0, "200", "the former goes on");
    close(other);
    agent.reload();
    let there = host.command("curl").args(["-sS", "http://127.0.0.1:7481/healthz"]).ok();
    assert_eq!(there.trim(), "ok");
    configure(host, &[]);
    agent.reload();
    let gone = host.command("curl").args(["-sS", "--max-time", "5", "http://127.0.0.1:7481/healthz"]).run();
    assert!(gone.stderr.contains("connect"), "{gone}");
}
