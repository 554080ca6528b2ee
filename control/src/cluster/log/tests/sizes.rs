//! What is written, sent and kept has bounds.

use super::super::*;
use super::model::{NOW, Node, exchange};
use super::refusals::whole;

fn key(number: u32) -> Key {
    number.to_be_bytes().as_slice().into()
}

/// Two nodes, with the logs of so many others.
fn replicas(origins: u32) -> (Node, Node) {
    let (mut one, mut other) = (Node::new(200), Node::new(201));
    for number in 0..origins {
        let name = Name::from(format!("n{number}"));
        let mut logs = Logs::new("test", Limits::default());
        let mut writer = Writer::new(name, ed25519_dalek::SigningKey::from_bytes(&[7; 32]), 1);
        let put = Put { key: key(number), stamp: Default::default(), writer: None, value: None };
        let push = writer.write(&mut logs, vec![put]).expect("a small record").push;
        one.receive(push.clone()).expect("it is signed");
        other.receive(push).expect("it is signed");
    }
    (one, other)
}

/// The bytes of an exchange of two nodes.
fn bytes(one: &mut Node, other: &mut Node) -> usize {
    let (mut asking, first) = Exchange::begin(&mut one.logs);
    let mut answering = Exchange::answering(&other.logs);
    let (mut bytes, mut under_way) = (0, std::collections::VecDeque::from([(false, first)]));
    while let Some((is_for_one, message)) = under_way.pop_front() {
        bytes += message.encode().len();
        let (node, side) = if is_for_one { (&mut *one, &mut asking) } else { (&mut *other, &mut answering) };
        let step = side.answer(&mut node.logs, message, NOW);
        under_way.extend(step.messages.into_iter().map(|message| (!is_for_one, message)));
    }
    assert!(asking.is_complete());
    bytes
}

#[test]
fn equal_replicas_exchange_a_digest_and_replicas_that_differ_by_one_log_a_kilobyte_or_two() {
    let (mut one, mut other) = replicas(600);
    assert!(bytes(&mut one, &mut other) < 30);
    one.write(&key(1), Some(1), NOW);
    let differing = bytes(&mut one, &mut other);
    assert!(differing < 2_000, "{differing}");
    assert_eq!(one.logs.digest(), other.logs.digest());
}

#[test]
fn one_change_fits_a_datagram_after_any_number_of_starts() {
    let mut node = Node::new(1);
    for start in 0..12 {
        node.write(&key(start), Some(1), NOW);
        node.sync();
        let store = node.store.clone();
        node.restart(store, start);
    }
    node.write(&key(99), Some(1), NOW);
    let push = node.sync().remove(0);
    assert_eq!(push.signed.head.ancestors.len(), MAX_ANCESTORS);
    let length = push.encode().len();
    assert!(length <= push.wire_size() && push.wire_size() < 1_000, "{length} {}", push.wire_size());
    assert_eq!(Segment::decode(&push.encode()).as_ref(), Ok(&push));
    assert_eq!(push.clone().within(DATAGRAM), push);
    let announcement = push.within(100);
    assert!(announcement.entries.is_empty() && !announcement.is_last());
}

#[test]
fn a_change_goes_to_who_has_the_version_before_it_and_others_ask_for_what_they_lack() {
    let (mut writer, mut near, mut far) = (Node::new(1), Node::new(2), Node::new(3));
    writer.write(&key(1), Some(1), NOW);
    near.receive(whole(&writer)).expect("it is signed");
    writer.sync();
    // A push of its own reaches further back than the third node has.
    writer.restart(writer.store.clone(), 7);
    writer.write(&key(2), Some(2), NOW);
    let push = writer.sync().remove(0);
    assert_eq!((push.start, push.entries.len()), (1, 1));
    assert!(matches!(near.receive(push.clone()), Ok(Arrival::New(_))));
    let Ok(Arrival::Gap(want)) = far.receive(push.clone()) else { panic!("it lacks what was before") };
    let answer = near.logs.part(&want, 1_000).expect("a relay has it");
    assert!(matches!(far.receive(answer), Ok(Arrival::New(_))));
    assert_eq!(far.receive(push), Ok(Arrival::Known));
}

#[test]
fn a_push_has_what_was_written_shortly_before_as_far_as_a_datagram_has_room() {
    let (mut writer, mut reader) = (Node::new(1), Node::new(2));
    for number in 0..200 {
        writer.write(&key(number % 90), Some(1), NOW);
    }
    let pushes = writer.sync();
    reader.receive(pushes[0].clone()).expect("the first");
    // Four of five are lost.
    for push in pushes.iter().skip(5).step_by(5) {
        assert!(push.wire_size() <= DATAGRAM && matches!(reader.receive(push.clone()), Ok(Arrival::New(_))));
    }
    assert_eq!(reader.merged().len(), 90);
    let names = [writer.name.clone()];
    writer.write(&key(7), None, NOW);
    assert!(writer.collect(&names));
    let push = writer.sync().pop().expect("a floor is pushed");
    assert_eq!(push.start, 201, "not from under the floor");
    assert!(matches!(reader.receive(push), Ok(Arrival::Gap(_))));
}

#[test]
fn a_large_log_comes_in_parts_and_goes_on_where_it_was_broken_off_while_it_is_written() {
    let (mut writer, mut reader) = (Node::new(1), Node::new(2));
    let put = |number, value: &[u8]| Put {
        key: key(number),
        stamp: crate::cluster::clock::Stamp::at_ms(NOW),
        writer: None,
        value: Some(value.into()),
    };
    let puts = (0..60).map(|number| put(number, &[1; 60_000])).collect();
    let commit = writer.writer.write(&mut writer.logs, puts).expect("3.6 MB");
    writer.committed(commit);
    assert!(!exchange(&mut reader, &mut writer, 16));
    let version = writer.logs.heads("h1").next().expect("written").version;
    let resume = reader.logs.wants(&"h1".into(), &[version]).remove(0).resume.expect("some parts came");
    assert!(resume.since > 8, "{resume:?}");
    let commit =
        writer.writer.write(&mut writer.logs, vec![put(0, b"new"), put(70, b"more")]).expect("small");
    writer.committed(commit);
    let part = reader.logs.wants(&"h1".into(), &[version]).remove(0);
    let part = writer.logs.part(&part, 100_000).expect("it is its own");
    assert_eq!((part.since, part.entries[0].item.seq), (resume.since, resume.since + 1));
    assert!(exchange(&mut reader, &mut writer, 1_000));
    assert_eq!(reader.logs.digest(), writer.logs.digest());
    assert_eq!(reader.logs.entries().count(), 61);
}

#[test]
fn records_that_are_too_large_and_removals_that_are_too_many_are_refused_before_anything_is_written() {
    let limits = Limits { tombstones: 2, origin_bytes: 100_000, ..Limits::default() };
    let mut logs = Logs::new("test", limits);
    let mut writer = Writer::new("h1".into(), ed25519_dalek::SigningKey::from_bytes(&[1; 32]), 1);
    let put = |number: u32, value: Option<usize>| Put {
        key: key(number),
        stamp: Default::default(),
        writer: None,
        value: value.map(|length| vec![0; length].as_slice().into()),
    };
    let mut errors =
        |puts: Vec<Put>| writer.write(&mut logs, puts).map(drop).map_err(|error| error.to_string());
    assert_eq!(errors(vec![put(0, None), put(1, None), put(2, Some(9))]), Ok(()));
    let error = errors(vec![put(3, Some(1)), put(4, None)]).expect_err("a third removal");
    assert!(error.starts_with("2 removals wait for every member"), "{error}");
    let error = errors(vec![put(3, Some(1)), put(5, Some(MAX_VALUE + 1))]).expect_err("too large");
    assert!(error.contains("this one has 4 and 66561"), "{error}");
    let error = errors(vec![put(3, Some(1)), put(5, Some(60_000)), put(6, Some(60_000))]).expect_err("full");
    assert!(error.contains("100000 bytes"), "{error}");
    assert_eq!(logs.entries().count(), 3);
}
