//! Whatever the order in which logs come, the view is the same.

use proptest::{collection::vec, prelude::*, sample::subsequence};

use super::super::*;
use super::nodes::{Node, cluster, define, names, offer, settle, socket, tidy};
use crate::cluster::log::{Bytes, Key, Limits, Logs, Name};

fn record() -> impl Strategy<Value = Record> {
    let name = || prop_oneof![Just(Name::from("web")), Just(Name::from("dns"))];
    let last = 1_u8..4;
    prop_oneof![
        (name(), last.clone()).prop_map(|(name, last)| define(&name, last)),
        name().prop_map(Record::Undefine),
        (name(), last.clone(), 0_u32..3).prop_map(|(name, last, weight)| offer(&name, last, weight)),
        (name(), last.clone()).prop_map(|(name, last)| Record::Withdraw(name, socket(last))),
        (name(), last, any::<bool>()).prop_map(|(name, last, is_drained)| Record::Drain(
            name,
            socket(last),
            is_drained
        )),
        (0_u8..2, any::<Option<u8>>()).prop_map(|(key, value)| Record::User {
            key: key.to_string().as_str().into(),
            value: value.map(|value| Bytes::from(&[value])),
        }),
        (name(), any::<Option<bool>>()).prop_map(|(group, is_up)| Record::Stand(
            group,
            is_up.map(|is_up| Standing { own: Vec::new(), is_up })
        )),
        (name(), any::<bool>()).prop_map(|(group, is_on)| Record::MarkGroup(group, is_on)),
    ]
}

#[derive(Clone, Debug)]
enum Event {
    Write(usize, Record),
    Meet(usize, usize),
    Push(usize, usize),
    Tend(usize),
    Restart(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0_usize..3, record()).prop_map(|(node, record)| Event::Write(node, record)),
        3 => (0_usize..3).prop_map(|node| Event::Meet(node, (node + 1) % 3)),
        3 => (0_usize..40, 0_usize..3).prop_map(|(push, node)| Event::Push(push, node)),
        3 => (0_usize..3).prop_map(Event::Tend),
        1 => (0_usize..3).prop_map(Event::Restart),
    ]
}

fn happen(nodes: &mut [Node], event: Event, members: &[Name]) {
    match event {
        Event::Write(node, record) => nodes[node].write(vec![record]),
        Event::Meet(one, other) => {
            let [one, other] = nodes.get_disjoint_mut([one, other]).unwrap();
            super::nodes::exchange(one, other);
        }
        Event::Push(number, node) => {
            let pushes: Vec<_> = nodes.iter().flat_map(|node| node.pushes.clone()).collect();
            if let Some(push) = pushes.get(number) {
                let wall = nodes[node].wall();
                let (_, outcome) = nodes[node].state.receive(push.clone(), wall).unwrap();
                nodes[node].took(outcome);
            }
        }
        Event::Tend(node) => nodes[node].tend(members),
        Event::Restart(node) => nodes[node].restart(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn all_nodes_end_with_one_view_which_is_a_function_of_their_logs(events in vec(event(), 1..60)) {
        let mut nodes = cluster(3);
        let members = names(&nodes);
        let mut removed: std::collections::BTreeMap<Name, u64> = Default::default();
        for event in events {
            happen(&mut nodes, event, &members);
            for node in &nodes {
                prop_assert_eq!(node.state.view(), &View::of(node.state.logs()), "the view follows each change");
            }
        }
        settle(&mut nodes);
        tidy(&mut nodes, &members);
        for node in &nodes[1..] {
            prop_assert_eq!(node.state.view(), nodes[0].state.view());
        }
        for node in &nodes {
            for user in node.state.view().users("") {
                let last = removed.entry(user.key.clone()).or_default();
                *last = user.version.max(*last);
            }
            let is_tombstone = |key: &Key| RecordKey::decode(key).is_some();
            let left = node.state.logs().entries().filter(|(.., key, item)| item.value.is_none() && is_tombstone(key));
            prop_assert_eq!(left.count(), 0, "no tombstone stays");
        }
    }

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        writes in vec((0_usize..3, record()), 1..30),
        order in Just((0_usize..30).collect::<Vec<_>>()).prop_shuffle(),
        again in subsequence((0_usize..30).collect::<Vec<_>>(), 0..30),
        split in 0_usize..30,
    ) {
        let mut nodes = cluster(3);
        for (node, record) in writes {
            nodes[node].write(vec![record]);
        }
        let pushes: Vec<_> = nodes.iter().flat_map(|node| node.pushes.clone()).collect();
        let merged = |order: &[usize], into: Option<Logs>| {
            let mut logs = into.unwrap_or_else(|| Logs::new("test", Limits::default()));
            // A push that continues what is not here yet comes again later.
            for _round in 0..pushes.len() {
                for push in order.iter().filter_map(|number| pushes.get(*number)) {
                    let _arrival = logs.receive(push.clone(), super::nodes::NOW).unwrap();
                }
            }
            logs
        };
        let all: Vec<usize> = (0..pushes.len()).collect();
        let mut straight = merged(&all, None);
        let mut shuffled = merged(&order, None);
        let parts = merged(&order[..split], None);
        let mut in_parts = merged(&order, Some(parts));
        let mut repeated = merged(&again, Some(straight.clone()));
        for other in [&mut shuffled, &mut in_parts, &mut repeated] {
            prop_assert_eq!(other.digest(), straight.digest());
            prop_assert_eq!(View::of(other), View::of(&straight));
        }
    }

    #[test]
    fn keys_are_read_as_they_are_written(name in "[a-z0-9-]{1,20}", socket: std::net::SocketAddr, text in "\\PC{1,30}") {
        let socket = std::net::SocketAddr::new(socket.ip(), socket.port());
        let keys = [
            RecordKey::Definition(name.as_str().into()),
            RecordKey::Backend(name.as_str().into(), socket),
            RecordKey::Drain(name.as_str().into(), socket),
            RecordKey::Facts,
            RecordKey::Forgotten(name.as_str().into()),
            RecordKey::User(text.as_str().into()),
            RecordKey::Claim(name.as_str().into(), text.as_str().into()),
            RecordKey::Verdict(name.as_str().into(), socket),
        ];
        for key in keys {
            prop_assert_eq!(RecordKey::decode(&key.encode()), Some(key));
        }
    }

    #[test]
    fn any_bytes_may_stand_in_a_log(entries in vec((vec(any::<u8>(), 1..40), vec(any::<u8>(), 0..40)), 0..20)) {
        let mut logs = Logs::new("test", Limits::default());
        let key = ed25519_dalek::SigningKey::from_bytes(&[99; 32]);
        let mut writer = crate::cluster::log::Writer::new("h1".into(), key, 1);
        let puts = entries.iter().map(|(key, value)| crate::cluster::log::Put {
            key: key.as_slice().into(),
            stamp: Default::default(),
            writer: None,
            value: Some(value.as_slice().into()),
        });
        let commit = writer.write(&mut logs, puts.collect()).unwrap();
        let mut view = View::default();
        view.follow(&commit.effects.changes);
        prop_assert_eq!(&view, &View::of(&logs));
        let gone: Vec<_> = logs.entries().map(|(_, _, key, _)| key.clone()).collect();
        for key in gone {
            let changes: Vec<_> = commit.effects.changes.iter().filter(|change| change.key == key).cloned().collect();
            let taken = changes.into_iter().map(|change| crate::cluster::log::Change { now: None, ..change });
            view.follow(&taken.collect::<Vec<_>>());
        }
        prop_assert_eq!(view, View::default());
    }
}
