//! Any interleaving of writes, removals, relays, partitions, restarts, lost tails and stores, and collected tombstones.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use proptest::{collection::vec, prelude::*};

use super::super::*;
use crate::cluster::clock::Clock;

pub(super) const NOW: u64 = 1_796_000_000_000;

/// A store as a shell would keep it: what effects say, and nothing else.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    heads: BTreeMap<(Name, u32), SignedHead>,
    entries: BTreeMap<(Name, u32), BTreeMap<Key, Item>>,
}

impl Store {
    fn apply(&mut self, effects: Effects) {
        for Change { origin, slot, key, was, now } in effects.changes {
            let entries = self.entries.entry((origin, slot)).or_default();
            let stood = match now {
                Some(item) => entries.insert(key, item),
                None => entries.remove(&key),
            };
            assert_eq!(stood, was, "a change tells what it replaces");
        }
        for (origin, slot, head) in effects.heads {
            match head {
                Some(head) => self.heads.insert((origin, slot), head),
                None => self.heads.remove(&(origin, slot)),
            };
        }
        let has_head = |log: &(Name, u32)| self.heads.contains_key(log);
        self.entries.retain(|log, entries| has_head(log) || !entries.is_empty());
        assert!(self.entries.keys().all(has_head), "a log that goes leaves no entry");
    }

    pub(super) fn load(&self) -> Logs {
        let mut logs = Logs::new("test", Limits::default());
        for ((origin, slot), head) in &self.heads {
            let entries = self.entries.get(&(origin.clone(), *slot)).cloned().unwrap_or_default();
            logs.load(*slot, head.clone(), entries).expect("what was stored is signed");
        }
        logs
    }
}

/// A node with a log of keys that all nodes write.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: Name,
    key: SigningKey,
    pub(super) logs: Logs,
    pub(super) writer: Writer,
    pub(super) collector: Collector,
    clock: Clock,
    pub(super) store: Store,
    /// Steps that are not in the store yet.
    unsynced: Vec<Effects>,
    unsent: Vec<Segment>,
}

impl Node {
    pub(super) fn new(number: u8) -> Self {
        let name = Name::from(format!("h{number}"));
        let key = SigningKey::from_bytes(&[number + 1; 32]);
        let writer = Writer::new(name.clone(), key.clone(), u32::from(number));
        let logs = Logs::new("test", Limits::default());
        let (collector, clock, store) = Default::default();
        Self { name, key, logs, writer, collector, clock, store, unsynced: Vec::new(), unsent: Vec::new() }
    }

    /// Every key with what holds among all logs.
    pub(super) fn merged(&self) -> BTreeMap<Key, Item> {
        merged(&self.logs)
    }

    pub(super) fn write(&mut self, key: &Key, value: Option<u8>, wall_ms: u64) {
        let replaced = self.merged().get(key).map(|item| item.stamp).unwrap_or_default();
        let stamp = self.clock.tick(wall_ms, replaced);
        let value = value.map(|value| [value].as_slice().into());
        let put = Put { key: key.clone(), stamp, writer: None, value };
        let commit = self.writer.write(&mut self.logs, vec![put]).expect("a small record");
        self.committed(commit);
    }

    pub(super) fn committed(&mut self, Commit { effects, push }: Commit) {
        self.took(effects);
        self.unsent.push(push);
    }

    fn took(&mut self, effects: Effects) {
        for change in effects.changes.iter().filter(|change| change.origin != self.name) {
            self.collector.touch(&change.key);
        }
        self.unsynced.push(effects);
    }

    /// Makes durable what was done; gives what may be pushed then.
    pub(super) fn sync(&mut self) -> Vec<Segment> {
        self.unsynced.drain(..).for_each(|effects| self.store.apply(effects));
        std::mem::take(&mut self.unsent)
    }

    /// Starts again from a store.
    pub(super) fn restart(&mut self, store: Store, tag: u32) {
        self.logs = store.load();
        self.store = store;
        self.writer = Writer::new(self.name.clone(), self.key.clone(), tag);
        self.collector = Collector::default();
        let last = self.logs.entries().filter(|(origin, ..)| **origin == self.name);
        self.clock = Clock::after(last.map(|(.., item)| item.stamp).max().unwrap_or_default());
        (self.unsynced, self.unsent) = Default::default();
    }

    pub(super) fn receive(&mut self, segment: Segment) -> Result<Arrival, Refusal> {
        let arrival = self.logs.receive(segment, NOW)?;
        if let Arrival::New(effects) = &arrival {
            self.took(effects.clone());
        }
        self.adopt();
        Ok(arrival)
    }

    fn adopt(&mut self) {
        if let Some(commit) = self.writer.adopt(&mut self.logs) {
            self.committed(commit);
        }
    }

    pub(super) fn collect(&mut self, members: &[Name]) -> bool {
        let older = |key: &Key, tombstone: &Item| {
            let (logs, own) = (&self.logs, &self.name);
            logs.entries().any(|(origin, _, other, item)| {
                origin != own && other == key && item.value.is_some() && item.stamp < tombstone.stamp
            })
        };
        let needed: std::collections::BTreeSet<Key> = self
            .logs
            .entries()
            .filter(|(origin, _, key, item)| {
                **origin == self.name && item.value.is_none() && older(key, item)
            })
            .map(|(_, _, key, _)| key.clone())
            .collect();
        let others = members.iter().filter(|name| **name != self.name);
        let others: Vec<Listener> =
            others.map(|name| Listener { name: name.clone(), is_reachable: true }).collect();
        let need = |key: &Key, _: &Item| if needed.contains(key) { Need::Older } else { Need::Nobody };
        let commit = self.collector.collect(&mut self.writer, &mut self.logs, &others, need);
        let has_collected = commit.is_some();
        commit.into_iter().for_each(|commit| self.committed(commit));
        has_collected
    }
}

pub(super) fn merged(logs: &Logs) -> BTreeMap<Key, Item> {
    let mut merged: BTreeMap<Key, Item> = BTreeMap::new();
    for (_, _, key, item) in logs.entries() {
        let item = Item { seq: 0, ..item.clone() };
        let held = merged.entry(key.clone()).or_insert_with(|| item.clone());
        if held.later(&item).is_lt() {
            *held = item;
        }
    }
    merged
}

/// An exchange of two nodes, broken off after so many messages; whether it came to its end.
pub(super) fn exchange(one: &mut Node, other: &mut Node, mut messages: usize) -> bool {
    one.sync();
    other.sync();
    let (mut asking, first) = Exchange::begin(&mut one.logs);
    let mut answering = Exchange::answering(&other.logs);
    let mut under_way = std::collections::VecDeque::from([(false, first)]);
    while let Some((is_for_one, message)) = under_way.pop_front() {
        if messages == 0 {
            return false;
        }
        messages -= 1;
        let message = Message::decode(&message.encode()).expect("it was encoded");
        let (node, side) = if is_for_one { (&mut *one, &mut asking) } else { (&mut *other, &mut answering) };
        let Step { effects, messages, refusals } = side.answer(&mut node.logs, message, NOW);
        assert_eq!(refusals, [], "nothing of an honest node is refused");
        node.took(effects);
        // Durable before anything is sent.
        node.sync();
        under_way.extend(messages.into_iter().map(|message| (!is_for_one, message)));
    }
    assert!(asking.is_complete() && answering.is_complete(), "{asking:?} {answering:?}");
    one.collector.heard(&other.name, asking.began);
    other.collector.heard(&one.name, answering.began);
    one.adopt();
    other.adopt();
    true
}

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    Write(usize, u8, Option<u8>),
    Sync(usize),
    /// A push that was made arrives, perhaps again, perhaps by another node than it was sent by.
    Push(usize, usize),
    Exchange(usize, usize),
    BrokenExchange(usize, usize, usize),
    Collect(usize),
    /// The unsynced tail is lost.
    Restart(usize),
    /// The store is lost, the key is not.
    LostStore(usize),
    /// The disk has forgotten what it said was durable: a store of before comes back.
    OldStore(usize),
    KeepStore(usize),
}

const NODES: usize = 4;
const KEYS: u8 = 3;

fn event() -> impl Strategy<Value = Event> {
    let node = 0..NODES;
    let pair = (0..NODES, 0..NODES).prop_filter("two nodes", |(one, other)| one != other);
    prop_oneof![
        6 => (node.clone(), 0..KEYS, any::<u8>()).prop_map(|(node, key, value)| Event::Write(node, key, Some(value))),
        4 => (node.clone(), 0..KEYS).prop_map(|(node, key)| Event::Write(node, key, None)),
        4 => node.clone().prop_map(Event::Sync),
        6 => (0_usize..64, node.clone()).prop_map(|(push, node)| Event::Push(push, node)),
        8 => pair.clone().prop_map(|(one, other)| Event::Exchange(one, other)),
        3 => (pair, 0_usize..9).prop_map(|((one, other), messages)| Event::BrokenExchange(one, other, messages)),
        6 => node.clone().prop_map(Event::Collect),
        2 => node.clone().prop_map(Event::Restart),
        1 => node.clone().prop_map(Event::LostStore),
        1 => node.clone().prop_map(Event::OldStore),
        1 => node.prop_map(Event::KeepStore),
    ]
}

/// All nodes, and what is known of what they have ever said.
struct World {
    nodes: Vec<Node>,
    names: Vec<Name>,
    kept: Vec<Store>,
    pushes: Vec<Segment>,
    wall: u64,
    /// By key: the latest item that any store had.
    latest: BTreeMap<Key, Item>,
    /// By key: the latest item that any store has.
    had: BTreeMap<Key, Item>,
}

impl World {
    fn new() -> Self {
        let nodes: Vec<Node> = (0..NODES as u8).map(Node::new).collect();
        let names = nodes.iter().map(|node| node.name.clone()).collect();
        let kept = vec![Store::default(); NODES];
        Self {
            nodes,
            names,
            kept,
            pushes: Vec::new(),
            wall: NOW - 1_000_000,
            latest: BTreeMap::new(),
            had: BTreeMap::new(),
        }
    }

    fn pair(&mut self, one: usize, other: usize) -> (&mut Node, &mut Node) {
        let [one, other] = self.nodes.get_disjoint_mut([one, other]).expect("two nodes");
        (one, other)
    }

    fn happen(&mut self, event: Event) {
        self.wall += 1;
        let wall = self.wall;
        match event {
            Event::Write(node, key, value) => self.nodes[node].write(&[key].as_slice().into(), value, wall),
            Event::Sync(node) => {
                let pushes = self.nodes[node].sync();
                self.pushes.extend(pushes);
            }
            Event::Push(number, node) => {
                if let Some(push) = self.pushes.get(number.min(self.pushes.len().saturating_sub(1))).cloned()
                {
                    self.nodes[node].receive(push).expect("an honest push");
                }
            }
            Event::Exchange(one, other) => {
                let (one, other) = self.pair(one, other);
                assert!(exchange(one, other, 1_000), "an exchange comes to its end");
            }
            Event::BrokenExchange(one, other, messages) => {
                let (one, other) = self.pair(one, other);
                exchange(one, other, messages);
            }
            Event::Collect(node) => {
                let names = self.names.clone();
                self.nodes[node].collect(&names);
            }
            Event::Restart(node) => {
                let store = self.nodes[node].store.clone();
                self.nodes[node].restart(store, wall as u32);
            }
            Event::LostStore(node) => self.lose(node, Store::default()),
            Event::OldStore(node) => self.lose(node, self.kept[node].clone()),
            Event::KeepStore(node) => self.kept[node] = self.nodes[node].store.clone(),
        }
        self.look();
    }

    /// What only a lost store had is lost.
    fn lose(&mut self, node: usize, store: Store) {
        self.look();
        // No two starts draw the same tag.
        let tag = self.wall as u32;
        self.nodes[node].restart(store, tag);
        let stored = self.stored();
        let is_there = |key: &Key, item: &Item| {
            // A tombstone that was collected is in no store, and holds all the same.
            let is_collected = item.value.is_none() && !self.had.contains_key(key);
            is_collected || stored.get(key).is_some_and(|stored| !stored.later(item).is_lt())
        };
        let lost: Vec<Key> = self
            .latest
            .iter()
            .filter(|(key, item)| !is_there(key, item))
            .map(|(key, _)| key.clone())
            .collect();
        for key in lost {
            match stored.get(&key) {
                Some(item) => self.latest.insert(key, item.clone()),
                None => self.latest.remove(&key),
            };
        }
    }

    /// By key: the latest item in all stores.
    fn stored(&self) -> BTreeMap<Key, Item> {
        let mut all: BTreeMap<Key, Item> = BTreeMap::new();
        for (key, item) in self.nodes.iter().flat_map(|node| merged(&node.store.load())) {
            let held = all.entry(key).or_insert_with(|| item.clone());
            if held.later(&item).is_lt() {
                *held = item;
            }
        }
        all
    }

    fn look(&mut self) {
        self.had = self.stored();
        for (key, item) in &self.had {
            let latest = self.latest.entry(key.clone()).or_insert_with(|| item.clone());
            if latest.later(item).is_lt() {
                *latest = item.clone();
            }
        }
    }

    /// All exchange with all until nothing is new.
    fn settle(&mut self) {
        for _round in 0..3 {
            for one in 0..NODES {
                for other in one + 1..NODES {
                    let (one, other) = self.pair(one, other);
                    assert!(exchange(one, other, 1_000));
                }
            }
        }
        self.nodes.iter_mut().for_each(|node| drop(node.sync()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_interleaving_ends_equal_without_a_lost_write_or_a_key_that_comes_back(
        events in vec(event(), 1..90),
    ) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        for node in 0..NODES {
            world.happen(Event::Sync(node));
        }
        world.settle();
        let digests: Vec<Digest> = world.nodes.iter_mut().map(|node| node.logs.digest()).collect();
        prop_assert!(digests.iter().all(|digest| *digest == digests[0]), "replicas differ");
        for node in &world.nodes {
            let merged = node.merged();
            for (key, latest) in &world.latest {
                let item = merged.get(key);
                match &latest.value {
                    Some(_) => prop_assert_eq!(item, Some(latest), "an acknowledged write is lost"),
                    None => prop_assert!(
                        item.is_none_or(|item| item.value.is_none()),
                        "{:?} came back after {:?}", item, latest
                    ),
                }
            }
            prop_assert_eq!(&merged, &merged_again(node), "the store has what the node has");
            prop_assert!(node.logs.heads(&node.name).count() <= 1, "a node continues all of its logs");
        }
        // Once nobody has anything older, no tombstone stays.
        for _round in 0..4 {
            for node in 0..NODES {
                world.happen(Event::Collect(node));
            }
            world.settle();
        }
        let covered = |node: &Node| {
            let shown = node.merged();
            node.logs.entries().filter(|(.., key, item)| {
                item.value.is_none() && shown.get(*key).is_some_and(|shown| shown.value.is_none())
            }).filter(|(_, _, key, _)| {
                !node.logs.entries().any(|(_, _, other, item)| other == *key && item.value.is_some())
            }).count()
        };
        prop_assert_eq!(covered(&world.nodes[0]), 0, "tombstones stay that nothing needs");
    }
}

fn merged_again(node: &Node) -> BTreeMap<Key, Item> {
    merged(&node.store.load())
}
