//! Tombstones stay as long as anybody may need them, and no longer.

use super::super::*;
use super::model::{NOW, Node, exchange};

fn nodes() -> (Node, Node, Node, Vec<Name>) {
    let (one, two, three) = (Node::new(1), Node::new(2), Node::new(3));
    let names = [&one, &two, &three].map(|node| node.name.clone()).to_vec();
    (one, two, three, names)
}

fn key() -> Key {
    [1].as_slice().into()
}

#[test]
fn a_tombstone_waits_for_a_dead_member_until_that_is_forgotten() {
    let (mut one, mut two, mut three, names) = nodes();
    one.write(&key(), Some(1), NOW);
    exchange(&mut one, &mut two, 100);
    exchange(&mut one, &mut three, 100);
    one.write(&key(), None, NOW);
    exchange(&mut one, &mut two, 100);
    assert!(!one.collect(&names), "the third has not heard");
    let steps = one.logs.steps();
    assert_eq!(one.collector.behind(&names[1..], steps), [&names[2]]);
    assert!(one.collect(&names[..2]));
    assert_eq!(one.logs.entries().count(), 0);
    exchange(&mut two, &mut one, 100);
    assert_eq!(two.logs.entries().count(), 0);
    // A member that comes back without having been forgotten would have been waited for.
    exchange(&mut three, &mut one, 100);
    assert_eq!(three.logs.entries().count(), 0);
}

#[test]
fn a_tombstone_waits_for_an_older_value_in_another_log_and_moves_above_the_floor_of_those_that_go() {
    let (mut one, mut two, _, names) = nodes();
    let other = [2].as_slice().into();
    two.write(&key(), Some(1), NOW);
    exchange(&mut one, &mut two, 100);
    one.write(&key(), None, NOW);
    one.write(&other, Some(2), NOW);
    one.write(&other, None, NOW);
    exchange(&mut one, &mut two, 100);
    assert!(one.collect(&names[..2]));
    assert_eq!(one.logs.heads("h1").next().map(|head| head.floor), Some(3));
    assert_eq!(one.merged()[&key()].value, None);
    exchange(&mut two, &mut one, 100);
    assert_eq!(two.merged()[&key()].value, None);
    assert!(!two.merged().contains_key(&other));
    // Its writer takes the covered value away; then nothing is left to wait for.
    two.write(&key(), None, NOW);
    for _round in 0..3 {
        exchange(&mut one, &mut two, 100);
        one.collect(&names[..2]);
        two.collect(&names[..2]);
    }
    exchange(&mut one, &mut two, 100);
    assert_eq!((one.logs.entries().count(), two.logs.entries().count()), (0, 0));
}

#[test]
fn an_exchange_that_was_broken_off_or_refused_something_counts_as_not_heard() {
    let (mut one, mut two, _, names) = nodes();
    one.write(&key(), None, NOW);
    one.collect(&names[..2]);
    assert!(!exchange(&mut one, &mut two, 3));
    assert!(!one.collect(&names[..2]));
    let digest = two.logs.digest();
    let mut refusing = Exchange::answering(&two.logs);
    let step = refusing.answer(&mut two.logs, Message::Parts { segments: Vec::new(), rest: Vec::new() }, NOW);
    assert_eq!(step.messages, [Message::Done { has_all: false }]);
    assert_eq!(two.logs.digest(), digest);
}

#[test]
fn a_store_of_before_brings_nothing_back_that_was_removed_and_collected() {
    let (mut one, mut two, _, names) = nodes();
    one.write(&key(), Some(1), NOW);
    exchange(&mut one, &mut two, 100);
    let before = one.store.clone();
    one.write(&key(), None, NOW);
    exchange(&mut one, &mut two, 100);
    assert!(one.collect(&names[..2]));
    exchange(&mut one, &mut two, 100);
    one.restart(before, 9);
    one.write(&[2].as_slice().into(), Some(2), NOW);
    exchange(&mut one, &mut two, 100);
    exchange(&mut one, &mut two, 100);
    for node in [&one, &two] {
        assert_eq!(node.merged().get(&key()).and_then(|item| item.value.clone()), None);
        assert!(node.merged().contains_key(&[2].as_slice().into()));
    }
}

#[test]
fn a_tail_that_is_found_again_brings_nothing_back_that_was_removed_since() {
    let (mut one, mut two, mut three, names) = nodes();
    one.write(&key(), Some(1), NOW);
    one.sync();
    let before = one.store.clone();
    one.write(&[2].as_slice().into(), Some(2), NOW);
    exchange(&mut one, &mut two, 100);
    one.restart(before, 9);
    one.write(&key(), None, NOW);
    exchange(&mut one, &mut three, 100);
    // The one that has the tail is not known here.
    assert!(one.collect(&[names[0].clone(), names[2].clone()]));
    exchange(&mut one, &mut two, 100);
    exchange(&mut one, &mut two, 100);
    for node in [&one, &two] {
        assert_eq!(node.merged().get(&key()).and_then(|item| item.value.clone()), None);
        assert!(node.merged().contains_key(&[2].as_slice().into()), "the tail is not lost");
    }
}

#[test]
fn where_many_wait_a_dead_member_is_not_waited_for_with_keys_that_one_node_alone_writes() {
    let (mut one, mut two, _, _) = nodes();
    let limits = Limits { tombstones: 8, ..Limits::default() };
    one.logs = Logs::new("test", limits);
    let members = [("h2", true), ("h3", false)]
        .map(|(name, is_reachable)| Listener { name: name.into(), is_reachable });
    let mut left = |need: Need| {
        let commit = one.collector.collect(&mut one.writer, &mut one.logs, &members, |_, _| need);
        commit.into_iter().for_each(|commit| one.committed(commit));
        let left = one.logs.tombstones("h1");
        (0..4).for_each(|number| one.write(&[number].as_slice().into(), None, NOW));
        exchange(&mut one, &mut two, 100);
        left
    };
    assert_eq!([left(Need::OwnKey), left(Need::OwnKey)], [0, 4], "half may wait");
    // The same keys again: four of eight.
    let mut more = |need: Need, key: u8| {
        one.write(&[key].as_slice().into(), None, NOW);
        exchange(&mut one, &mut two, 100);
        let commit = one.collector.collect(&mut one.writer, &mut one.logs, &members, |_, _| need);
        commit.into_iter().for_each(|commit| one.committed(commit));
        one.logs.tombstones("h1")
    };
    assert_eq!([more(Need::Nobody, 100), more(Need::Older, 101), more(Need::OwnKey, 102)], [5, 6, 0]);
    exchange(&mut one, &mut two, 100);
    assert_eq!(two.logs.tombstones("h1"), 0);
}
