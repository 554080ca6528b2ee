use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    super::{ForgetError, MemberState, Notice},
    net::{DAY, Net, WALL, address, named, node, ring},
};
use crate::cluster::{
    identity::Identity,
    wire::{Envelope, Message, Seal, Sender},
};

#[test]
fn a_name_belongs_to_the_key_that_was_seen_first_until_it_is_forgotten() {
    let mut net = Net::joined();
    net.add(node("b", 9, 77, 5));
    net.run(30_000);
    let holder = net.hosts[3].core.name_holder().unwrap();
    assert_eq!((holder.name(), holder.address()), (&named("b"), address(2)));
    assert_eq!(net.member(0, "b").unwrap().identity.address(), address(2));
    let told = net.counts(0, |notice| *notice == Notice::NameTaken { name: named("b"), refused: address(9) });
    assert!((1..=4).contains(&told), "{told} reports in 30 s");

    net.hosts[1].runs = false;
    net.run(3_000);
    assert_eq!(net.state(0, "b"), Some(MemberState::Dead));
    assert_ne!(net.hosts[3].core.reachable(), 3);
    for host in [0, 2] {
        net.act(host, |core, at| core.forget(at, &named("b"))).unwrap();
    }
    net.run(15_000);
    assert_eq!(net.member(0, "b").unwrap().identity.address(), address(9));
    assert_eq!(net.hosts[3].core.name_holder(), None);
}

#[test]
fn a_second_node_of_one_key_waits_until_the_first_is_gone() {
    let mut net = Net::joined();
    net.add(node("b", 9, 2, 5));
    net.run(5_000);
    assert_eq!(net.member(0, "b").unwrap().identity.address(), address(2));
    assert!(net.hosts[3].core.name_holder().is_some());
    assert!(net.counts(0, |notice| matches!(notice, Notice::NameTaken { .. })) > 0);
    net.hosts[1].runs = false;
    net.run(15_000);
    assert_eq!(net.member(0, "b").unwrap().identity.address(), address(9));
    assert_eq!((net.state(0, "b"), net.hosts[3].core.reachable()), (Some(MemberState::Alive), 3));
}

#[test]
fn a_node_whose_clock_went_back_joins_with_a_generation_above_its_last() {
    let mut net = Net::joined();
    net.hosts[1].runs = false;
    net.run(3_000);
    let mut last = net.member(0, "b").unwrap().identity.generation();
    net.add(node("b", 2, 2, 0));
    net.run(3_000);
    let now = net.member(0, "b").unwrap();
    assert!(now.identity.generation() > last && now.state == MemberState::Alive, "{now:?}");
    last = now.identity.generation();
    // Also where nobody has noticed its death yet.
    net.hosts[3].runs = false;
    net.add(node("b", 2, 2, 0));
    net.run(3_000);
    let now = net.member(0, "b").unwrap();
    assert!(now.identity.generation() > last && now.state == MemberState::Alive, "{now:?}");
}

#[test]
fn a_living_member_is_not_forgotten_and_a_dead_one_does_not_come_back_by_hearsay() {
    let mut net = Net::joined();
    let forget = |net: &mut Net, host, name| net.act(host, |core, at| core.forget(at, &named(name)));
    assert_eq!(forget(&mut net, 0, "b"), Err(ForgetError::Alive(named("b"))));
    assert_eq!(forget(&mut net, 0, "x"), Err(ForgetError::Unknown(named("x"))));
    net.hosts[1].runs = false;
    net.run(3_000);
    forget(&mut net, 0, "b").unwrap();
    // The other member has not forgotten it, and exchanges go on.
    net.run(60_000);
    assert_eq!((net.state(0, "b"), net.state(2, "b")), (None, Some(MemberState::Dead)));
}

#[test]
fn a_forgotten_process_that_still_ran_is_admitted_as_a_new_one() {
    let mut net = Net::joined();
    net.hosts[1].runs = false;
    net.run(3_000);
    let last = net.member(0, "b").unwrap().identity.generation();
    for host in [0, 2] {
        net.act(host, |core, at| core.forget(at, &named("b"))).unwrap();
    }
    net.hosts[1].runs = true;
    net.run(15_000);
    let back = net.member(0, "b").unwrap();
    assert!(back.identity.generation() > last && back.state == MemberState::Alive);
    assert!(net.hosts.iter().all(|host| host.core.reachable() == 3));
}

#[test]
fn an_address_changes_without_a_death() {
    let mut net = Net::joined();
    net.act(1, |core, at| core.set_address(at, address(22)));
    net.run(2_000);
    for host in [0, 2] {
        assert_eq!(net.member(host, "b").unwrap().identity.address(), address(22));
        assert_eq!(net.counts(host, |notice| matches!(notice, Notice::Down { .. })), 0);
    }
}

#[test]
fn a_node_whose_clock_is_a_day_off_joins_and_is_named_until_it_is_right() {
    let mut net = Net::joined();
    let mut late = node("d", 4, 4, 1);
    late.set_seeds(net.at(0), vec![address(1)]);
    net.add(late);
    net.hosts[3].ahead = -DAY;
    net.run(5_000);
    assert!(net.hosts.iter().all(|host| host.core.reachable() == 4));
    let skewed = net.hosts[0].core.skewed();
    assert!(
        skewed.len() == 1 && skewed[0].0 == named("d") && (skewed[0].1 + DAY).abs() < 1_000,
        "{skewed:?}"
    );
    assert_eq!(net.counts(0, |notice| matches!(notice, Notice::Skewed { .. })), 1);
    // It knows the members' time, and takes none of them for skewed.
    let at = net.at(3);
    assert!(net.hosts[3].core.wall(at).abs_diff(net.at(0).wall) < 1_000);
    assert!(net.hosts[3].core.skewed().is_empty());
    net.hosts[3].ahead = 0;
    net.run(5_000);
    assert!(net.hosts[0].core.skewed().is_empty());
    assert_eq!(net.counts(0, |notice| *notice == Notice::Unskewed { name: named("d") }), 1);
}

/// A word that generation 0 is outdated.
fn outdated(sender: Identity, wall: u64) -> Vec<u8> {
    let message = Message::Outdated { echo: 0, generation: 0, holder: None };
    let envelope = Envelope { sender: Sender::Full(sender), uptime: 60_000, wall, message };
    Seal::new("prod", ring('A')).seal(&mut StdRng::seed_from_u64(1), &envelope).unwrap()
}

#[test]
fn a_member_that_has_not_heard_of_the_present_life_is_told_of_it() {
    let mut net = Net::joined();
    let generation = net.hosts[1].core.identity().generation();
    let datagram = outdated(net.hosts[0].core.identity().clone(), net.at(0).wall);
    net.hosts[1].sent.clear();
    net.act(1, |core, at| core.datagram(at, address(1).into(), &datagram));
    net.step();
    let plain = Seal::new("prod", ring('A')).open(&net.hosts[1].sent[0].1).unwrap();
    let answer: Envelope<'_> = postcard::from_bytes(&plain).unwrap();
    assert!(matches!(answer.message, Message::Welcome { .. }) && net.hosts[1].sent[0].0 == address(1));
    assert_eq!(net.hosts[1].core.identity().generation(), generation);
}

#[test]
fn a_replayed_word_of_an_earlier_life_says_nothing_of_the_clock() {
    let mut net = Net::joined();
    let earlier = net.hosts[1].core.identity().clone();
    net.act(1, |core, at| core.set_address(at, address(22)));
    net.run(2_000);
    net.hosts[1].runs = false;
    let datagram = outdated(earlier, WALL.saturating_add_signed(-DAY));
    net.act(0, |core, at| core.datagram(at, address(2).into(), &datagram));
    net.run(1_200);
    assert!(net.hosts[0].core.skewed().is_empty());
}
