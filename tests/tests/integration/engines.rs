//! Real container engines on the fan's bridge: they know nothing of Fanlight, and it is told nothing of theirs.

use std::time::Duration;

use fanlight_tests::{
    engine::{self, Cni, Docker, Engine, Lxc, PORT, PUBLISHED, Podman, Running, assert_answers},
    eventually,
    fleet::{Fleet, bridge, overlay, underlay},
    load::assert_reaches,
};

/// Containers of two hosts reach each other, and each the other's host.
#[track_caller]
fn assert_containers_talk(fleet: &Fleet, [one, other]: [&Running; 2]) {
    for (from, to, host) in [(one, other, 1), (other, one, 0)] {
        assert_reaches(&from.site, to.address);
        assert_answers(&from.site, to.address, PORT, &fleet[host]);
        assert_reaches(&from.site, overlay(host, 1));
        assert_answers(&fleet[1 - host], to.address, PORT, &fleet[host]);
    }
}

/// Its container's port answers at its host's addresses, for a container and for the host on the other side.
#[track_caller]
fn assert_published(fleet: &Fleet, one: &Running) {
    for address in [underlay(1), overlay(1, 1)] {
        assert_answers(&one.site, address, PUBLISHED, &fleet[1]);
        assert_answers(&fleet[0], address, PUBLISHED, &fleet[1]);
    }
}

/// An engine on each of two hosts, first without and then with agents.
fn containers_talk_over_the_fan<'h, E: Engine<'h>>(fleet: &'h Fleet) {
    let engines = [0, 1].map(|host| E::start(fleet, host));
    let one = engines[0].run("one");
    let other = if E::PUBLISHES { engines[1].publish("other") } else { engines[1].run("other") };
    for with_agents in [false, true] {
        let _agents = with_agents.then(|| [fleet[0].agent(), fleet[1].agent()]);
        assert_containers_talk(fleet, [&one, &other]);
        if E::PUBLISHES {
            assert_published(fleet, &one);
        }
    }
}

#[test]
fn containers_of_docker_talk_over_the_fan_without_and_with_agents() {
    if engine::available::<Docker<'_>>() {
        containers_talk_over_the_fan::<Docker<'_>>(&Fleet::up(2));
    }
}

#[test]
fn containers_of_podman_talk_over_the_fan_without_and_with_agents() {
    if engine::available::<Podman<'_>>() {
        containers_talk_over_the_fan::<Podman<'_>>(&Fleet::up(2));
    }
}

#[test]
fn containers_of_lxc_talk_over_the_fan_without_and_with_agents() {
    if engine::available::<Lxc<'_>>() {
        containers_talk_over_the_fan::<Lxc<'_>>(&Fleet::up(2));
    }
}

#[test]
fn containers_wired_by_cni_talk_over_the_fan_without_and_with_agents() {
    if engine::available::<Cni<'_>>() {
        containers_talk_over_the_fan::<Cni<'_>>(&Fleet::up(2));
    }
}

#[test]
fn containers_of_different_engines_talk_over_the_fan() {
    if !engine::available::<Docker<'_>>() || !engine::available::<Podman<'_>>() {
        return;
    }
    let fleet = Fleet::up(2);
    let (docker, podman) = (Docker::start(&fleet, 0), Podman::start(&fleet, 1));
    assert_containers_talk(&fleet, [&docker.run("one"), &podman.run("other")]);
}

#[test]
fn a_bridge_that_podman_deletes_with_its_last_container_is_back_with_an_agent_or_the_next_command() {
    if !engine::available::<Podman<'_>>() {
        return;
    }
    let fleet = Fleet::up(1);
    let podman = Podman::start(&fleet, 0);
    podman.run("one");
    podman.remove("one");
    // A later netavark leaves alone what it did not make.
    if !fleet[0].has_device(&bridge(0)) {
        let status = fleet[0].json("status");
        let reason = status["degraded"][0].as_str().unwrap_or_default();
        assert!(reason.starts_with("fan 250.0.0.0/8: missing bridge"), "{status}");
        fleet[0].run("fan up 250.0.0.0/8 eth0");
    }
    assert_answers(&fleet[0], podman.run("two").address, PORT, &fleet[0]);

    let _agent = fleet[0].agent();
    podman.remove("two");
    eventually("the agent makes the bridge again", Duration::from_secs(10), || {
        fleet[0].has_device(&bridge(0)).then_some(())
    });
    assert_answers(&fleet[0], podman.run("three").address, PORT, &fleet[0]);
}
