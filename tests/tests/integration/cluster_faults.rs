//! What goes wrong below a cluster: disks that are full, agents that are killed, a network that lets no tunnel through; and nodes
//! that get another name.

use std::{
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{Host, api, eventually, fleet::underlay};

use super::cluster::{JOINED, LOOK, TOLD, cluster, configure, reasons, seed, started, states};

const DATA: &str = "/var/lib/fanlight";
/// A tunnel that is blocked is told within half a minute, and so is its end.
const PROBED: Duration = Duration::from_secs(30);
const FAN: &str = "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"172.30.0.0/16\"\n";

/// Sets a key; says whether that was acknowledged.
fn put(host: &Host, key: &str, value: &str) -> bool {
    api::ask(host, "PUT", &format!("/v1/kv/{key}"), value).is_ok_and(|answer| answer.status == 200)
}

fn has(host: &Host, key: &str) -> bool {
    api::ask(host, "GET", &format!("/v1/kv/{key}"), "").is_ok_and(|answer| answer.status == 200)
}

#[test]
fn a_full_disk_is_told_acknowledges_nothing_and_goes_on_when_there_is_room() {
    let fleet = cluster(1);
    let host = &fleet[0];
    host.sh(&format!("mkdir -p {DATA}"));
    host.sh(&format!("mount -t tmpfs -o size=8m tmpfs {DATA}"));
    let agent = host.agent();
    eventually("the store is open", TOLD, || put(host, "first", "1").then_some(()));
    host.sh_fails(&format!("dd if=/dev/zero of={DATA}/fill bs=64k"));
    let value = "v".repeat(60_000);
    let stored = (0..100).take_while(|number| put(host, &format!("key{number}"), &value)).count();
    assert!(stored < 100, "the disk is full");
    eventually("it is told", TOLD, || {
        reasons(host).iter().any(|reason| reason.starts_with("store: ")).then_some(())
    });
    let refused = host.fanlight(["kv", "put", "late", "x"]).exits(1);
    assert!(refused.stderr.contains("store: ") && refused.stderr.contains("disk is full"), "{refused}");
    host.sh(&format!("rm {DATA}/fill"));
    eventually("it is written again", TOLD, || put(host, "late", "x").then_some(()));
    eventually("nothing is degraded", TOLD, || reasons(host).is_empty().then_some(()));
    agent.kill9();
    let _agent = host.agent();
    eventually("the store is open", TOLD, || has(host, "late").then_some(()));
    let lost: Vec<_> = (0..stored).filter(|number| !has(host, &format!("key{number}"))).collect();
    assert_eq!(lost, [0_usize; 0], "of {stored}");
}

#[test]
fn of_many_writes_none_that_was_acknowledged_is_lost_by_a_kill() {
    let fleet = cluster(1);
    let host = &fleet[0];
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let agent = host.agent();
        eventually("the store is open", TOLD, || put(host, "open", "1").then_some(()));
        let writers = thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    scope.spawn(move || {
                        let keys = (0..).map(|number| format!("key-{round}-{writer}-{number}"));
                        keys.take_while(|key| put(host, key, "value")).collect::<Vec<_>>()
                    })
                })
                .collect();
            // In the middle of it.
            thread::sleep(Duration::from_millis(700));
            agent.kill9();
            writers.into_iter().map(|writer| writer.join().expect("no panic")).collect::<Vec<_>>()
        });
        acknowledged.extend(writers.into_iter().flatten());
    }
    assert!(acknowledged.len() > 20, "{} writes", acknowledged.len());
    let _agent = host.agent();
    eventually("the store is open", TOLD, || has(host, "open").then_some(()));
    let lost: Vec<_> = acknowledged.iter().filter(|key| !has(host, key)).collect();
    assert_eq!(lost, [""; 0], "of {}", acknowledged.len());
}

#[test]
fn a_node_that_gets_another_name_takes_its_records_along_and_the_former_name_is_forgotten() {
    let fleet = cluster(2);
    let mut agents = started(&fleet);
    assert!(put(&fleet[1], "key", "value"));
    let key = fleet[1].json("node show host-28")["key"].clone();
    agents.remove(1).stop();
    configure(&fleet[1], "prod", &[seed(0)], "[node]\nname = \"renamed\"\n");
    agents.push(fleet[1].agent());
    let names = |host: usize| states(&fleet[host]).into_keys().collect::<Vec<_>>();
    for host in [0, 1] {
        eventually("the former name is gone", JOINED + TOLD, || {
            (names(host) == ["host-27", "renamed"]).then_some(())
        });
        assert!(has(&fleet[host], "key"));
    }
    assert_eq!(fleet[0].json("node show renamed")["key"], key);
    eventually("it writes", TOLD, || put(&fleet[1], "key", "other").then_some(()));
    eventually("the other one has it", TOLD, || {
        let read = fleet[0].json("kv get key");
        (read["value"] == "other" && read["node"] == "renamed").then_some(())
    });
    for host in fleet.hosts() {
        eventually("nothing is degraded", TOLD, || reasons(host).is_empty().then_some(()));
    }
}

/// The members that a host says the tunnel does not get through to.
fn blocked(host: &Host) -> Vec<String> {
    let reasons = reasons(host);
    let names = reasons.iter().filter_map(|reason| reason.strip_prefix("encapsulation-blocked "));
    names.filter_map(|reason| Some(reason.split_once(':')?.0.to_owned())).collect()
}

#[test]
fn members_whose_tunnel_is_blocked_are_named_within_half_a_minute_and_no_more_once_it_is_open() {
    let fleet = cluster(3);
    fleet.hosts().iter().for_each(|host| configure(host, "prod", &[seed(0)], FAN));
    let _agents = started(&fleet);
    let want = |wanted: [&[&str]; 3]| {
        let start = Instant::now();
        for (host, wanted) in fleet.hosts().iter().zip(wanted) {
            let left = (PROBED + LOOK).saturating_sub(start.elapsed());
            let what = format!("{} names {wanted:?}", host.name());
            eventually(&what, left, || (blocked(host) == wanted).then_some(()));
        }
    };
    // Whatever was told while the fans came up.
    want([&[], &[], &[]]);
    let (one, other) = (underlay(0), underlay(1));
    let pair = format!("{{ {one}, {other} }}");
    let rule = format!("ip saddr {pair} ip daddr {pair} ip protocol 4 drop");
    let rules =
        format!("table bridge wall {{\nchain pass {{\ntype filter hook forward priority 0\n{rule}\n}}\n}}\n");
    fleet.switch.command("nft").args(["-f", "-"]).input(rules).ok();
    want([&["host-28"], &["host-27"], &[]]);
    let status = fleet[0].fanlight(["status"]).exits(1);
    assert!(status.stdout.contains("encapsulation-blocked host-28: 172.30.0.28 answers"), "{status}");
    fleet.switch.sh("nft delete table bridge wall");
    want([&[], &[], &[]]);
}
