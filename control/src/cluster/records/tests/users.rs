//! User keys, nodes that are forgotten, and clocks.

use super::super::*;
use super::nodes::{NOW, Node, cluster, define, exchange, names, offer, settle, tidy};
use crate::cluster::log::Name;

#[test]
fn a_user_key_is_bounded_and_what_is_refused_says_why() {
    let mut node = Node::new(1);
    let error = |node: &Node, key: &str, value: usize| {
        put(node.state.view(), key, &vec![0; value], None).err().map(|error| error.to_string())
    };
    assert_eq!(error(&node, &"k".repeat(512), 65_536), None);
    assert!(error(&node, "", 1).is_some_and(|text| text.contains("1 to 512 bytes; this one has 0")));
    assert!(error(&node, &"k".repeat(513), 1).is_some_and(|text| text.contains("512")));
    assert!(error(&node, "a\nb", 1).is_some_and(|text| text.contains("control character")));
    assert!(error(&node, "k", 65_537).is_some_and(|text| text.contains("65536")));
    for number in 0..255 {
        let record = put(node.state.view(), &format!("{number:03}"), &[7; 65_536], None).expect("room");
        node.write(vec![record]);
    }
    assert_eq!(error(&node, "last", 60_000), None);
    assert!(error(&node, "last", 65_536).is_some_and(|text| text.contains("16777216")));
    assert_eq!(error(&node, "007", 65_536), None, "it takes the place of what is there");
    node.write(vec![delete(node.state.view(), "007", None).unwrap().unwrap()]);
    assert_eq!(error(&node, "last", 65_532), None);
    assert_eq!(node.state.view().user_bytes(), 254 * 65_539);
}

#[test]
fn compare_and_set_goes_by_versions_and_one_member_decides_on_a_key() {
    let mut node = Node::new(1);
    let set = |node: &Node, expected| put(node.state.view(), "leader", b"h1", Some(expected));
    assert!(matches!(set(&node, 5), Err(UserError::Version { version: 0, expected: 5, .. })));
    let record = set(&node, 0).expect("it is not there");
    node.write(vec![record]);
    let version = node.state.view().user("leader").unwrap().version;
    assert!(matches!(set(&node, 0), Err(UserError::Version { expected: 0, .. })));
    let record = set(&node, version).expect("its version");
    node.write(vec![record]);
    assert!(node.state.view().user("leader").unwrap().version > version);
    assert_eq!(delete(node.state.view(), "none", None), Ok(None));
    assert!(delete(node.state.view(), "leader", Some(version)).is_err());

    let members: Vec<Name> = (0..20).map(|number| Name::from(format!("h{number}"))).collect();
    let owners = |members: &[Name]| -> Vec<Name> {
        (0..400).map(|key| owner_of(&format!("key/{key}"), members).unwrap().clone()).collect()
    };
    let (all, fewer) = (owners(&members), owners(&members[..19]));
    let moved = all.iter().zip(&fewer).filter(|(one, other)| one != other);
    assert!(moved.clone().all(|(one, _)| *one == members[19]), "only the keys of the one that went move");
    assert!((5..50).contains(&moved.count()));
    assert_eq!(owner_of("key", &[]), None);
}

#[test]
fn a_watcher_is_told_what_is_there_then_what_changes_and_to_begin_again_when_it_was_too_slow() {
    let mut node = Node::new(1);
    let mut watcher = Watcher::new("a/", 3);
    let follow = |node: &mut Node, watcher: &mut Watcher| {
        let touched = std::mem::take(&mut node.touched);
        watcher.follow(&touched.users);
    };
    let told = |node: &Node, watcher: &mut Watcher| -> Vec<String> {
        let all = std::iter::from_fn(|| watcher.next(node.state.view()));
        all.map(|event| match event {
            Event::Put { key, value, .. } => format!("{key}={}", value.as_slice().escape_ascii()),
            Event::Delete { key } => format!("-{key}"),
            Event::Ready => "ready".to_owned(),
            Event::Resync => "resync".to_owned(),
        })
        .collect()
    };
    for key in ["a/1", "a/3", "b"] {
        node.put(key, "x");
        follow(&mut node, &mut watcher);
    }
    assert!(matches!(watcher.next(node.state.view()), Some(Event::Put { .. })));
    // While the list is told: one key that was told, one that is not yet.
    node.put("a/1", "y");
    follow(&mut node, &mut watcher);
    node.put("a/2", "z");
    follow(&mut node, &mut watcher);
    assert_eq!(told(&node, &mut watcher), ["a/1=y", "a/2=z", "a/3=x", "ready"]);
    node.write(vec![delete(node.state.view(), "a/2", None).unwrap().unwrap()]);
    follow(&mut node, &mut watcher);
    node.put("b", "w");
    follow(&mut node, &mut watcher);
    assert_eq!(told(&node, &mut watcher), ["-a/2"]);
    for value in ["1", "2", "3", "4", "5"] {
        node.put("a/9", value);
        follow(&mut node, &mut watcher);
    }
    assert_eq!(told(&node, &mut watcher), ["a/9=5"]);
    for key in ["a/4", "a/5", "a/6", "a/7", "a/8"] {
        node.put(key, "x");
        follow(&mut node, &mut watcher);
    }
    let all = ["a/1=y", "a/3=x", "a/4=x", "a/5=x", "a/6=x", "a/7=x", "a/8=x", "a/9=5"];
    assert_eq!(told(&node, &mut watcher), [&["resync"][..], &all, &["ready"]].concat());
}

#[test]
fn a_node_that_is_forgotten_leaves_what_it_wrote_for_the_cluster_and_returns_as_a_new_one() {
    let mut nodes = cluster(4);
    nodes[2].write(vec![define("web", 1), offer("web", 3, 1), Record::Facts(Facts::default())]);
    nodes[2].put("key", "value");
    nodes[0].put("gone", "x");
    settle(&mut nodes);
    nodes[2].delete("gone");
    // What only the fourth has heard of is not lost.
    let [lost, fourth] = nodes.get_disjoint_mut([2, 3]).unwrap();
    lost.put("late", "value");
    exchange(lost, fourth);
    nodes[0].forget(&"h3".into());
    let mut gone = nodes.remove(2);
    settle(&mut nodes);
    for node in &nodes {
        let view = node.state.view();
        assert_eq!(node.vip("web"), Some(super::nodes::vip(1)));
        assert_eq!(node.offers("web"), []);
        assert_eq!(view.facts().count(), 0);
        assert_eq!(node.get("key").as_deref(), Some("value"));
        assert_eq!(node.get("late").as_deref(), Some("value"));
        assert_eq!(node.get("gone"), None);
        assert_eq!(view.user("key").map(|value| &**value.node), Some("h3"));
        assert_eq!(view.forgotten("h3").map(|(by, _)| &**by), Some("h1"));
    }
    // It has gone on writing, and comes back.
    gone.write(vec![offer("web", 4, 1)]);
    gone.restart();
    exchange(&mut gone, &mut nodes[1]);
    assert!(gone.was_forgotten);
    assert_eq!(gone.offers("web"), []);
    gone.write(vec![offer("web", 5, 1)]);
    gone.restart();
    nodes.push(gone);
    settle(&mut nodes);
    for node in &nodes {
        assert_eq!(node.offers("web"), [(5, 1, "h3".to_owned())]);
    }
}

#[test]
fn a_node_whose_clock_was_ahead_stamps_its_records_anew() {
    let mut nodes = cluster(2);
    nodes[0].wall_ms = NOW + 86_400_000;
    nodes[0].put("a", "1");
    nodes[0].put("b", "2");
    nodes[0].wall_ms = NOW;
    nodes[0].restart();
    nodes[0].put("c", "3");
    settle(&mut nodes);
    for node in &nodes {
        assert_eq!(
            ["a", "b", "c"].map(|key| node.get(key)),
            ["1", "2", "3"].map(|value| Some(value.to_owned()))
        );
        assert!(node.state.view().users("").all(|user| user.time_ms < NOW + 60_000));
    }
}

#[test]
fn a_key_that_many_nodes_write_and_delete_ends_in_one_log_and_then_in_none() {
    let mut nodes = cluster(3);
    let names = names(&nodes);
    for node in 0..3 {
        nodes[node].put("key", &node.to_string());
        settle(&mut nodes);
    }
    for _round in 0..3 {
        nodes.iter_mut().for_each(|node| node.tend(&names));
        settle(&mut nodes);
    }
    for node in &nodes {
        assert_eq!((node.get("key").as_deref(), node.state.logs().entries().count()), (Some("2"), 1));
    }
    nodes[0].delete("key");
    settle(&mut nodes);
    tidy(&mut nodes, &names);
    assert!(nodes.iter().all(|node| node.state.logs().entries().count() == 0));
    let others = names.iter().filter(|name| ***name != *"h1");
    assert_eq!(nodes[0].state.behind(others), Vec::<&Name>::new());
}

#[test]
fn a_node_that_lost_its_store_finds_what_it_wrote_at_others_and_its_files_write_nothing() {
    let mut nodes = cluster(3);
    let file = [super::nodes::service("web", 1, &[1, 2])];
    nodes[0].file("a", &file);
    nodes[0].put("key", "early");
    settle(&mut nodes[..2]);
    nodes[0].put("late", "value");
    let [one, _, third] = nodes.get_disjoint_mut([0, 1, 2]).unwrap();
    exchange(one, third);
    one.lose_store();
    one.put("new", "value");
    settle(&mut nodes[..2]);
    assert_eq!(nodes[0].file("a", &file), []);
    settle(&mut nodes);
    for node in &nodes {
        let values = ["key", "late", "new"].map(|key| node.get(key));
        assert_eq!(values, ["early", "value", "value"].map(|value| Some(value.to_owned())));
        assert_eq!(node.offers("web").len(), 2);
        assert_eq!(node.state.logs().heads("h1").count(), 1);
    }
}

#[test]
fn a_node_with_another_name_takes_its_records_along() {
    let mut nodes = cluster(2);
    nodes[0].write(vec![define("web", 1), offer("web", 1, 3), Record::Facts(Facts::default())]);
    nodes[0].put("key", "value");
    settle(&mut nodes);
    assert_eq!(nodes[0].state.former_name(), None);
    nodes[0].restart_as("renamed");
    let former = nodes[0].state.former_name().unwrap().clone();
    assert_eq!(&*former, "h1");
    let wall = nodes[0].wall();
    let outcome = nodes[0].state.rename_from(&former, wall).unwrap();
    nodes[0].took(outcome);
    settle(&mut nodes);
    for node in &nodes {
        assert_eq!(node.offers("web"), [(1, 3, "renamed".to_owned())]);
        assert_eq!(
            (node.vip("web"), node.get("key").as_deref()),
            (Some(super::nodes::vip(1)), Some("value"))
        );
        assert_eq!(node.state.view().facts().map(|(name, _)| &**name).collect::<Vec<_>>(), ["renamed"]);
        assert_eq!(node.state.logs().heads("h1").count(), 0);
    }
    nodes[0].restart_as("renamed");
    assert_eq!(nodes[0].state.former_name(), None);
}
