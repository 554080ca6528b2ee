//! What is not an origin's is refused, and says whose it claims to be.

use ed25519_dalek::SigningKey;
use proptest::{collection::vec, prelude::*};

use super::super::*;
use super::model::{NOW, Node};

fn key(number: u8) -> Key {
    [number].as_slice().into()
}

/// A node with some keys, and the segment that holds them all.
fn writer_with(keys: u8) -> (Node, Segment) {
    let mut node = Node::new(1);
    for number in 0..keys {
        node.write(&key(number), Some(number), NOW);
    }
    let segment = whole(&node);
    (node, segment)
}

/// All that a node has written.
pub(super) fn whole(node: &Node) -> Segment {
    let version = node.logs.heads(&node.name).next().expect("it has written").version;
    let want = Want { origin: node.name.clone(), version, have: Vec::new(), resume: None };
    node.logs.part(&want, 1 << 20).expect("it has its own log")
}

fn taken(logs: &mut Logs, segment: &Segment) -> Result<bool, Refusal> {
    logs.receive(segment.clone(), NOW).map(|arrival| matches!(arrival, Arrival::New(_)))
}

#[test]
fn a_record_that_a_relay_has_altered_is_refused_and_the_true_one_is_taken() {
    let (_, segment) = writer_with(3);
    let mut logs = Logs::new("test", Limits::default());
    let alterations: [fn(&mut Vec<Entry>); 4] = [
        |entries| entries[1].item.value = Some([9].as_slice().into()),
        |entries| drop(entries.remove(1)),
        |entries| entries[1].item.stamp = entries[1].item.stamp.next(),
        |entries| entries[1].item.writer = Some("h2".into()),
    ];
    for alter in alterations {
        let mut altered = segment.clone();
        alter(&mut altered.entries);
        assert_eq!(taken(&mut logs, &altered), Err(Refusal::Altered("h1".to_owned())));
        assert_eq!((logs.bytes(), logs.origins().count()), (0, 0));
    }
    assert_eq!(taken(&mut logs, &segment), Ok(true));
}

#[test]
fn a_difference_that_was_altered_changes_nothing_and_everything_is_asked_for_then() {
    let (mut node, segment) = writer_with(3);
    let mut logs = Logs::new("test", Limits::default());
    assert_eq!(taken(&mut logs, &segment), Ok(true));
    let before = (logs.digest(), logs.bytes());
    node.sync();
    node.restart(node.store.clone(), 7);
    node.write(&key(1), None, NOW);
    let push = node.sync().remove(0);
    let mut altered = push.clone();
    altered.entries[0].item.value = Some([9].as_slice().into());
    assert_eq!(taken(&mut logs, &altered), Err(Refusal::Altered("h1".to_owned())));
    assert_eq!((logs.digest(), logs.bytes()), before);
    let wants = logs.wants(&node.name, &[push.signed.head.version]);
    assert_eq!(wants[0].have, []);
    assert_eq!(taken(&mut logs, &push), Ok(true));
}

#[test]
fn a_holder_of_the_cluster_key_writes_in_no_other_nodes_name() {
    let (_, segment) = writer_with(1);
    let mut logs = Logs::new("test", Limits::default());
    let mut head = segment.signed.head.clone();
    let forger = SigningKey::from_bytes(&[77; 32]);
    let forged =
        |head: &Head| Segment { signed: SignedHead::new(head.clone(), "test", &forger), ..segment.clone() };
    assert_eq!(taken(&mut logs, &forged(&head)), Err(Refusal::Forged("h1".to_owned())));
    assert_eq!(taken(&mut logs, &segment), Ok(true));
    head.version.seq += 1;
    assert_eq!(
        taken(&mut logs, &Segment { upto: head.version.seq, ..forged(&head) }),
        Err(Refusal::Forged("h1".to_owned()))
    );
    // A node that was set up anew under an old name.
    head.key = forger.verifying_key().to_bytes();
    let anew = Segment { upto: head.version.seq, ..forged(&head) };
    assert_eq!(taken(&mut logs, &anew), Err(Refusal::OtherKey("h1".to_owned())));
    let _dropped = logs.forget("h1", 0);
    assert_eq!(taken(&mut logs, &anew), Err(Refusal::OtherKey("h1".to_owned())), "nothing was born before");
    let _dropped = logs.forget("h1", head.born);
    head.born += 1;
    head.version.epoch.count += 1;
    let born_later = Segment { upto: head.version.seq, ..forged(&head) };
    assert_eq!(taken(&mut logs, &born_later), Ok(true));
}

#[test]
fn another_clusters_log_is_refused() {
    let (_, segment) = writer_with(1);
    let mut logs = Logs::new("other", Limits::default());
    assert_eq!(taken(&mut logs, &segment), Err(Refusal::Forged("h1".to_owned())));
}

#[test]
fn an_old_head_that_is_replayed_changes_nothing() {
    let (mut node, old) = writer_with(1);
    node.write(&key(0), None, NOW);
    let new = whole(&node);
    let mut logs = Logs::new("test", Limits::default());
    assert_eq!(taken(&mut logs, &new), Ok(true));
    let digest = logs.digest();
    assert_eq!(logs.receive(old, NOW), Ok(Arrival::Known));
    assert_eq!(logs.digest(), digest);
}

#[test]
fn a_stamp_beyond_a_minute_ahead_is_refused_with_its_writers_name() {
    let mut node = Node::new(1);
    node.write(&key(0), Some(0), NOW + 61_000);
    let segment = whole(&node);
    let mut logs = Logs::new("test", Limits::default());
    let refusal = taken(&mut logs, &segment).expect_err("it is ahead");
    assert!(refusal.to_string().starts_with("the clock of h1 is 61 s ahead"), "{refusal}");
    assert_eq!(logs.receive(segment, NOW + 2_000).map(|arrival| arrival != Arrival::Known), Ok(true));
}

#[test]
fn two_logs_of_one_version_are_told() {
    let (_, segment) = writer_with(1);
    let mut logs = Logs::new("test", Limits::default());
    assert_eq!(taken(&mut logs, &segment), Ok(true));
    let mut twin = Node::new(1);
    twin.write(&key(0), Some(7), NOW);
    assert_eq!(taken(&mut logs, &whole(&twin)), Err(Refusal::Forked("h1".to_owned())));
}

#[test]
fn a_node_that_writes_beside_this_one_under_its_name_is_told() {
    let (mut node, segment) = writer_with(1);
    let mut twin = Node::new(1);
    twin.receive(segment).expect("its own");
    twin.write(&key(0), Some(7), NOW);
    assert_eq!(node.receive(whole(&twin)), Err(Refusal::Twin("h1".to_owned())));
}

#[test]
fn a_node_that_was_forgotten_is_taken_again_with_a_new_log_alone() {
    let (mut node, old) = writer_with(2);
    let mut logs = Logs::new("test", Limits::default());
    assert_eq!(taken(&mut logs, &old), Ok(true));
    let born = old.signed.head.born;
    let gone = logs.forget("h1", born);
    assert_eq!((gone.changes.len(), gone.heads.len(), logs.bytes()), (2, 1, 0));
    assert_eq!(taken(&mut logs, &old), Err(Refusal::Forgotten("h1".to_owned())));
    node.write(&key(0), Some(9), NOW);
    assert_eq!(taken(&mut logs, &whole(&node)), Err(Refusal::Forgotten("h1".to_owned())), "it goes on");
    let dropped = node.writer.begin_anew(&mut node.logs, born);
    assert_eq!(dropped.changes.len(), 2);
    node.write(&key(5), Some(5), NOW);
    assert_eq!(taken(&mut logs, &whole(&node)), Ok(true));
    assert_eq!(logs.entries().count(), 1);
}

#[test]
fn a_node_holds_no_more_than_its_limits() {
    let limits = Limits { origins: 2, origin_bytes: 2_000, bytes: 3_000, tombstones: 1 };
    let mut logs = Logs::new("test", limits);
    let refusals: Vec<String> = (1..20)
        .filter_map(|number| {
            let mut node = Node::new(number);
            for keys in 0..number {
                node.write(&key(keys), Some(0), NOW);
            }
            taken(&mut logs, &whole(&node)).err().map(|refusal| refusal.to_string())
        })
        .collect();
    assert_eq!(refusals.len(), 17);
    assert!(refusals[0].contains("at most 2 nodes' logs"), "{}", refusals[0]);
    assert!(logs.bytes() <= limits.bytes);
}

#[test]
fn logs_of_which_only_parts_come_make_room_for_whole_ones() {
    let limits = Limits { bytes: 3_000, ..Limits::default() };
    let mut logs = Logs::new("test", limits);
    for number in 2..20 {
        let mut node = Node::new(number);
        (0..9).for_each(|keys| node.write(&key(keys), Some(0), NOW));
        let mut part = whole(&node);
        part.entries.truncate(8);
        part.upto = 8;
        assert!(matches!(logs.receive(part, NOW), Ok(Arrival::Part(_))));
        assert!(logs.bytes() <= limits.bytes);
    }
    let (_, segment) = writer_with(10);
    assert_eq!(taken(&mut logs, &segment), Ok(true));
}

proptest! {
    #[test]
    fn bytes_that_are_no_message_are_told_and_messages_of_any_content_do_no_harm(
        bytes in vec(any::<u8>(), 0..300),
        place in 0_usize..400,
        value: u8,
    ) {
        let mut logs = Logs::new("test", Limits::default());
        let (_, segment) = writer_with(2);
        let _new = logs.receive(segment.clone(), NOW);
        let digest = logs.digest();
        let want = Want { origin: "h1".into(), version: segment.signed.head.version, have: Vec::new(), resume: None };
        let honest = [
            Message::Parts { segments: vec![segment.clone()], rest: vec![want.clone()] },
            Message::Wants(vec![want]),
            Message::Leaves(vec![(3, vec![[1; 16]; 16])]),
        ];
        let damaged = honest.map(|message| {
            let mut bytes = message.encode();
            let place = place % bytes.len();
            bytes[place] = value;
            bytes
        });
        for bytes in damaged.into_iter().chain([bytes]) {
            if let Ok(message) = Message::decode(&bytes) {
                let mut exchange = Exchange::answering(&logs);
                let step = exchange.answer(&mut logs, message, NOW);
                prop_assert!(step.messages.iter().all(|message| message.encode().len() < MAX_MESSAGE));
                prop_assert_eq!(logs.digest(), digest, "nothing was signed, nothing is taken");
            }
        }
    }

    #[test]
    fn a_segment_with_any_numbers_is_refused_or_known(start: u64, since: u64, upto: u64, floor: u64, seq: u64) {
        let (_, mut segment) = writer_with(2);
        let mut logs = Logs::new("test", Limits::default());
        (segment.start, segment.since, segment.upto) = (start % 4, since % 4, upto % 4);
        segment.entries[0].item.seq = seq;
        segment.signed.head.floor = floor;
        prop_assert!(!matches!(logs.receive(segment.clone(), NOW), Ok(Arrival::New(_))));
        prop_assert_eq!(logs.entries().count(), 0);
    }
}
