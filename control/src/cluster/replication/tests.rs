//! Nodes on a simulated network: datagrams are lost and overtake one another, streams break.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::cluster::{
    log::{Limits, Listener},
    records::{delete, put},
    state::{Identity, SigningKey, Wall},
};

const WALL_MS: u64 = 1_796_000_000_000;

/// Numbers that look random (Knuth, MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// The members as one node knows them: all, of which those on its side of a partition answer.
struct Members<'w> {
    own: usize,
    sides: &'w [u8],
    random: &'w mut Random,
}

fn name(number: usize) -> Name {
    format!("h{number}").into()
}

fn number(name: &Name) -> usize {
    name[1..].parse().unwrap()
}

impl Peers for Members<'_> {
    fn random(&mut self, count: usize) -> Vec<Name> {
        let mut chosen = BTreeSet::new();
        for _try in 0..count * 4 {
            let other = self.random.below(self.sides.len() as u64) as usize;
            if chosen.len() < count && other != self.own && self.sides[other] == self.sides[self.own] {
                chosen.insert(other);
            }
        }
        chosen.into_iter().map(name).collect()
    }

    fn all(&self) -> Vec<Listener> {
        let others = (0..self.sides.len()).filter(|other| *other != self.own);
        others
            .map(|other| Listener {
                name: name(other),
                is_reachable: self.sides[other] == self.sides[self.own],
            })
            .collect()
    }
}

#[derive(Debug)]
enum Event {
    Datagram {
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    Message {
        to: usize,
        stream: StreamId,
        bytes: Vec<u8>,
    },
    Tick(usize),
    /// The deadline is another one.
    Wake(usize),
}

struct World {
    nodes: Vec<Replication>,
    sides: Vec<u8>,
    events: BTreeMap<(Duration, u64), Event>,
    now: Duration,
    count: u64,
    random: Random,
    /// Datagrams of a hundred that are lost.
    loss: u64,
    /// The other end of streams.
    ends: BTreeMap<(usize, StreamId), (usize, StreamId)>,
    bytes: usize,
    datagrams: usize,
}

impl World {
    fn new(nodes: usize, loss: u64) -> Self {
        let state = |number: usize| {
            let key = SigningKey::from_bytes(&[number as u8 + 1; 32]);
            let identity = Identity { cluster: "test".to_owned(), name: name(number), key, tag: 1 };
            Replication::new(State::new(identity, Limits::default()), Pace::default(), Duration::ZERO)
        };
        let mut world = Self {
            nodes: (0..nodes).map(state).collect(),
            sides: vec![0; nodes],
            events: BTreeMap::new(),
            now: Duration::ZERO,
            count: 0,
            random: Random(7),
            loss,
            ends: BTreeMap::new(),
            bytes: 0,
            datagrams: 0,
        };
        for node in 0..nodes {
            // Nodes start within the pace of their comparisons.
            let at = Duration::from_millis(world.random.below(5_000));
            world.nodes[node].next_compare = at;
            world.after(at, Event::Tick(node));
        }
        world
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.count += 1;
        self.events.insert((self.now + delay, self.count), event);
    }

    fn with<T>(&mut self, node: usize, act: impl FnOnce(&mut Replication, Time, &mut Members<'_>) -> T) -> T {
        let wall = Wall { own_ms: WALL_MS + self.now.as_millis() as u64, median_ms: WALL_MS + 60_000 };
        let mut peers = Members { own: node, sides: &self.sides, random: &mut self.random };
        act(&mut self.nodes[node], Time { now: self.now, wall }, &mut peers)
    }

    fn follow(&mut self, node: usize, turn: Turn) {
        assert_eq!(turn.refusals, []);
        for action in turn.actions {
            match action {
                Action::Datagram { to, bytes } => {
                    assert!(bytes.len() <= 1_200, "{} bytes", bytes.len());
                    (self.bytes, self.datagrams) = (self.bytes + bytes.len(), self.datagrams + 1);
                    let to = number(&to);
                    if self.sides[to] == self.sides[node] && self.random.below(100) >= self.loss {
                        let delay = Duration::from_micros(200 + self.random.below(1_800));
                        self.after(delay, Event::Datagram { from: node, to, bytes });
                    }
                }
                Action::Open { stream, to } => {
                    let to = number(&to);
                    let time = self.with(node, |_, time, _| time);
                    let other = self.nodes[to].accept(&name(node), time);
                    let Some(other) = other.filter(|_| self.sides[to] == self.sides[node]) else { continue };
                    self.ends.insert((node, stream), (to, other));
                    self.ends.insert((to, other), (node, stream));
                }
                Action::Send { stream, message } => {
                    self.bytes += message.len();
                    let Some(&(to, stream)) = self.ends.get(&(node, stream)) else { continue };
                    if self.sides[to] == self.sides[node] {
                        self.after(Duration::from_millis(2), Event::Message { to, stream, bytes: message });
                    }
                }
                Action::Close(_) => {}
            }
        }
        let deadline = self.nodes[node].deadline().saturating_sub(self.now);
        self.after(deadline, Event::Tick(node));
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            let (node, turn) = match event {
                Event::Datagram { from, to, bytes } => {
                    (to, self.with(to, |own, time, peers| own.datagram(&name(from), &bytes, time, peers)))
                }
                Event::Message { to, stream, bytes } => {
                    (to, self.with(to, |own, time, peers| own.message(stream, &bytes, time, peers)))
                }
                Event::Wake(node) => (node, Turn::default()),
                Event::Tick(node) if self.nodes[node].deadline() > self.now => continue,
                Event::Tick(node) => (node, self.with(node, |own, time, peers| own.tick(time, peers))),
            };
            self.follow(node, turn);
        }
        self.now = end;
    }

    fn write(&mut self, node: usize, record: Record) {
        let turn = self.with(node, |own, time, peers| own.write(vec![record], time, peers));
        self.follow(node, turn.expect("small"));
    }

    fn put(&mut self, node: usize, key: &str) {
        let record = put(self.nodes[node].state().view(), key, b"value", None).expect("small");
        self.write(node, record);
    }

    /// How many nodes have a key.
    fn have(&self, key: &str) -> usize {
        self.nodes.iter().filter(|node| node.state().view().user(key).is_some()).count()
    }

    fn are_equal(&mut self) -> bool {
        let digests: BTreeSet<Digest> = self.nodes.iter_mut().map(|node| node.state.digest()).collect();
        digests.len() == 1
    }
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_change_reaches_every_node_within_half_a_second_though_datagrams_are_lost() {
    let nodes = 60;
    let mut world = World::new(nodes, 5);
    world.run(SECOND);
    for change in 0..5 {
        let key = format!("key-{change}");
        world.put(change * 7, &key);
        world.run(50 * MS);
        assert!(world.have(&key) > nodes * 8 / 10, "{} have {key}", world.have(&key));
        world.run(450 * MS);
        assert_eq!(world.have(&key), nodes);
    }
    let each = world.datagrams / nodes;
    assert!(each < 5 * 20, "{each} datagrams a node for five changes");
}

#[test]
fn a_node_that_writes_without_pause_is_followed_and_costs_datagrams_by_time_and_not_by_change() {
    let nodes = 20;
    let mut world = World::new(nodes, 10);
    for change in 0..500 {
        world.put(3, &format!("key-{}", change % 100));
        world.run(MS);
    }
    world.run(SECOND);
    assert!(world.are_equal());
    assert!(world.datagrams / nodes < 400, "{} datagrams a node", world.datagrams / nodes);
}

#[test]
fn the_sides_of_a_partition_find_what_they_missed() {
    let nodes = 20;
    let mut world = World::new(nodes, 0);
    world.put(0, "before");
    world.run(SECOND);
    world.sides = (0..nodes).map(|node| u8::from(node % 2 == 0)).collect();
    for node in 0..nodes {
        world.put(node, &format!("key-{node}"));
    }
    let large = Record::User { key: "large".into(), value: Some([7; 40_000].as_slice().into()) };
    world.write(1, large);
    world.run(20 * SECOND);
    assert_eq!((world.have("key-0"), world.have("key-1"), world.have("large")), (10, 10, 10));
    world.sides = vec![0; nodes];
    for node in 0..nodes {
        world.with(node, |own, time, _| own.met(time.now));
        world.after(Duration::ZERO, Event::Wake(node));
    }
    world.run(4 * SECOND);
    assert!(world.are_equal());
    assert_eq!(world.have("large"), nodes);
}

#[test]
fn a_node_that_joins_has_everything_within_seconds() {
    let nodes = 20;
    let mut world = World::new(nodes, 2);
    world.sides[19] = 1;
    for node in 0..19 {
        world.put(node, &format!("key-{node}"));
    }
    world.run(SECOND);
    world.sides[19] = 0;
    world.with(19, |own, time, _| own.met(time.now));
    world.after(Duration::ZERO, Event::Wake(19));
    world.run(2 * SECOND);
    assert!((0..19).all(|key| world.nodes[19].state().view().user(&format!("key-{key}")).is_some()));
}

#[test]
fn an_idle_cluster_sends_next_to_nothing_and_removals_are_forgotten_once_all_have_heard() {
    let nodes = 20;
    let mut world = World::new(nodes, 2);
    for node in 0..nodes {
        world.put(node, &format!("key-{node}"));
    }
    world.run(30 * SECOND);
    assert!(world.are_equal());
    world.bytes = 0;
    world.run(60 * SECOND);
    let each = world.bytes / nodes / 60;
    assert!(each < 20, "{each} bytes a node and second");
    for node in 0..nodes {
        let key = format!("key-{node}");
        let record = delete(world.nodes[0].state().view(), &key, None).unwrap().expect("it is there");
        world.write(0, record);
    }
    world.run(240 * SECOND);
    assert!(world.are_equal());
    let left = world.nodes[5].state().logs().entries().count();
    assert_eq!(left, 0, "entries are left");
}

#[test]
fn what_is_no_gossip_and_streams_beyond_the_bound_are_ignored() {
    let mut world = World::new(3, 0);
    for bytes in [&[][..], &[9, 9, 9], &[0, 255, 255, 255], &[1; 1_200]] {
        let turn = world.with(0, |own, time, peers| own.datagram(&name(1), bytes, time, peers));
        assert_eq!(turn.actions, []);
    }
    let time = world.with(0, |_, time, _| time);
    let accepted = (0..100).filter_map(|_| world.nodes[0].accept(&name(1), time)).count();
    assert!((4..50).contains(&accepted));
    // Silent ones make room.
    world.run(11 * SECOND);
    let time = world.with(0, |_, time, _| time);
    let stream = world.nodes[0].accept(&name(1), time).expect("room");
    let turn = world.with(0, |own, time, peers| own.message(stream, &[77; 40], time, peers));
    assert_eq!(turn.actions, [Action::Close(stream)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn datagrams_and_messages_of_any_content_behind_a_right_key_change_nothing_that_is_not_signed(
        damages in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..40),
        noise in vec(vec(any::<u8>(), 0..60), 0..10),
    ) {
        let mut world = World::new(2, 0);
        world.put(0, "key");
        world.put(1, "other");
        let mut said = Vec::new();
        let turn = world.with(0, |own, time, peers| own.tick(time, peers));
        let gossip = [Gossip::Have(vec![(name(0), Default::default())]), Gossip::Digest([1; 16]), Gossip::Differs];
        said.extend(gossip.map(|gossip| gossip.encode()));
        said.extend(turn.actions.into_iter().filter_map(|action| match action {
            Action::Datagram { bytes, .. } => Some(bytes),
            _ => None,
        }));
        let part = world.nodes[0].state().logs();
        let version = part.heads("h0").next().unwrap().version;
        let want = Want { origin: name(0), version, have: Vec::new(), resume: None };
        let segment = part.part(&want, DATAGRAM).unwrap();
        said.push(Gossip::Push(vec![segment.clone()]).encode());
        said.push(Gossip::Ask(want.clone()).encode());
        said.push(Message::Parts { segments: vec![segment], rest: vec![want] }.encode());
        let (before, digest) = (world.nodes[1].state().logs().bytes(), world.nodes[1].state.digest());
        let time = world.with(1, |_, time, _| time);
        let damaged = damages.into_iter().map(|(which, place, value)| {
            let mut bytes = which.get(&said).clone();
            if bytes.is_empty() {
                return bytes;
            }
            let place = place.index(bytes.len());
            bytes[place] ^= value.max(1);
            bytes
        });
        for bytes in damaged.chain(noise).collect::<Vec<_>>() {
            let turn = world.with(1, |own, time, peers| own.datagram(&name(0), &bytes, time, peers));
            prop_assert!(turn.actions.len() < 20);
            if let Some(stream) = world.nodes[1].accept(&name(0), time) {
                let turn = world.with(1, |own, time, peers| own.message(stream, &bytes, time, peers));
                prop_assert!(turn.actions.len() < 20);
            }
        }
        let logs = world.nodes[1].state().logs();
        let taken = logs.heads("h0").next().is_some_and(|head| head.version == version);
        prop_assert!(taken || world.nodes[1].state.digest() == digest);
        prop_assert!(world.nodes[1].state().logs().bytes() < before + 10_000);
    }
}
