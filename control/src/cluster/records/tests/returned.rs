//! A node that comes back and writes before it hears that it was forgotten.

use proptest::{collection::vec, prelude::*};

use super::super::*;
use super::nodes::{NOW, Node, cluster, define, exchange, names, offer, settle, tidy};
use crate::cluster::{clock::Stamp, log::Name};

/// The third of three nodes was forgotten by the first while it was away, and is back.
fn returned() -> Vec<Node> {
    let mut nodes = cluster(3);
    nodes[2].put("former", "1");
    nodes[2].write(vec![offer("web", 9, 1)]);
    settle(&mut nodes);
    nodes[2].put("unheard", "1");
    nodes[0].forget(&"h3".into());
    nodes[2].restart();
    nodes
}

#[test]
fn what_it_wrote_since_its_start_is_written_again_with_its_stamps_and_nothing_else_is() {
    let mut nodes = returned();
    nodes[2].put("kept", "2");
    nodes[2].write(vec![define("web", 1), offer("web", 3, 7)]);
    let version = |node: &Node| node.state.view().user("kept").map(|user| user.version);
    let before = version(&nodes[2]);
    settle(&mut nodes);
    assert!(nodes[2].was_forgotten);
    for node in &nodes {
        assert_eq!(version(node), before);
        assert_eq!(node.offers("web"), [(3, 7, "h3".to_owned())]);
        assert_eq!(["former", "unheard"].map(|key| node.get(key)), [Some("1".to_owned()), None]);
    }
    nodes[2].restart();
    settle(&mut nodes);
    assert_eq!(nodes[1].get("kept").as_deref(), Some("2"));
}

#[test]
fn where_something_later_is_known_of_a_key_that_stays() {
    let mut nodes = returned();
    for key in ["overwritten", "deleted"] {
        nodes[2].put(key, "early");
    }
    let [_, one, back] = nodes.get_disjoint_mut([0, 1, 2]).unwrap();
    // It has not heard that the node was forgotten.
    exchange(one, back);
    one.wall_ms += 100;
    one.put("overwritten", "late");
    one.delete("deleted");
    settle(&mut nodes);
    for node in &nodes {
        assert_eq!(node.get("overwritten").as_deref(), Some("late"));
        assert_eq!(node.get("deleted"), None);
    }
}

#[test]
fn a_removal_counts_as_well() {
    let mut nodes = returned();
    nodes[2].wall_ms += 100;
    nodes[2].delete("former");
    settle(&mut nodes);
    for node in &nodes {
        assert_eq!(node.get("former"), None);
    }
}

#[test]
fn what_was_taken_out_again_is_not_kept_in_mind() {
    let mut node = Node::new(1);
    let names = [node.name()];
    for number in 0..50 {
        node.put(&number.to_string(), "x");
        node.delete(&number.to_string());
    }
    node.tend(&names);
    node.tend(&names);
    assert_eq!(node.state.logs().entries().count(), 0);
    assert_eq!(node.state.fresh(), 0);
}

#[derive(Clone, Debug)]
enum Event {
    Put(usize, u8),
    Delete(usize, u8),
    Meet(usize, usize),
    Push(usize, usize),
    Tend(usize),
    /// The third node goes, the first one forgets it, and it is back.
    Forget,
}

fn event() -> impl Strategy<Value = Event> {
    let node = 0_usize..3;
    prop_oneof![
        5 => (node.clone(), 0_u8..4).prop_map(|(node, key)| Event::Put(node, key)),
        3 => (node.clone(), 0_u8..4).prop_map(|(node, key)| Event::Delete(node, key)),
        3 => node.clone().prop_map(|node| Event::Meet(node, (node + 1) % 3)),
        3 => (0_usize..30, node.clone()).prop_map(|(push, node)| Event::Push(push, node)),
        3 => node.prop_map(Event::Tend),
        1 => Just(Event::Forget),
    ]
}

/// A write that was acknowledged.
struct Write {
    key: Name,
    stamp: Stamp,
    value: Option<String>,
    /// By the third node.
    is_returned: bool,
    /// In a former start of it: it may have been heard of, or not.
    is_former: bool,
}

/// All writes.
#[derive(Default)]
struct Acknowledged(Vec<Write>);

impl Acknowledged {
    fn note(&mut self, node: usize, key: &Name, nodes: &[Node], value: Option<String>) {
        let stamp = nodes[node].state.view().replaced(&RecordKey::User(key.clone()));
        self.0.push(Write { key: key.clone(), stamp, value, is_returned: node == 2, is_former: false });
    }

    fn begin_anew(&mut self) {
        self.0.iter_mut().for_each(|write| write.is_former |= write.is_returned);
    }

    /// Whether a key may have this value: of the latest write, of which two may have one stamp, or of a former start's later one.
    fn allows(&self, key: &Name, value: &Option<String>) -> bool {
        let of_key = || self.0.iter().filter(|write| write.key == *key);
        let Some(last) = of_key().filter(|write| !write.is_former).map(|write| write.stamp).max() else {
            return true;
        };
        of_key().any(|write| write.stamp >= last && write.value == *value)
    }
}

fn happen(nodes: &mut [Node], event: Event, acknowledged: &mut Acknowledged, count: usize) {
    let key = |key: u8| Name::from(key.to_string());
    let members = names(nodes);
    // One clock: a write that comes after another one has heard of it, or of its removal being forgotten.
    nodes.iter_mut().for_each(|node| node.wall_ms = NOW + 10 * count as u64);
    match event {
        Event::Put(node, number) => {
            nodes[node].put(&key(number), &count.to_string());
            acknowledged.note(node, &key(number), nodes, Some(count.to_string()));
        }
        Event::Delete(node, number) if nodes[node].get(&key(number)).is_some() => {
            nodes[node].delete(&key(number));
            acknowledged.note(node, &key(number), nodes, None);
        }
        Event::Delete(..) => {}
        Event::Meet(one, other) => {
            let [one, other] = nodes.get_disjoint_mut([one, other]).unwrap();
            exchange(one, other);
        }
        Event::Push(number, node) => {
            let pushes: Vec<_> = nodes.iter().flat_map(|node| node.pushes.clone()).collect();
            if let Some(push) = pushes.iter().rev().nth(number) {
                let wall = nodes[node].wall();
                if let Ok((_, outcome)) = nodes[node].state.receive(push.clone(), wall) {
                    nodes[node].took(outcome);
                }
            }
        }
        Event::Tend(node) => nodes[node].tend(&members),
        Event::Forget => {
            nodes[2].restart();
            acknowledged.begin_anew();
            nodes[0].forget(&"h3".into());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_it_was_acknowledged_holds_on_all_nodes_and_no_deleted_key_comes_back(events in vec(event(), 1..60)) {
        let mut nodes = cluster(3);
        let members = names(&nodes);
        let mut acknowledged = Acknowledged::default();
        for (count, event) in events.into_iter().enumerate() {
            happen(&mut nodes, event, &mut acknowledged, count);
            for node in &nodes {
                prop_assert_eq!(node.state.view(), &View::of(node.state.logs()), "the view follows each change");
            }
        }
        settle(&mut nodes);
        tidy(&mut nodes, &members);
        for node in &nodes[1..] {
            prop_assert!(node.state.view().users("").eq(nodes[0].state.view().users("")));
        }
        for key in (0_u8..4).map(|key| Name::from(key.to_string())) {
            let value = nodes[1].get(&key);
            prop_assert!(acknowledged.allows(&key, &value), "{}: {:?}: {:?}", key, value, nodes[1].state.view().user(&key));
        }
    }
}
