use std::time::Duration;

use control::{
    health::{Check, Checking, Http, OnDown, Probe, Tls},
    service::Declared,
};

use crate::sources::config::{format::Format, service::parse as parse_services};

const SERVICE: &str = "[[service]]\nname = 'web'\nvip = '10.96.0.10:80/tcp'\nbackends = []\n";

fn parse(lines: &str) -> Result<Vec<Declared>, Vec<String>> {
    let text = format!("{SERVICE}{lines}\n");
    let services = parse_services(&text, Format::Toml);
    services
        .map(|services| services.into_iter().map(|placed| placed.service).collect())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn checking(lines: &str) -> Checking {
    let services = parse(lines).unwrap();
    services[0].checking.as_deref().cloned().unwrap()
}

fn problem(lines: &str) -> String {
    let problems = parse(lines).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.into_iter().next().unwrap()
}

#[test]
fn what_is_not_given_is_as_usual() {
    let checking = checking("check = { kind = 'tcp' }");
    assert_eq!(checking, Checking { check: Check::new(Probe::Tcp).into(), on_down: OnDown::Keep });
    let Check { interval, fast_interval, timeout, rise, fall, .. } = *checking.check;
    assert_eq!((interval, fast_interval, timeout), (Check::INTERVAL, Check::FAST_INTERVAL, Check::TIMEOUT));
    assert_eq!((rise, fall), (2, 3));
    let quick = self::checking("check = { kind = 'tcp', interval = '200ms' }").check;
    assert_eq!(
        (quick.interval, quick.fast_interval),
        (Duration::from_millis(200), Duration::from_millis(200))
    );
}

#[test]
fn each_kind_has_its_keys() {
    let all = "check = { kind = 'https', path = '/health?a=b', host = 'www.example.org', method = 'HEAD', expect = '200,301-302', \
               ca = '/etc/ca.pem', interval = '2s', fast-interval = '500ms', timeout = '1500ms', rise = 1, fall = 5, port = 8443 }\n\
               on-down = 'reset'";
    let Checking { check, on_down } = checking(all);
    let http = Http {
        tls: Some(Tls { ca: Some("/etc/ca.pem".to_owned()), insecure: false }),
        path: "/health?a=b".to_owned(),
        host: Some("www.example.org".to_owned()),
        method: "HEAD".to_owned(),
        expect: "200,301-302".parse().unwrap(),
    };
    assert_eq!((on_down, &check.probe), (OnDown::Reset, &Probe::Http(http)));
    assert_eq!((check.rise, check.fall, check.port), (1, 5, Some(8443)));
    let words = |lines| checking(lines).check.probe.clone();
    assert_eq!(
        words("check = { kind = 'command', command = 'test -e /tmp/a' }"),
        Probe::Command(["/bin/sh", "-c", "test -e /tmp/a"].map(str::to_owned).into())
    );
    assert_eq!(
        words("check = { kind = 'command', command = ['test', '-e', '/tmp/a b'] }"),
        Probe::Command(["test", "-e", "/tmp/a b"].map(str::to_owned).into())
    );
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = "service:\n- name: web\n  vip: 10.96.0.10:80/tcp\n  backends: []\n  check: {kind: http, path: /health, rise: 3}\n";
    let json = r#"{"service": [{"name": "web", "vip": "10.96.0.10:80/tcp", "backends": [],
                   "check": {"kind": "http", "path": "/health", "rise": 3}}]}"#;
    let of = |text, format| parse_services(text, format).unwrap().remove(0).service;
    let toml = parse("check = { kind = 'http', path = '/health', rise = 3 }").unwrap().remove(0);
    assert_eq!((of(yaml, Format::Yaml), of(json, Format::Json)), (toml.clone(), toml));
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_a_remedy() {
    for (lines, want) in [
        ("check = { }", "kind: is missing; use tcp, http, https or command"),
        ("check = { kind = 'icmp' }", "kind: 'icmp' is unknown; use tcp, http, https or command"),
        ("check = 'http'", "is a string, must be a table; write check = { .. }"),
        ("check = { kind = 'tcp', intervall = '1s' }", "intervall: unknown key; did you mean 'interval'?"),
        (
            "check = { kind = 'tcp', path = '/' }",
            "path: is a key of http and https, and not of tcp; remove it",
        ),
        ("check = { kind = 'http', ca = '/a' }", "ca: is a key of https, and not of http; remove it"),
        (
            "check = { kind = 'http', command = 'a' }",
            "command: is a key of command, and not of http; remove it",
        ),
        (
            "check = { kind = 'command', command = 'a', port = 1 }",
            "port: is a key of tcp, http and https, and not of command; remove it",
        ),
        ("check = { kind = 'command' }", "command: is missing; add a list such as"),
        ("check = { kind = 'command', command = [''] }", "command: names no program; put one first"),
        ("check = { kind = 'http', path = 'health' }", "path: 'health' is no path of a request"),
        ("check = { kind = 'http', path = \"/a b\" }", "path: '/a b' is no path of a request"),
        ("check = { kind = 'http', host = \"a\\r\\nb\" }", "host: "),
        ("check = { kind = 'http', method = 'get' }", "method: 'get' is no method here; use one such as GET"),
        ("check = { kind = 'http', expect = '2xx' }", "expect: '2xx' names no statuses"),
        ("check = { kind = 'https', ca = 'ca.pem' }", "ca: 'ca.pem' is no file's whole path; begin with '/'"),
        (
            "check = { kind = 'https', ca = '/a', insecure = true }",
            "insecure: says that any certificate passes, and ca which",
        ),
        ("check = { kind = 'tcp', interval = '0s' }", "interval: '0s' is out of range; use 10ms to 24h"),
        ("check = { kind = 'tcp', interval = '5' }", "interval: '5' is no length of time"),
        (
            "check = { kind = 'tcp', fast-interval = '6s' }",
            "fast-interval: is longer than interval, 5s; use a shorter one",
        ),
        ("check = { kind = 'tcp', timeout = '301s' }", "timeout: '301s' is out of range; use 10ms to 5m"),
        ("check = { kind = 'tcp', rise = 0 }", "rise: 0 is out of range; use 1 to 1000"),
        ("check = { kind = 'tcp', port = 65536 }", "port: 65536 is no port; use 1 to 65535"),
    ] {
        let found = problem(lines);
        assert!(found.starts_with("5: service.check") && found.contains(want), "{lines}\n{found}");
    }
    assert!(
        problem("on-down = 'reset'")
            .starts_with("5: service.on-down: is about backends that a check takes out")
    );
    assert!(
        problem("check = { kind = 'tcp' }\non-down = 'drop'")
            .contains("'drop' is unknown; use keep or reset")
    );
}

#[test]
fn backends_without_ports_need_one_of_the_check_s_own() {
    let any = |check: &str| {
        let text =
            format!("[[service]]\nname = 'web'\nvip = '10.96.0.10:0/tcp'\nbackends = []\ncheck = {check}\n");
        parse_services(&text, Format::Toml).map(drop).map_err(|problems| problems[0].to_string())
    };
    assert!(any("{ kind = 'tcp' }").unwrap_err().contains("service.check.port: is missing"));
    any("{ kind = 'tcp', port = 22 }").unwrap();
    any("{ kind = 'command', command = 'true' }").unwrap();
}
