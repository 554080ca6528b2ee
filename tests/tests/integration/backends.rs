//! Backends that a node contributes beside a service's definition.

use std::{fs, time::Duration};

use fanlight_tests::{
    Host, eventually,
    fleet::{Fleet, overlay},
    server::{Greeted, Named},
    services::{configure, service as table},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
const FIRST: &str = "250.0.27.9:8080";
const SECOND: &str = "250.0.27.10:8080";

fn own(host: &Host, words: &str) -> Value {
    host.json(&format!("backend list {words}"))
}

fn row(service: &str, address: &str, weight: u32) -> Value {
    json!({"service": service, "address": address, "weight": weight})
}

/// Weights by address, as the service has them.
fn weights(host: &Host, service: &str) -> Vec<(String, u64)> {
    let shown = host.json(&format!("service show {service}"));
    let one = |backend: &Value| {
        let address = backend["address"].as_str().unwrap_or_default().to_owned();
        (address, backend["weight"].as_u64().unwrap_or_default())
    };
    shown["backends"].as_array().into_iter().flatten().map(one).collect()
}

fn refused(host: &Host, words: &str) -> String {
    host.fanlight(words.split_whitespace()).exits(1).stderr
}

#[test]
fn a_backend_that_is_added_serves_and_outlives_restart_and_reload() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    configure(host, &[table("web", "10.96.0.10:80/tcp", &[])]);
    let mut agent = host.agent();
    let (server, client) = (fleet.endpoint(0, 9), fleet.endpoint(0, 5));
    let _server = Named::start(&server, "one", overlay(0, 9), 8080);
    let added = host.json(&format!("backend add web {FIRST}"));
    assert_eq!(added, json!({"service": "web", "address": FIRST, "weight": 1, "changed": true}));
    let vip = "10.96.0.10:80".parse().expect("an address and a port");
    assert_eq!(Greeted::connect(&client, vip).expect("the backend answers").name, "one");

    host.run(&format!("backend add web {FIRST} --weight 7"));
    let again = host.json(&format!("backend add web {FIRST}"));
    assert_eq!(again, json!({"service": "web", "address": FIRST, "weight": 7, "changed": false}));
    host.run(&format!("backend add web {SECOND} --weight 0"));
    let both = json!([row("web", FIRST, 7), row("web", SECOND, 0)]);
    assert_eq!((own(host, "web"), own(host, "")), (both.clone(), both.clone()));
    agent.kill9();
    agent = host.agent();
    assert_eq!(own(host, ""), both);
    configure(host, &[table("web", "10.96.0.11:80/tcp", &[FIRST.to_owned()])]);
    agent.reload();
    assert_eq!(
        weights(host, "web"),
        [(FIRST.to_owned(), 1), (SECOND.to_owned(), 0)],
        "the file's weight holds"
    );
    let of_file =
        format!("backend {FIRST} of service web is of /etc/fanlight/fanlight.toml; change it there");
    let words = format!("backend add web {FIRST} --weight 9");
    assert!(refused(host, &words).contains(&of_file), "{}", refused(host, &words));
    configure(host, &[table("web", "10.96.0.11:80/tcp", &[])]);
    agent.reload();
    assert_eq!(own(host, ""), both);

    let removed = host.json(&format!("backend remove web {FIRST}"));
    assert_eq!(removed, json!({"service": "web", "address": FIRST, "weight": 7, "changed": true}));
    assert_eq!(own(host, ""), json!([row("web", SECOND, 0)]));
    let why = format!("service web has no backend {FIRST}; it has {SECOND}");
    assert!(refused(host, &format!("backend remove web {FIRST}")).contains(&why));

    // What is contributed ends with the service.
    configure(host, &[]);
    agent.reload();
    eventually("nothing is contributed", SOON, || (own(host, "") == json!([])).then_some(()));
    configure(host, &[table("web", "10.96.0.11:80/tcp", &[])]);
    eventually("the contribution is out of the log", SOON, || {
        let log = fs::read_to_string(host.path("/var/lib/fanlight/services")).expect("the log");
        log.lines().last().is_some_and(|line| line.contains("withdraw")).then_some(())
    });
    agent.reload();
    assert_eq!(own(host, ""), json!([]));
}

#[test]
fn a_backend_that_can_t_be_one_is_refused_and_one_of_a_file_is_the_files() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    configure(
        host,
        &[table("web", "10.96.0.10:80/tcp", &[FIRST.to_owned()]), table("any", "10.96.0.11:0/tcp", &[])],
    );
    let agent = host.agent();
    host.write("/run/db.toml", &table("db", "10.96.0.12:80/tcp", &[FIRST.to_owned()]));
    host.run("service apply -f /run/db.toml");
    let said = [
        ("backend add api 250.0.27.9:80", "no service 'api'; see 'fanlight service list'"),
        ("backend remove api 250.0.27.9:80", "no service 'api'; see 'fanlight service list'"),
        ("backend list api", "no service 'api'; see 'fanlight service list'"),
        ("backend add web 10.96.0.11:80", "10.96.0.11 is the VIP of service any; name its backends"),
        ("backend add web 127.0.0.1:80", "127.0.0.1 is a loopback address; give an address of the backend"),
        ("backend add web 250.0.27.7:0", "port 0 is for VIPs of any port; name the one that serves port 80"),
        ("backend add any 250.0.27.7:80", "port 80 can't serve a VIP of any port; use port 0"),
        ("backend remove web 250.0.27.9:8080", "is of /etc/fanlight/fanlight.toml; change it there"),
    ];
    for (words, why) in said {
        let refused = refused(host, words);
        assert!(refused.contains(why), "{words}: {refused}");
    }
    assert_eq!(host.json(&format!("backend add web {FIRST}"))["changed"], false);
    // One that was applied is this node's, too.
    host.run(&format!("backend remove db {FIRST}"));
    host.run(&format!("backend add db {SECOND}"));
    assert_eq!(own(host, "db"), json!([row("db", SECOND, 1)]));
    host.run("service apply -f /run/db.toml");
    assert_eq!(own(host, "db"), json!([row("db", FIRST, 1)]), "an apply replaces them");
    drop(agent);
    let without = refused(host, "backend list");
    assert!(without.contains("backend list: no agent is running"), "{without}");
}
