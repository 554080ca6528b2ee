use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::cluster::log::Listener;

const MS: Duration = Duration::from_millis(1);

/// Names of members, of which the next ones are always chosen.
struct Others(Vec<Name>);

impl Peers for Others {
    fn random(&mut self, count: usize) -> Vec<Name> {
        let count = count.min(self.0.len());
        let chosen = self.0[..count].to_vec();
        self.0.rotate_left(count);
        chosen
    }

    fn all(&self) -> Vec<Listener> {
        Vec::new()
    }
}

fn name(number: usize) -> Name {
    format!("h{number}").as_str().into()
}

fn events(number: usize) -> Events {
    Events::new(name(number), number as u64)
}

fn others(number: usize) -> Others {
    Others((0..6).filter(|other| *other != number).map(name).collect())
}

#[test]
fn a_message_is_bounded_and_what_is_refused_says_why() {
    let mut node = events(0);
    let mut send = |name: &str, payload: usize| {
        node.send(name, &vec![0; payload], (MS, 0), &mut others(0)).err().map(|error| error.to_string())
    };
    assert_eq!(send(&"n".repeat(64), 1_024), None);
    assert!(send("", 1).is_some_and(|text| text.contains("1 to 64 bytes; this one has 0")));
    assert!(send(&"n".repeat(65), 1).is_some_and(|text| text.contains("65")));
    assert!(send("a\nb", 1).is_some_and(|text| text.contains("control character")));
    assert!(send("n", 1_025).is_some_and(|text| text.contains("1024 bytes; this one has 1025")));
    assert!((0..kept::LIMIT).any(|_| send("n", 0).is_some_and(|text| text.contains("try again"))));
}

#[test]
fn the_largest_datagrams_fit() {
    let mut node = Events::new("n".repeat(63).as_str().into(), u64::MAX);
    node.count = u32::MAX - 1;
    let sent = node.send(&"n".repeat(64), &[7; 1_024], (MS, u64::MAX), &mut others(0)).unwrap();
    let longest = sent.datagrams.iter().map(|(_, bytes)| bytes.len()).max().unwrap();
    assert!(longest <= crate::cluster::membership::Membership::MAX_PAYLOAD, "{longest}");
    let ids = Said::Have(vec![Id(u64::MAX, u32::MAX); AT_A_TIME]);
    assert!(postcard::to_allocvec(&ids).unwrap().len() <= 1_200);
}

#[test]
fn a_message_is_told_once_and_who_missed_it_asks() {
    let (mut sender, mut hearer, mut late) = (events(0), events(1), events(2));
    let sent = sender.send("deploy", b"v2", (MS, 5), &mut others(0)).unwrap();
    assert_eq!(sent.event.as_ref().map(|event| &*event.name), Some("deploy"));
    assert_eq!(sent.datagrams.len(), FAN_OUT);
    let (_, pushed) = &sent.datagrams[0];
    let heard = hearer.datagram(&name(0), pushed, MS, &mut others(1));
    assert_eq!(heard.event, sent.event);
    assert_eq!(heard.datagrams.len(), FAN_OUT, "it goes on");
    let again = hearer.datagram(&name(0), pushed, MS, &mut others(1));
    assert_eq!(again, Step::default());
    let told = sender.tick(200 * MS, &mut others(0));
    let (_, have) = &told.datagrams[0];
    let asks = late.datagram(&name(0), have, 200 * MS, &mut others(2));
    assert_eq!(asks.datagrams[0].0, name(0));
    assert_eq!(late.datagram(&name(3), have, 201 * MS, &mut others(2)), Step::default(), "it was asked for");
    let answer = sender.datagram(&name(2), &asks.datagrams[0].1, 201 * MS, &mut others(0));
    let heard = late.datagram(&name(0), &answer.datagrams[0].1, 202 * MS, &mut others(2));
    assert_eq!(heard.event, sent.event);
}

#[test]
fn after_a_second_nothing_is_said_of_a_message_any_more() {
    let mut node = events(0);
    let _sent = node.send("deploy", b"", (MS, 5), &mut others(0)).unwrap();
    let mut told = 0;
    while node.deadline() < Duration::MAX {
        let now = node.deadline();
        assert!(now < Duration::from_millis(1_100));
        told += node.tick(now, &mut others(0)).datagrams.len();
    }
    assert_eq!(told, 3 * FAN_OUT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn datagrams_of_any_content_are_told_once_each_and_take_bounded_room(
        noise in vec(vec(any::<u8>(), 0..80), 0..20),
        damages in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..60),
        flood in 0_u32..600,
    ) {
        let mut sender = events(0);
        let mut said: Vec<Vec<u8>> = Vec::new();
        for number in 0..3_u8 {
            let step = sender.send("n", &[number; 30], (MS, 5), &mut others(0)).unwrap();
            said.extend(step.datagrams.into_iter().map(|(_, bytes)| bytes));
        }
        said.extend(sender.tick(200 * MS, &mut others(0)).datagrams.into_iter().map(|(_, bytes)| bytes));
        let damaged = damages.into_iter().map(|(which, place, value)| {
            let mut bytes = which.get(&said).clone();
            let place = place.index(bytes.len());
            bytes[place] ^= value;
            bytes
        });
        let event = Event { node: name(0), name: name(0), payload: Bytes::from(&[]), time_ms: 0 };
        let flood = (0..flood).map(|count| {
            postcard::to_allocvec(&Said::Event(Id(9, count), 0, event.clone())).unwrap()
        });
        let mut hearer = events(1);
        let mut told: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for bytes in damaged.chain(noise).chain(flood).collect::<Vec<_>>() {
            for _twice in 0..2 {
                let step = hearer.datagram(&name(0), &bytes, MS, &mut others(1));
                prop_assert!(step.datagrams.len() <= AT_A_TIME);
                prop_assert!(step.datagrams.iter().all(|(_, bytes)| bytes.len() <= 1_200));
                *told.entry(bytes.clone()).or_default() += usize::from(step.event.is_some());
            }
        }
        prop_assert!(told.values().all(|times| *times <= 1));
        prop_assert!(hearer.asked.len() <= ASKED && hearer.kept.take_due(200 * MS).len() <= kept::LIMIT);
    }
}
