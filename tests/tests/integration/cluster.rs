//! Agents that find each other and notice who is gone, on the wire.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

pub(super) use fanlight_tests::cluster::{
    CONFIG, DEAD, JOINED, KEYS, LOOK, PORT, TOLD, are_members, becomes, cluster, configure, is_degraded, key,
    node, reasons, seed, started, state, states, write_keys,
};
use fanlight_tests::{
    eventually,
    fleet::{ELSEWHERE, Fleet, underlay},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What says which address is told to members, where neither a fan nor a seed does.
const UPLINK: &str = "[node]\nuplink = \"eth0\"\n";
/// A stopped agent has left for everybody.
const LEFT: Duration = Duration::from_secs(1);

#[test]
fn three_agents_find_each_other_by_a_seed_that_starts_last() {
    let fleet = cluster(3);
    let _later = [fleet[1].agent(), fleet[2].agent()];
    is_degraded(&fleet[1], &format!("no-member: none of {} answers", seed(0)));
    let _seed = fleet[0].agent();
    are_members(&fleet, &[0, 1, 2], JOINED);
    let status = fleet[2].json("status");
    assert_eq!(status["cluster"], serde_json::json!({"name": "prod", "members": {"alive": 3}}));
    assert_eq!(status["degraded"], serde_json::json!([]));
    let shown = fleet[1].json("node show host-27");
    assert_eq!((&shown["address"], &shown["self"]), (&seed(0).into(), &false.into()));
    assert_eq!(shown["key"].as_str().map(str::len), Some(64), "{shown}");
    fleet[0].fanlight(["node", "show", "host-99"]).exits(1);
    let alive = fleet[0].fanlight(["node", "forget", "host-28"]).exits(1);
    assert!(alive.stderr.contains("host-28 is alive: stop its agent first"), "{alive}");
}

#[test]
fn a_member_is_found_by_a_name_that_is_known_only_later() {
    let fleet = cluster(2);
    configure(&fleet[1], "prod", &[format!("seed.example:{PORT}")], UPLINK);
    let hosts = |text: &str| {
        fleet[1].sh("rm -f /etc/hosts");
        fleet[1].write("/etc/hosts", text);
    };
    hosts("127.0.0.1 localhost\n");
    let _agents = [fleet[0].agent(), fleet[1].agent()];
    is_degraded(
        &fleet[1],
        "no-member: none of seed.example:7481 answers (seed.example:7481 can't be resolved)",
    );
    hosts(&format!("{} seed.example\n", underlay(0)));
    are_members(&fleet, &[0, 1], JOINED);
}

#[test]
fn a_killed_agent_is_dead_a_stopped_one_has_left_and_both_come_back() {
    let fleet = cluster(3);
    let mut agents = started(&fleet);
    agents.remove(2).kill9();
    becomes(&fleet, &[0, 1], 2, "dead", DEAD + LOOK);
    assert!(!reasons(&fleet[0]).iter().any(|reason| reason.starts_with("minority")), "two of three");
    agents.push(fleet[2].agent());
    are_members(&fleet, &[0, 1, 2], JOINED);
    agents.remove(2).stop();
    becomes(&fleet, &[0, 1], 2, "left", LEFT + LOOK);
    let counts = fleet[0].json("status")["cluster"]["members"].clone();
    assert_eq!(counts, serde_json::json!({"alive": 2, "left": 1}));
    fleet[0].run("node forget host-29");
    assert_eq!(state(&fleet[0], 2), None);
    agents.push(fleet[2].agent());
    are_members(&fleet, &[0, 1, 2], JOINED);
}

#[test]
fn a_partition_heals_and_its_smaller_side_says_minority_meanwhile() {
    let fleet = cluster(3);
    let _agents = started(&fleet);
    fleet.switch.ip("link set p-host-29-eth0 down");
    becomes(&fleet, &[0, 1], 2, "dead", DEAD + LOOK);
    is_degraded(&fleet[2], "minority: 1 of 3 members can be reached");
    assert_eq!(reasons(&fleet[0]), [""; 0]);
    fleet.switch.ip("link set p-host-29-eth0 up");
    are_members(&fleet, &[0, 1, 2], JOINED);
}

#[test]
fn an_agent_that_stood_still_comes_back() {
    let fleet = cluster(3);
    let agents = started(&fleet);
    let signal = |signal| kill(Pid::from_raw(agents[2].pid() as i32), signal).expect("the agent runs");
    signal(Signal::SIGSTOP);
    becomes(&fleet, &[0, 1], 2, "dead", DEAD + LOOK);
    std::thread::sleep(Duration::from_secs(3));
    signal(Signal::SIGCONT);
    are_members(&fleet, &[0, 1, 2], JOINED);
}

#[test]
fn a_member_with_another_address_stays_a_member() {
    let fleet = cluster(2);
    let _agents = started(&fleet);
    let other = Ipv4Addr::new(172, 30, 0, 77);
    fleet[1].ip_lines(&[
        format!("address add {other}/16 dev eth0"),
        format!("address del {}/16 dev eth0", underlay(1)),
    ]);
    // The kernel removes the other one with the first, unless it promotes secondary addresses.
    fleet[1].command("ip").args(["address", "add", &format!("{other}/16"), "dev", "eth0"]).run();
    let address = format!("{other}:{PORT}");
    eventually("the address is known", TOLD, || {
        (fleet[0].json("node show host-28")["address"] == address).then_some(())
    });
    are_members(&fleet, &[0, 1], JOINED);
}

#[test]
fn other_keys_and_other_names_never_merge_and_are_reported() {
    let fleet = cluster(3);
    write_keys(&fleet[1], &key('Q'));
    configure(&fleet[2], "test", &[seed(0)], "");
    let _agents = [fleet[0].agent(), fleet[1].agent(), fleet[2].agent()];
    is_degraded(
        &fleet[0],
        &format!("refused: datagrams of {} are sealed with a key that this node does not", underlay(1)),
    );
    is_degraded(
        &fleet[0],
        &format!("refused: datagrams of {} are of a cluster of another name", underlay(2)),
    );
    for host in [1, 2] {
        is_degraded(&fleet[host], "no-member");
    }
    for host in 0..3 {
        assert_eq!(states(&fleet[host]).len(), 1, "{} is alone", node(host));
    }
}

#[test]
fn a_second_node_of_a_name_is_refused_and_named_on_both_sides() {
    let fleet = cluster(3);
    configure(&fleet[2], "prod", &[seed(0)], "[node]\nname = \"host-28\"\n");
    let mut agents = vec![fleet[0].agent(), fleet[1].agent()];
    are_members(&fleet, &[0, 1], JOINED);
    agents.push(fleet[2].agent());
    is_degraded(&fleet[2], "name-taken host-28: the member at 172.30.0.28:7481 has this node's name");
    is_degraded(&fleet[0], "name-taken host-28: the node at 172.30.0.29:7481 has this member's name");
    assert_eq!(fleet[0].json("node show host-28")["address"], seed(1));
    // With the member gone for good, the name is free for another key once it is forgotten.
    agents.remove(1).stop();
    becomes(&fleet, &[0], 1, "left", LEFT + LOOK);
    fleet[0].run("node forget host-28");
    // It is nobody's until that one is admitted.
    let is_admitted =
        || fleet[0].json("node list").as_array()?.iter().any(|node| node["address"] == seed(2)).then_some(());
    eventually("the other one is admitted", TOLD, is_admitted);
}

#[test]
fn keys_are_replaced_without_losing_a_member() {
    let fleet = cluster(3);
    let mut agents = started(&fleet);
    let (old, new) = (key('A'), key('Q'));
    for file in [format!("{old}{new}"), format!("{new}{old}"), new] {
        for (host, agent) in fleet.hosts().iter().zip(&mut agents) {
            write_keys(host, &file);
            agent.reload();
            assert!(
                states(host).values().all(|state| state == "alive" || state == "suspect"),
                "{:?}",
                states(host)
            );
        }
    }
    std::thread::sleep(DEAD);
    are_members(&fleet, &[0, 1, 2], Duration::from_secs(1));
    agents.remove(2).kill9();
    becomes(&fleet, &[0, 1], 2, "dead", DEAD + LOOK);
    agents.push(fleet[2].agent());
    are_members(&fleet, &[0, 1, 2], JOINED);
}

#[test]
fn a_reload_refuses_what_of_a_cluster_cannot_change() {
    let fleet = cluster(1);
    configure(&fleet[0], "prod", &[], UPLINK);
    let mut agent = fleet[0].agent();
    assert_eq!(fleet[0].json("node show host-27")["cluster"], "prod");
    let refused = |text: &str, want: &str| {
        fleet[0].write(CONFIG, text);
        let output = fleet[0].fanlight(["reload"]).exits(1);
        assert!(output.stderr.contains(want), "{output}");
    };
    let cluster = format!("[cluster]\nname = \"prod\"\nkeys = \"{KEYS}\"\n");
    let path = CONFIG;
    refused("", &format!("{path}: cluster: can't go while the agent runs; restart it"));
    refused(
        &cluster.replace("prod", "test"),
        &format!("{path}:2: cluster.name: can't change while the agent runs"),
    );
    refused(
        &format!("{cluster}listen = \"0.0.0.0:7482\"\n"),
        &format!("{path}:4: cluster.listen: can't change"),
    );
    refused(&format!("[node]\nname = \"other\"\n{cluster}"), &format!("{path}:2: node.name: can't change"));
    fleet[0].write(CONFIG, &cluster);
    write_keys(&fleet[0], "no key\n");
    agent.reload_refused(&fleet[0]);
    fleet[0].sh(&format!("chmod 644 {KEYS}"));
    let output = fleet[0].fanlight(["check-config"]).exits(1);
    assert!(output.stderr.contains(&format!("{path}:3: cluster.keys: {KEYS} has mode 0644")), "{output}");
}

#[test]
fn without_a_cluster_a_node_is_alone_and_nothing_listens() {
    let fleet = Fleet::bare(1);
    fleet[0].write(CONFIG, "");
    let mut agent = fleet[0].agent();
    let listed = fleet[0].json("node list");
    assert_eq!(listed[0]["name"], "host-27", "{listed}");
    assert_eq!((&listed[0]["state"], &listed[0]["address"]), (&"alive".into(), &serde_json::Value::Null));
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(fleet[0].json("status")["cluster"], serde_json::Value::Null);
    let forget = fleet[0].fanlight(["node", "forget", "host-28"]).exits(1);
    assert!(forget.stderr.contains("no cluster is configured"), "{forget}");
    let sockets = || fleet[0].sh("ss -Hnlutp");
    assert!(!sockets().contains(&format!(":{PORT}")), "{}", sockets());
    configure(&fleet[0], "prod", &[], UPLINK);
    agent.reload();
    eventually("it listens", TOLD, || sockets().contains(&format!(":{PORT}")).then_some(()));
}

/// The payload of a datagram to the cluster's port in an Ethernet frame.
fn payload(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(14..).filter(|_| frame[12..14] == [8, 0])?;
    let header = usize::from(packet.first()? & 15) * 4;
    let udp = packet.get(header..).filter(|udp| packet[9] == 17 && udp.len() > 8)?;
    (udp[2..4] == PORT.to_be_bytes()).then_some(&udp[8..])
}

#[test]
fn floods_of_garbage_and_of_replayed_datagrams_disturb_nobody_and_get_no_answer() {
    let fleet = cluster(2);
    let wire = fleet[1].raw("eth0");
    let _agents = started(&fleet);
    let replayed: Vec<Vec<u8>> = wire.collect(Duration::from_secs(2), |frame| Some(payload(frame)?.to_vec()));
    assert!(replayed.len() > 10, "{} datagrams", replayed.len());
    let stranger = fleet.stranger("stranger", ELSEWHERE);
    let socket = stranger.bound(|| UdpSocket::bind((ELSEWHERE, PORT)));
    let to: Vec<SocketAddrV4> = (0..2).map(|host| SocketAddrV4::new(underlay(host), PORT)).collect();
    let (start, mut sent, mut garbage) = (Instant::now(), 0_u32, 1_u64);
    while start.elapsed() < Duration::from_secs(5) {
        for datagram in &replayed {
            // An xorshift generator (Marsaglia 2003).
            let mut random = || {
                garbage ^= garbage << 13;
                garbage ^= garbage >> 7;
                garbage ^= garbage << 17;
                garbage as u8
            };
            let noise: Vec<u8> =
                (0..usize::from(random()) * 6).map(|at| if at == 0 { 1 } else { random() }).collect();
            for text in [datagram, &noise] {
                sent += u32::from(to.iter().any(|to| socket.send_to(text, to).is_ok()));
            }
        }
        assert!(states(&fleet[0]).values().all(|state| state == "alive"), "{:?}", states(&fleet[0]));
    }
    assert!(sent > 1_000, "{sent} datagrams");
    socket.set_nonblocking(true).expect("a socket");
    let answer = socket.recv(&mut [0; 2048]);
    assert!(answer.is_err(), "a stranger was answered with {answer:?} bytes");
    are_members(&fleet, &[0, 1], Duration::from_secs(5));
}

#[test]
fn with_keys_the_wire_carries_no_plain_text() {
    let fleet = cluster(2);
    let wire = fleet[1].raw("eth0");
    let _agents = started(&fleet);
    let is_cluster = |frame: &[u8]| {
        let port = PORT.to_be_bytes();
        frame.len() > 42 && frame[12..14] == [8, 0] && (frame[34..36] == port || frame[36..38] == port)
    };
    let frames = wire.collect(Duration::from_secs(3), |frame| is_cluster(frame).then(|| frame.to_vec()));
    let streams = frames.iter().filter(|frame| frame[23] == 6).count();
    assert!(frames.len() > 20 && streams > 3, "{} frames, {streams} of streams", frames.len());
    for frame in frames {
        for word in ["host-2", "prod"] {
            let is_there = frame.windows(word.len()).any(|part| part == word.as_bytes());
            assert!(!is_there, "{word} in {frame:02x?}");
        }
    }
}
