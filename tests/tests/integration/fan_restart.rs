//! Fail static: whatever happens to the agent, no packet is lost.

use std::{path::Path, thread, time::Duration};

use fanlight_tests::{
    Agent, Container, Host,
    fleet::{Fleet, overlay},
    host,
    load::{Iperf, IperfServer, Ping, assert_reaches},
};

/// Does something to the agents of both hosts while 200 pings a second and a TCP stream cross the fan: no ping may
/// be lost and the stream must neither break nor stand still.
pub(crate) fn under_traffic(
    fleet: &Fleet,
    (one, other): (&Container<'_>, &Container<'_>),
    disturb: impl FnOnce(),
) {
    assert_reaches(one, overlay(1, 2));
    let _server = IperfServer::start(other);
    let _fleet = fleet;
    let stream = Iperf::start(one, overlay(1, 2), &["-t", "5", "-b", "200M", "-i", "0.5"]);
    let ping = Ping::start(one, overlay(1, 2), 200);
    thread::sleep(Duration::from_millis(750));
    disturb();
    thread::sleep(Duration::from_millis(750));
    let pinged = ping.stop();
    let output = stream.finish(Duration::from_secs(30));
    assert!(output.status.success(), "{output}");
    let run = Iperf::read(&output.stdout);
    assert!(pinged.sent > 50, "{pinged:?}");
    assert_eq!(pinged.lost(), 0, "{pinged:?}");
    assert!(run.slowest_interval() > 1e6, "the stream stood still: {run:?}");
}

/// One on every host.
pub(crate) fn agents(fleet: &Fleet) -> Vec<Agent> {
    fleet.hosts().iter().map(Host::agent).collect()
}

//@ guest: 6.1
#[test]
fn killing_the_agent_loses_no_packet() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    let running = agents(&fleet);
    under_traffic(&fleet, (&one, &other), || {
        for agent in running {
            agent.kill9();
        }
    });
    assert_reaches(&one, overlay(1, 2));
}

#[test]
fn killing_and_starting_it_again_several_times_loses_no_packet() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 2), fleet.port(1, 2));
    let mut running = agents(&fleet);
    under_traffic(&fleet, (&one, &other), || {
        for _ in 0..3 {
            for agent in running.drain(..) {
                agent.kill9();
            }
            running = agents(&fleet);
        }
    });
}

//@ guest
#[test]
fn an_orderly_restart_and_a_reload_lose_no_packet() {
    let fleet = Fleet::bare(2);
    for host in fleet.hosts() {
        host.write(
            "/etc/fanlight/fanlight.toml",
            "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"172.30.0.0/16\"\n",
        );
    }
    let mut running = agents(&fleet);
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    under_traffic(&fleet, (&one, &other), || {
        for agent in running.drain(..) {
            let output = agent.stop();
            assert!(output.status.success(), "{output}");
        }
        running = agents(&fleet);
        for agent in &mut running {
            agent.reload();
        }
    });
}

//@ guest: 6.1, 6.12
#[test]
fn an_upgrade_to_another_binary_loses_no_packet() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 2), fleet.port(1, 2));
    let running = agents(&fleet);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let rebuilt = host::rebuilt(directory.path());
    let mut upgraded = Vec::new();
    under_traffic(&fleet, (&one, &other), || upgraded = upgrade(&fleet, running, &rebuilt));
    assert_eq!(upgraded.len(), 2);
}

/// Lets another binary take over on every host.
pub(crate) fn upgrade(fleet: &Fleet, running: Vec<Agent>, binary: &Path) -> Vec<Agent> {
    let upgraded = fleet.hosts().iter().zip(running).map(|(host, agent)| {
        host.use_binary(binary.to_owned());
        agent.stop();
        host.agent()
    });
    upgraded.collect()
}

#[test]
fn without_an_agent_status_says_since_when_it_is_stale() {
    let fleet = Fleet::up(1);
    let agent = fleet[0].agent();
    let status = fleet[0].json("status");
    assert_eq!(status["degraded"], serde_json::json!([]), "{status}");
    assert_eq!(fleet[0].fanlight(["status"]).run().code(), 0);
    agent.kill9();
    let output = fleet[0].fanlight(["status"]).run();
    assert!(output.stdout.contains("stale since"), "{output}");
}

#[test]
fn a_second_agent_on_the_same_host_is_refused() {
    let fleet = Fleet::up(1);
    let _agent = fleet[0].agent();
    let refused = fleet[0].fanlight(["agent"]).exits(1);
    assert!(refused.stderr.starts_with("fanlight: "), "{refused}");
}
