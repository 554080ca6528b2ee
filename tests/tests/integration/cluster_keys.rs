//! Keys that members share: on all of them within moments, on disk before they are acknowledged, equal after any partition.

use std::{
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{Host, api, eventually, fleet::Fleet};
use serde_json::Value;

use super::cluster::{DEAD, JOINED, LOOK, TOLD, are_members, becomes, cluster, is_degraded, started, state};

/// All members have a key; the rest is what answers of the API take on a loaded machine.
const KNOWN: Duration = Duration::from_millis(500);
/// What was missed is compared within ten seconds or so.
const COMPARED: Duration = Duration::from_secs(20);
const STORE: &str = "/var/lib/fanlight/cluster.redb";

/// A key as a host's agent has it; none where there is no such key.
fn key(host: &Host, key: &str) -> Option<Value> {
    let answer = api::ask(host, "GET", &format!("/v1/kv/{key}"), "").expect("the agent answers");
    (answer.status == 200).then(|| serde_json::from_slice(&answer.body).expect("JSON"))
}

/// Waits until all hosts have this value at a key.
#[track_caller]
fn is_everywhere(fleet: &Fleet, name: &str, value: Option<&str>, limit: Duration) {
    for host in fleet.hosts() {
        let has = || key(host, name).map(|key| key["value"].as_str().map(str::to_owned));
        let what = format!("{name} is {value:?} on {}", host.name());
        eventually(&what, limit, || (has().flatten().as_deref() == value).then_some(()));
    }
}

#[test]
fn a_key_is_known_to_all_members_at_once_with_its_version_and_writer() {
    let fleet = cluster(3);
    let _agents = started(&fleet);
    let written = fleet[1].json("kv put app/colour green");
    is_everywhere(&fleet, "app%2Fcolour", Some("green"), KNOWN + LOOK);
    let read = fleet[2].json("kv get app/colour");
    assert_eq!((&read["version"], &read["node"]), (&written["version"], &"host-28".into()), "{read}");
    assert_eq!(fleet[0].run("kv get app/colour"), "green");
    fleet[2].run("kv put app/size 3");
    is_everywhere(&fleet, "app%2Fsize", Some("3"), KNOWN + LOOK);
    let keys = |prefix: &str| {
        let listed = fleet[0].json(&format!("kv list {prefix}"));
        listed.as_array().into_iter().flatten().map(|key| key["key"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys("app/"), ["\"app/colour\"", "\"app/size\""]);
    assert_eq!(keys("b"), [""; 0]);
    fleet[0].run("kv delete app/colour");
    is_everywhere(&fleet, "app%2Fcolour", None, KNOWN + LOOK);
    fleet[0].run("kv delete app/colour");
    fleet[0].fanlight(["kv", "get", "app/colour"]).exits(1);
}

#[test]
fn of_writes_that_compare_exactly_one_wins_on_whatever_node() {
    let fleet = cluster(3);
    let _agents = started(&fleet);
    for round in 0..5 {
        let name = format!("lock{round}");
        let won: Vec<bool> = thread::scope(|scope| {
            let writers: Vec<_> = fleet
                .hosts()
                .iter()
                .map(|host| {
                    scope.spawn(|| {
                        host.fanlight(["kv", "put", &name, host.name(), "--if", "0"]).run().status.success()
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
        });
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        let winner = fleet[won.iter().position(|won| *won).expect("one")].name();
        is_everywhere(&fleet, &name, Some(winner), KNOWN + LOOK);
    }
    let version = fleet[0].json("kv get lock0")["version"].clone();
    fleet[1].fanlight(["kv", "put", "lock0", "x", "--if", "7"]).exits(1);
    fleet[2].run(&format!("kv put lock0 y --if {version}"));
    is_everywhere(&fleet, "lock0", Some("y"), KNOWN + LOOK);
}

#[test]
fn what_was_acknowledged_survives_a_kill_with_nobody_else_there() {
    let fleet = cluster(2);
    let mut agents = started(&fleet);
    agents.remove(0).stop();
    becomes(&fleet, &[1], 0, "left", DEAD + LOOK);
    for number in 0..20 {
        fleet[1].run(&format!("kv put key{number} {number}"));
    }
    agents.remove(0).kill9();
    let _agent = fleet[1].agent();
    let listed = fleet[1].json("kv list key");
    assert_eq!(listed.as_array().map(Vec::len), Some(20), "{listed}");
}

#[test]
fn a_damaged_store_is_put_aside_and_members_give_back_what_was_in_it() {
    let fleet = cluster(2);
    let mut agents = started(&fleet);
    fleet[1].run("kv put own 1");
    fleet[0].run("kv put other 2");
    is_everywhere(&fleet, "own", Some("1"), KNOWN + LOOK);
    is_everywhere(&fleet, "other", Some("2"), KNOWN + LOOK);
    agents.remove(1).kill9();
    fleet[1].write(STORE, &"no store ".repeat(4_000));
    agents.push(fleet[1].agent());
    is_degraded(&fleet[1], "store-damaged: ");
    is_everywhere(&fleet, "own", Some("1"), COMPARED);
    is_everywhere(&fleet, "other", Some("2"), COMPARED);
    // Its own key is another file: it still writes as itself.
    fleet[1].run("kv put own 3");
    is_everywhere(&fleet, "own", Some("3"), KNOWN + LOOK);
    fleet[1].sh(&format!("rm {STORE}.damaged"));
    eventually("nothing is degraded", TOLD, || {
        (fleet[1].json("status")["degraded"] == serde_json::json!([])).then_some(())
    });
}

#[test]
fn writes_on_both_sides_of_a_partition_end_alike_and_the_smaller_side_compares_nothing() {
    let fleet = cluster(3);
    let _agents = started(&fleet);
    fleet.switch.ip("link set p-host-29-eth0 down");
    becomes(&fleet, &[0, 1], 2, "dead", DEAD + LOOK);
    is_degraded(&fleet[2], "minority: ");
    fleet[0].run("kv put side larger");
    fleet[0].run("kv put larger 1");
    fleet[2].run("kv put side smaller");
    fleet[2].run("kv put smaller 1");
    let refused = fleet[2].fanlight(["kv", "put", "side", "x", "--if", "0"]).exits(1);
    assert!(refused.stderr.contains("minority: "), "{refused}");
    fleet.switch.ip("link set p-host-29-eth0 up");
    are_members(&fleet, &[0, 1, 2], JOINED);
    for (name, value) in [("side", "smaller"), ("larger", "1"), ("smaller", "1")] {
        is_everywhere(&fleet, name, Some(value), COMPARED);
    }
}

#[test]
fn what_is_beyond_a_limit_is_refused_with_it_and_nothing_is_written() {
    let fleet = cluster(1);
    let _agent = fleet[0].agent();
    // The store opens beside the first answers.
    eventually("it is open", TOLD, || fleet[0].fanlight(["kv", "list"]).run().status.success().then_some(()));
    let long = "k".repeat(513);
    let refused = fleet[0].fanlight(["kv", "put", &long, "x"]).exits(1);
    assert!(refused.stderr.contains("a key has 1 to 512 bytes; this one has 513"), "{refused}");
    let large = fleet[0].fanlight(["kv", "put", "a", "-"]).input("v".repeat(65_537)).exits(1);
    assert!(large.stderr.contains("a value has at most 65536 bytes; this one has 65537"), "{large}");
    let control = fleet[0].fanlight(["kv", "put", "a\tb", "x"]).exits(1);
    assert!(control.stderr.contains("control character"), "{control}");
    assert_eq!(fleet[0].json("kv list"), serde_json::json!([]));
    fleet[0].fanlight(["kv", "put", "a", "-"]).input("v".repeat(65_536)).ok();
    assert_eq!(fleet[0].run("kv get a").len(), 65_536);
}

#[test]
fn a_member_that_is_forgotten_is_forgotten_everywhere_and_its_keys_stay_with_those_that_it_writes_when_it_returns()
 {
    let fleet = cluster(3);
    let mut agents = started(&fleet);
    fleet[2].run("kv put from-29 1");
    is_everywhere(&fleet, "from-29", Some("1"), KNOWN + LOOK);
    agents.remove(2).kill9();
    becomes(&fleet, &[0, 1], 2, "dead", DEAD + LOOK);
    fleet[0].run("node forget host-29");
    let start = Instant::now();
    for host in [0, 1] {
        eventually("it is forgotten", COMPARED, || state(&fleet[host], 2).is_none().then_some(()));
        assert!(key(&fleet[host], "from-29").is_some(), "{:?} after it was forgotten", start.elapsed());
    }
    agents.push(fleet[2].agent());
    // It may not have heard yet that it was forgotten.
    eventually("it is written", TOLD, || {
        fleet[2].fanlight(["kv", "put", "from-29", "2"]).run().status.success().then_some(())
    });
    are_members(&fleet, &[0, 1, 2], JOINED);
    is_everywhere(&fleet, "from-29", Some("2"), COMPARED);
}
