use std::time::Duration;

use super::{
    super::{MemberState, Membership, Notice, PayloadError, Refusal},
    net::{Net, address, named, node, ring, settings},
};

#[test]
fn nodes_join_by_a_seed_that_starts_later() {
    let mut net = Net::of(vec![node("b", 2, 2, 1), node("c", 3, 3, 1)]);
    net.run(20_000);
    assert_eq!(net.hosts[0].core.reachable(), 1);
    net.add(node("a", 1, 1, 1));
    net.run(12_000);
    assert!(net.hosts.iter().all(|host| host.core.reachable() == 3));
    let digests: Vec<u64> = net.hosts.iter().map(|host| host.core.digest()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    let names: Vec<_> = net.hosts[0].core.members().into_iter().map(|member| member.identity).collect();
    assert!(names.is_sorted_by_key(|identity| identity.name().clone()) && names.len() == 3);
    assert_eq!(net.counts(0, |notice| *notice == Notice::Joined), 1);
}

#[test]
fn clusters_of_other_names_or_keys_never_merge_and_are_reported_at_a_bounded_rate() {
    let mut net = Net::of(vec![node("a", 1, 1, 1)]);
    let strangers = [("x", 8, settings("test", Some('A'))), ("y", 9, settings("prod", Some('Q')))];
    for (name, host, settings) in strangers {
        let identity = node(name, host, host, 1).identity().clone();
        net.add(Membership::new(identity, settings, [host; 32]));
    }
    net.run(60_000);
    assert!(net.hosts.iter().all(|host| host.core.reachable() == 1));
    let refused = net.hosts[0].core.refused();
    assert!(
        refused[&Refusal::UnknownKey] >= 6 && refused[&Refusal::OtherClusterOrAltered] >= 6,
        "{refused:?}"
    );
    let told = net.counts(0, |notice| {
        matches!(notice, Notice::Refused { refusal: Refusal::UnknownKey, source, .. }
            if *source == address(9).into())
    });
    assert!((2..=6).contains(&told), "{told}");
    assert!(net.hosts[0].sent.is_empty(), "no answer to strangers");
}

#[test]
fn keys_are_changed_without_a_death() {
    let mut net = Net::joined();
    let steps = ["A Q", "Q A", "Q"];
    for step in steps {
        for host in 0..3 {
            let lines: Vec<_> = step.split(' ').map(|letter| format!("{}=", letter.repeat(43))).collect();
            let keyring = crate::cluster::keyring::Keyring::parse(&lines.join("\n")).unwrap();
            net.hosts[host].core.set_keyring(Some(keyring));
            net.run(1_000);
        }
    }
    assert!(net.hosts.iter().all(|host| host.core.reachable() == 3 && host.core.refused().is_empty()));
    assert!((0..3).all(|host| net.counts(host, |notice| matches!(notice, Notice::Down { .. })) == 0));
    net.hosts[0].core.set_keyring(ring('A'));
    net.run(3_000);
    assert_eq!(net.hosts[0].core.reachable(), 1);
}

#[test]
fn a_death_is_known_within_a_second_and_a_half_and_its_time_is_kept() {
    let mut net = Net::joined();
    let before = net.now;
    net.hosts[1].runs = false;
    net.run(1_500);
    let dead = net.member(0, "b").unwrap();
    assert_eq!((dead.state, net.state(2, "b")), (MemberState::Dead, Some(MemberState::Dead)));
    assert!(dead.since > before && dead.since <= net.now);
    net.run(5_000);
    assert_eq!(net.member(0, "b").unwrap().since, dead.since);
}

#[test]
fn who_stops_has_left_and_stays_so() {
    let mut net = Net::joined();
    net.act(1, |core, at| core.leave(at));
    net.run(200);
    assert_eq!((net.state(0, "b"), net.state(2, "b")), (Some(MemberState::Left), Some(MemberState::Left)));
    assert!(net.hosts[1].core.has_left());
    net.hosts[1].sent.clear();
    net.run(30_000);
    assert!(net.hosts[1].sent.is_empty());
    assert_eq!(net.state(0, "b"), Some(MemberState::Left));
    net.add(node("b", 2, 2, 9));
    net.hosts[1].runs = false;
    net.run(3_000);
    assert_eq!(net.state(0, "b"), Some(MemberState::Alive));
}

#[test]
fn maintenance_is_shown_of_the_living() {
    let mut net = Net::joined();
    assert!(net.act(0, |core, at| core.set_maintenance(at, &named("b"), true)));
    assert!(!net.act(0, |core, at| core.set_maintenance(at, &named("b"), true)));
    let member = net.member(0, "b").unwrap();
    assert!(member.state == MemberState::Maintenance && member.since == net.at(0).now);
    net.hosts[1].runs = false;
    net.run(2_000);
    assert_eq!(net.state(0, "b"), Some(MemberState::Dead));
}

#[test]
fn a_node_that_did_not_run_blames_nobody() {
    let mut net = Net::joined();
    net.hosts[0].runs = false;
    // Too short for a death of its own.
    net.run(400);
    net.hosts[0].runs = true;
    net.run(100);
    assert!(net.hosts[0].core.stretch() > 1);
    net.run(3_000);
    for host in 0..3 {
        assert_eq!(net.counts(host, |notice| matches!(notice, Notice::Down { .. })), 0, "{host}");
    }
    net.run(20_000);
    assert_eq!(net.hosts[0].core.stretch(), 1);
}

#[test]
fn two_nodes_that_do_not_reach_each_other_live_by_the_third() {
    let mut net = Net::joined();
    net.cut.extend([(0, 1), (1, 0)]);
    net.run(60_000);
    for host in 0..3 {
        assert_eq!(net.counts(host, |notice| matches!(notice, Notice::Down { .. })), 0, "{host}");
    }
}

#[test]
fn a_replayed_datagram_and_one_with_a_forged_source_are_answered_to_nobody_else() {
    let mut net = Net::joined();
    let of_b = net.hosts[1].sent.iter().find(|(to, _)| *to == address(1)).unwrap().1.clone();
    net.run(70_000);
    let before = net.hosts[0].core.refused().get(&Refusal::Replayed).copied();
    net.hosts[0].sent.clear();
    let strange = "192.0.2.1:9".parse().unwrap();
    net.act(0, |core, at| core.datagram(at, strange, &of_b));
    net.step();
    assert_eq!(before, None);
    assert_eq!(net.hosts[0].core.refused()[&Refusal::Replayed], 1);
    let new = net.hosts[1].sent.iter().rev().find(|(to, _)| *to == address(1)).unwrap().1.clone();
    net.act(0, |core, at| core.datagram(at, strange, &new));
    net.step();
    assert!(net.hosts[0].sent.iter().all(|(to, _)| *to == address(2) || *to == address(3)));
}

#[test]
fn an_hour_old_greeting_of_a_life_that_was_missed_raises_no_dead() {
    let mut net = Net::of(vec![node("a", 1, 1, 1), node("b", 2, 2, 1), node("b", 2, 2, 9)]);
    net.hosts[2].runs = false;
    net.run(2_000);
    net.hosts[1].runs = false;
    net.run(2_000);
    assert_eq!(net.state(0, "b"), Some(MemberState::Dead));
    // Its next life greets, and is not heard.
    net.hosts[2].runs = true;
    net.cut.extend([(2, 0), (0, 2)]);
    net.run(1_000);
    net.hosts[2].runs = false;
    let greeting = net.hosts[2].sent.iter().find(|(to, _)| *to == address(1)).unwrap().1.clone();
    net.now += Duration::from_secs(3_600);
    net.run(1_000);
    net.act(0, |core, at| core.datagram(at, address(2).into(), &greeting));
    net.run(100);
    assert_eq!(net.state(0, "b"), Some(MemberState::Dead));
}

#[test]
fn bytes_of_another_protocol_reach_a_living_member() {
    let mut net = Net::joined();
    let send = |net: &mut Net, to: &str, bytes: &[u8]| {
        net.act(0, |core, at| core.send_payload(at, &named(to), 7, bytes))
    };
    send(&mut net, "b", b"delta").unwrap();
    net.step();
    assert_eq!(net.hosts[1].payloads, [(named("a"), 7, b"delta".to_vec())]);
    let long = vec![0; Membership::MAX_PAYLOAD + 1];
    assert_eq!(send(&mut net, "b", &long), Err(PayloadError::TooLong(long.len())));
    assert_eq!(send(&mut net, "x", b""), Err(PayloadError::Unreachable(named("x"))));
}

#[test]
fn two_clusters_that_grew_apart_become_one_by_a_seed() {
    let mut net = Net::of(vec![node("a", 1, 1, 1), node("b", 2, 2, 1)]);
    net.cut.extend([(0, 1), (1, 0)]);
    let mut c = node("c", 3, 3, 1);
    c.set_seeds(net.at(0), vec![address(2)]);
    net.add(c);
    net.cut.extend([(0, 2), (2, 0)]);
    net.run(20_000);
    assert_eq!((net.hosts[0].core.reachable(), net.hosts[1].core.reachable()), (1, 2));
    net.cut.clear();
    net.run(15_000);
    assert!(net.hosts.iter().all(|host| host.core.reachable() == 3));
    assert!(net.now < Duration::from_secs(60));
}
