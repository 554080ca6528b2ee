//! Small clusters through all scenarios; `cargo xtask simulate` runs large ones.

use std::time::Duration;

use control::cluster::{identity::Pool, membership::Tuning};
use simulator::{
    client::{Asked, KeyWrite},
    member::{Member, MemberSettings},
    scenarios::{ALL, Options},
    world::{World, address},
};

#[track_caller]
fn holds(name: &str, options: Options) {
    let scenario = ALL.iter().find(|scenario| scenario.name == name).expect("a scenario of that name");
    let report = scenario.run(options);
    assert!(!report.has_failed(), "{name}, seed {}:\n{report}", options.seed);
}

fn small(seed: u64) -> Options {
    Options { seed, nodes: 25, minutes: 1 }
}

fn world(seed: u64) -> World<Member> {
    let settings = MemberSettings {
        keys: None,
        seeds: vec![address(0)],
        tuning: Tuning::default(),
        pool: Pool::default(),
        has_facts: true,
    };
    World::new(seed, 7, settings)
}

/// Has every other node write a key.
fn write(world: &mut World<Member>, first: usize, value: &str) {
    for host in (first..world.len()).step_by(2) {
        let key = format!("key-{}", host % 3);
        let write = KeyWrite { key, value: Some(value.into()), expected: None };
        world.act(host, |node, at| node.write_key(at, Asked(host as u64), write));
    }
}

/// Starts, writes, kills, loses and splits; gives a hash of all that happened, and of all logs in the end.
fn story(seed: u64) -> (u64, Vec<[u8; 16]>) {
    let mut world = world(seed);
    (0..7).for_each(|host| world.start(host));
    world.network.loss = 0.1;
    world.run(Duration::from_secs(5));
    write(&mut world, 0, "before");
    world.run(Duration::from_millis(5));
    world.kill(3);
    world.network.split(|host| host % 2);
    write(&mut world, 1, "split");
    world.run(Duration::from_secs(5));
    world.network.mend();
    world.start(3);
    world.run(Duration::from_secs(5));
    let digests = world.running().map(|(_, node)| node.digest()).collect();
    (world.trace(), digests)
}

#[test]
fn a_seed_reproduces_a_run_to_the_byte() {
    let (trace, logs) = story(7);
    assert_eq!((trace, logs.clone()), story(7));
    assert!(logs.iter().all(|digest| *digest == logs[0] && *digest != [0; 16]));
    let (other, other_logs) = story(8);
    assert!(other != trace && other_logs != logs);
}

#[test]
fn nodes_that_start_at_once_find_each_other() {
    (1..4).for_each(|seed| holds("boot", small(seed)));
}

#[test]
fn an_idle_node_sends_little() {
    holds("idle", small(1));
}

#[test]
fn a_killed_node_is_known_to_be_dead_in_time() {
    holds("kills", small(1));
    holds("kills-in-loss", small(1));
}

#[test]
fn a_node_that_leaves_has_left_for_all_within_a_second() {
    (1..4).for_each(|seed| holds("leave", small(seed)));
}

#[test]
fn restarts_of_one_and_of_all_end_in_one_cluster() {
    (1..3).for_each(|seed| holds("restarts", small(seed)));
}

#[test]
fn a_tenth_dies_and_comes_back() {
    (1..4).for_each(|seed| holds("mass-death", small(seed)));
}

#[test]
fn loss_kills_nobody() {
    (1..3).for_each(|seed| holds("loss", small(seed)));
    holds("heavy-loss", small(1));
}

#[test]
fn a_slow_node_kills_nobody() {
    holds("slow", small(1));
}

#[test]
fn jumps_of_wall_clocks_change_nothing() {
    holds("clocks", small(1));
}

#[test]
fn messages_reach_all_members_within_a_second() {
    holds("messages", small(1));
}

#[test]
fn links_that_pass_one_way_kill_nobody() {
    holds("asymmetric", small(1));
}

#[test]
fn halves_become_one_cluster_again() {
    (1..4).for_each(|seed| holds("split", small(seed)));
}

#[test]
fn random_kills_partitions_and_loss_leave_no_split() {
    (1..5).for_each(|seed| holds("torture", small(seed)));
}

#[test]
fn a_key_is_everywhere_within_a_second() {
    (1..3).for_each(|seed| holds("spread", small(seed)));
}

#[test]
fn a_killed_node_is_out_of_every_ring_in_time() {
    holds("rings", small(1));
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_deleted_comes_back() {
    (1..4).for_each(|seed| holds("records", small(seed)));
}

#[test]
fn the_member_that_decides_on_a_key_replaces_no_version_twice() {
    (1..3).for_each(|seed| holds("owners", small(seed)));
}
