//! Directories of service files: followed without a reload, and never emptied by a fault.

use std::{fs, time::Duration};

use fanlight_tests::{
    Host, eventually,
    fleet::Fleet,
    services::{configure, service as table},
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
const FOLDER: &str = "/etc/fanlight/services.d";
const FILE: &str = "/etc/fanlight/fanlight.toml";

fn source(path: &str) -> String {
    format!("[[source]]\nkind = \"directory\"\npath = \"{path}\"\n")
}

/// A host whose configuration lists the directory.
fn one() -> Fleet {
    let fleet = Fleet::bare(1);
    configure(&fleet[0], &[source(FOLDER)]);
    fs::create_dir(fleet[0].path(FOLDER)).expect("a new directory");
    fleet
}

fn service(name: &str, last: u8, backends: &[&str]) -> String {
    let backends: Vec<String> = backends.iter().map(ToString::to_string).collect();
    table(name, format!("10.96.0.{last}:80/tcp"), &backends)
}

/// Puts a file in place by a rename.
fn put(host: &Host, name: &str, text: &str) {
    let fresh = format!("{FOLDER}/.{name}");
    host.write(&fresh, text);
    fs::rename(host.path(&fresh), host.path(&format!("{FOLDER}/{name}")))
        .expect("a file in the place of another");
}

/// What packets find: services with their VIPs, by name.
fn served(host: &Host) -> Vec<String> {
    let services = host.json("status")["services"].clone();
    let one = |service: &Value| {
        assert_ne!(service["state"], "failed", "{service}");
        format!(
            "{} {}",
            service["name"].as_str().unwrap_or_default(),
            service["vip"].as_str().unwrap_or_default()
        )
    };
    services.as_array().into_iter().flatten().map(one).collect()
}

#[track_caller]
fn serves(host: &Host, expected: &[&str]) {
    eventually(&format!("{expected:?} are served"), SOON, || (served(host) == expected).then_some(()));
}

fn degraded(host: &Host) -> Vec<String> {
    let reasons = host.json("status")["degraded"].clone();
    reasons.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[track_caller]
fn is_degraded_by(host: &Host, starts: &[&str]) {
    let seen = || {
        let reasons = degraded(host);
        let is_so = reasons.len() == starts.len()
            && reasons.iter().zip(starts).all(|(reason, start)| reason.starts_with(start));
        is_so.then_some(())
    };
    eventually(&format!("{starts:?} are the reasons of {:?}", degraded(host)), SOON, seen);
}

#[test]
fn services_of_a_directory_are_served_changed_and_gone_with_their_files() {
    let fleet = one();
    let host = &fleet[0];
    put(host, "web.toml", &service("web", 1, &["250.0.27.2:80"]));
    let _agent = host.agent();
    assert_eq!(served(host), ["web 10.96.0.1:80/tcp"]);
    put(
        host,
        "db.yaml",
        "service:\n- name: db\n  vip: 10.96.0.2:80/tcp\n  backends: [ { address: \"250.0.27.3:80\" } ]\n",
    );
    put(host, "api.json", r#"{"service": [{"name": "api", "vip": "10.96.0.3:80/tcp", "backends": []}]}"#);
    serves(host, &["api 10.96.0.3:80/tcp", "db 10.96.0.2:80/tcp", "web 10.96.0.1:80/tcp"]);
    for last in 4..7 {
        put(host, "web.toml", &service("web", last, &[]));
        serves(host, &["api 10.96.0.3:80/tcp", "db 10.96.0.2:80/tcp", &format!("web 10.96.0.{last}:80/tcp")]);
    }
    fs::remove_file(host.path(&format!("{FOLDER}/db.yaml"))).expect("the file is there");
    serves(host, &["api 10.96.0.3:80/tcp", "web 10.96.0.6:80/tcp"]);
    assert_eq!(degraded(host), [""; 0]);
}

#[test]
fn a_wrong_file_keeps_what_it_said_and_names_file_line_and_key() {
    let fleet = one();
    let host = &fleet[0];
    put(host, "web.toml", &service("web", 1, &[]));
    let agent = host.agent();
    put(host, "web.toml", "[[service]]\nname = 'web'\nvip = '10.96.0.1'\nbackends = []\n");
    put(host, "db.toml", &service("db", 2, &[]));
    let wrong = format!("source-file {FOLDER}/web.toml:3: service.vip: ");
    is_degraded_by(host, &[&wrong]);
    serves(host, &["db 10.96.0.2:80/tcp", "web 10.96.0.1:80/tcp"]);
    let checked = host.fanlight(["check-config"]).exits(1).stderr;
    assert!(checked.contains(&format!("{FOLDER}/web.toml:3: service.vip: ")), "{checked}");

    // What the kernel holds of a file that is wrong from the start stays, too.
    agent.kill9();
    let _agent = host.agent();
    is_degraded_by(host, &[&wrong]);
    let routed = host.ip("route show 10.96.0.1");
    assert!(routed.contains("dev fanlight0"), "{routed}");
    put(host, "web.toml", &service("web", 1, &[]));
    serves(host, &["db 10.96.0.2:80/tcp", "web 10.96.0.1:80/tcp"]);
    is_degraded_by(host, &[]);
}

#[test]
fn a_directory_that_is_missing_takes_nothing_away_and_one_that_is_empty_does() {
    let fleet = one();
    let host = &fleet[0];
    put(host, "web.toml", &service("web", 1, &["250.0.28.2:80"]));
    let mut agent = host.agent();
    host.run("service drain web 250.0.28.2:80");
    let aside = "/etc/fanlight/aside";
    fs::rename(host.path(FOLDER), host.path(aside)).expect("a directory that moves");
    let lost = format!("source-lost {FOLDER}: No such file or directory");
    is_degraded_by(host, &[&lost]);
    assert_eq!(served(host), ["web 10.96.0.1:80/tcp"]);
    agent.reload();
    assert_eq!(served(host), ["web 10.96.0.1:80/tcp"], "nor does a reload");

    // Nobody names the service any more, and the kernel goes on serving it.
    agent.kill9();
    let route = || host.ip("route show 10.96.0.1").trim().to_owned();
    let agent = host.agent();
    is_degraded_by(host, &[&lost]);
    assert!(route().contains("dev fanlight0"), "{}", route());
    fs::rename(host.path(aside), host.path(FOLDER)).expect("a directory that moves back");
    serves(host, &["web 10.96.0.1:80/tcp"]);
    is_degraded_by(host, &[]);
    let drained = host.json("service show web")["backends"][0]["state"].clone();
    assert_eq!(drained, "drained", "a mark outlives what is lost");

    fs::remove_file(host.path(&format!("{FOLDER}/web.toml"))).expect("the file is there");
    serves(host, &[]);
    assert_eq!(route(), "");
    drop(agent);
}

#[test]
fn a_directory_s_service_is_changed_only_there_and_comes_after_the_file_s() {
    let fleet = one();
    let host = &fleet[0];
    put(host, "web.toml", &service("web", 1, &[]));
    let mut agent = host.agent();
    host.write("/run/web.toml", &service("web", 7, &[]));
    let place = format!("service web is of {FOLDER}/web.toml; change it there");
    for words in ["service apply -f /run/web.toml", "service remove web"] {
        let refused = host.fanlight(words.split(' ')).exits(1).stderr;
        assert!(refused.contains(&place), "{refused}");
    }
    host.write("/run/db.toml", &service("db", 2, &[]));
    host.run("service apply -f /run/db.toml");
    put(host, "db.toml", &service("db", 3, &[]));
    serves(host, &["db 10.96.0.3:80/tcp", "web 10.96.0.1:80/tcp"]);
    is_degraded_by(host, &[&format!("service db: {FOLDER}/db.toml has it too, and is followed; ")]);

    configure(host, &[source(FOLDER), service("web", 4, &[])]);
    agent.reload();
    assert_eq!(served(host), ["db 10.96.0.3:80/tcp", "web 10.96.0.4:80/tcp"]);
    let reasons = degraded(host);
    assert!(
        reasons
            .iter()
            .any(|reason| reason.starts_with(&format!("service web: {FILE} has it too, and is followed;"))),
        "{reasons:?}"
    );
    // A source that is listed no more takes its services along; what it hid comes back.
    configure(host, &[]);
    agent.reload();
    assert_eq!((served(host), degraded(host)), (vec!["db 10.96.0.2:80/tcp".to_owned()], vec![]));
    put(host, "late.toml", &service("late", 9, &[]));
    configure(host, &[source(FOLDER)]);
    agent.reload();
    assert_eq!(served(host), ["db 10.96.0.3:80/tcp", "late 10.96.0.9:80/tcp", "web 10.96.0.1:80/tcp"]);
}
