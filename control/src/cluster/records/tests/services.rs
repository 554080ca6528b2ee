//! Services: definitions of the cluster, backends of nodes, files.

use super::super::*;
use super::nodes::{NOW, cluster, define, names, offer, service, settle, socket, tidy, vip};
use crate::cluster::log::{Key, Name};

#[test]
fn the_last_writer_of_a_definition_wins_on_every_node() {
    let mut nodes = cluster(3);
    nodes[0].write(vec![define("web", 1), offer("web", 1, 1)]);
    settle(&mut nodes);
    nodes[1].wall_ms = NOW + 500;
    nodes[1].write(vec![define("web", 2)]);
    nodes[0].write(vec![define("web", 3)]);
    settle(&mut nodes);
    assert!(nodes.iter().all(|node| node.vip("web") == Some(vip(2))));
    // What is written in the knowledge of a record is later than it, whatever the clock says.
    nodes[0].write(vec![define("web", 4)]);
    settle(&mut nodes);
    assert!(nodes.iter().all(|node| node.vip("web") == Some(vip(4))));
    assert!(nodes.iter().all(|node| node.offers("web") == [(1, 1, "h1".to_owned())]));
}

#[test]
fn a_service_that_is_removed_takes_all_backends_and_marks_along_and_one_made_later_begins_without() {
    let mut nodes = cluster(3);
    nodes[0].write(vec![define("web", 1), offer("web", 1, 1)]);
    settle(&mut nodes);
    nodes[1].write(vec![offer("web", 2, 1), Record::Drain("web".into(), socket(1), true)]);
    settle(&mut nodes[..2]);
    // The third hears of neither the removal nor the new service until later, and contributes meanwhile.
    nodes[2].write(vec![offer("web", 3, 1)]);
    nodes[0].wall_ms += 100;
    nodes[0].write(vec![Record::Undefine("web".into())]);
    settle(&mut nodes[..2]);
    assert_eq!((nodes[1].vip("web"), nodes[1].offers("web")), (None, vec![]));
    nodes[1].write(vec![define("web", 2), offer("web", 9, 1)]);
    settle(&mut nodes);
    let names = names(&nodes);
    tidy(&mut nodes, &names);
    for node in &nodes {
        assert_eq!(node.offers("web"), [(9, 1, "h2".to_owned())]);
        assert_eq!(node.state.view().service("web").unwrap().drained().count(), 0);
        // Nothing of what was is left, and nothing waits.
        assert_eq!(
            node.state.logs().entries().count(),
            2,
            "{:?}",
            node.state.logs().entries().collect::<Vec<_>>()
        );
    }
}

#[test]
fn of_two_services_with_one_vip_the_older_one_has_it() {
    let mut nodes = cluster(2);
    nodes[0].wall_ms = NOW + 5;
    nodes[0].write(vec![define("zeta", 1)]);
    nodes[1].wall_ms = NOW + 50;
    nodes[1].write(vec![define("alpha", 1)]);
    settle(&mut nodes);
    // To change it later does not make it younger.
    nodes[0].wall_ms = NOW + 5_000;
    nodes[0].write(vec![define("zeta", 1)]);
    settle(&mut nodes);
    for node in &mut nodes {
        let view = node.state.view();
        assert_eq!(view.holder(&vip(1), "alpha").map(|name| &**name), Some("zeta"));
        assert_eq!(view.holder(&vip(1), "zeta"), None);
        assert_eq!(view.behind(&vip(1), "zeta").map(|name| &**name).collect::<Vec<_>>(), ["alpha"]);
        assert_eq!(node.touched.services, ["alpha", "zeta"].map(Name::from).into());
        node.touched = Touched::default();
    }
    nodes[1].write(vec![Record::Undefine("zeta".into())]);
    assert_eq!(nodes[1].touched.services, ["alpha", "zeta"].map(Name::from).into());
    assert_eq!(nodes[1].state.view().holder(&vip(1), "alpha"), None);
}

#[test]
fn a_file_writes_when_it_differs_from_what_was_written_from_it_and_a_restart_writes_nothing() {
    let mut nodes = cluster(2);
    let file = "/etc/fanlight/fanlight.toml";
    assert_eq!(nodes[0].file(file, &[service("web", 1, &[1, 2])]).len(), 4);
    settle(&mut nodes);
    nodes[1].write(vec![define("web", 7)]);
    settle(&mut nodes);
    nodes[0].restart();
    assert_eq!(nodes[0].file(file, &[service("web", 1, &[2, 1])]), []);
    assert_eq!(nodes[0].vip("web"), Some(vip(7)));
    let parts = nodes[0].state.view().service("web").unwrap();
    assert_eq!(overruled(parts, &nodes[0].name()).map(|own| &**own), Some(file));
    assert_eq!(overruled(parts, &nodes[1].name()), None);
    // The file changes: it holds again, with the backends that it names.
    nodes[0].file(file, &[service("web", 1, &[2, 3])]);
    settle(&mut nodes);
    assert_eq!(nodes[1].vip("web"), Some(vip(1)));
    assert_eq!(nodes[1].offers("web"), [(2, 1, "h1".to_owned()), (3, 1, "h1".to_owned())]);
    // A removal by another node is not overruled either.
    nodes[1].write(vec![Record::Undefine("web".into())]);
    settle(&mut nodes);
    nodes[0].restart();
    assert_eq!(nodes[0].file(file, &[service("web", 1, &[2, 3])]), []);
    assert_eq!(nodes[0].vip("web"), None);
}

#[test]
fn what_a_file_no_longer_has_goes_unless_it_is_anothers() {
    let mut nodes = cluster(2);
    nodes[0].file("a", &[service("web", 1, &[1]), service("dns", 2, &[1])]);
    settle(&mut nodes);
    nodes[1].file("b", &[service("dns", 2, &[5])]);
    nodes[0].write(vec![offer("dns", 8, 1)]);
    settle(&mut nodes);
    nodes[0].file("a", &[]);
    settle(&mut nodes);
    assert_eq!((nodes[1].vip("web"), nodes[1].offers("web")), (None, vec![]));
    assert_eq!(nodes[1].vip("dns"), Some(vip(2)));
    assert_eq!(nodes[1].offers("dns"), [(5, 1, "h2".to_owned()), (8, 1, "h1".to_owned())]);
}

#[test]
fn files_of_live_nodes_that_disagree_are_a_conflict_of_both() {
    let mut nodes = cluster(2);
    nodes[0].file("a", &[service("web", 1, &[1])]);
    nodes[1].file("b", &[service("web", 2, &[1])]);
    settle(&mut nodes);
    for node in &nodes {
        let parts = node.state.view().service("web").unwrap();
        let files = [("h1", "a"), ("h2", "b")].map(|(node, file)| (Name::from(node), Name::from(file)));
        assert_eq!(conflict(parts, |_| true), Some(Conflict { files: files.to_vec() }));
        assert_eq!(conflict(parts, |node| node == "h1"), None);
    }
    nodes[1].file("b", &[service("web", 1, &[1, 2])]);
    settle(&mut nodes);
    let parts = nodes[0].state.view().service("web").unwrap();
    assert_eq!(conflict(parts, |_| true), None);
}

#[test]
fn what_a_later_version_writes_is_kept_and_passed_on_and_known_values_may_grow() {
    let mut nodes = cluster(3);
    nodes[0].write(vec![define("web", 1)]);
    let (_, _, key, item) = nodes[0].state.logs().entries().next().unwrap();
    let definition = key.clone();
    let mut grown = item.value.as_ref().unwrap().as_slice().to_vec();
    grown.extend([1, 2, 3]);
    let mut other = grown.clone();
    other[0] = 2;
    let mut later = |puts: Vec<(Key, &[u8])>, stamp: u64| {
        let mut logs = crate::cluster::log::Logs::new("test", Default::default());
        let key = ed25519_dalek::SigningKey::from_bytes(&[99; 32]);
        let mut writer = crate::cluster::log::Writer::new(format!("n{stamp}").into(), key, 1);
        let puts = puts.into_iter().map(|(key, value)| crate::cluster::log::Put {
            key,
            stamp: crate::cluster::clock::Stamp::at_ms(NOW + stamp),
            writer: None,
            value: Some(value.into()),
        });
        let push = writer.write(&mut logs, puts.collect()).unwrap().push;
        let wall = nodes[0].wall();
        let (_, outcome) = nodes[0].state.receive(push, wall).unwrap();
        nodes[0].took(outcome);
    };
    let unknown = Key::from(&[200, 1, 2]);
    later(vec![(unknown.clone(), b"value"), (definition.clone(), &grown)], 100);
    settle(&mut nodes);
    assert!(nodes[2].state.logs().at("n100", &unknown).next().is_some());
    assert_eq!(nodes[2].vip("web"), Some(vip(1)));
    let mut later = |value: &[u8]| {
        let mut logs = crate::cluster::log::Logs::new("test", Default::default());
        let key = ed25519_dalek::SigningKey::from_bytes(&[98; 32]);
        let mut writer = crate::cluster::log::Writer::new("later".into(), key, 1);
        let stamp = crate::cluster::clock::Stamp::at_ms(NOW + 200);
        let put = crate::cluster::log::Put {
            key: definition.clone(),
            stamp,
            writer: None,
            value: Some(value.into()),
        };
        let push = writer.write(&mut logs, vec![put]).unwrap().push;
        let wall = nodes[1].wall();
        let (_, outcome) = nodes[1].state.receive(push, wall).unwrap();
        nodes[1].took(outcome);
    };
    later(&other);
    assert_eq!(
        nodes[1].vip("web"),
        None,
        "a format that is unknown is no definition, and no older one holds"
    );
}

#[test]
fn a_removal_is_known_as_long_as_a_backend_of_before_is_in_any_log() {
    let mut nodes = cluster(3);
    let names = names(&nodes);
    nodes[0].write(vec![define("web", 1)]);
    settle(&mut nodes);
    nodes[2].write(vec![offer("web", 3, 1)]);
    settle(&mut nodes);
    nodes[1].write(vec![Record::Undefine("web".into())]);
    settle(&mut nodes);
    // The third does not look after its log.
    for _round in 0..3 {
        nodes[..2].iter_mut().for_each(|node| node.tend(&names));
        settle(&mut nodes);
    }
    nodes[0].write(vec![define("web", 1)]);
    settle(&mut nodes);
    assert!(nodes.iter().all(|node| node.offers("web").is_empty()));
}

#[test]
fn a_definition_that_is_covered_stays_while_it_alone_tells_of_a_removal() {
    let mut nodes = cluster(3);
    let names = names(&nodes);
    nodes[0].write(vec![define("web", 1)]);
    settle(&mut nodes);
    nodes[2].write(vec![offer("web", 3, 1)]);
    settle(&mut nodes);
    nodes[1].wall_ms += 100;
    nodes[1].write(vec![Record::Undefine("web".into())]);
    nodes[1].write(vec![define("web", 2)]);
    // Written in the knowledge of neither, and later than both.
    nodes[0].wall_ms += 200;
    nodes[0].write(vec![define("web", 4)]);
    settle(&mut nodes);
    for _round in 0..3 {
        nodes[..2].iter_mut().for_each(|node| node.tend(&names));
        settle(&mut nodes);
    }
    assert!(nodes.iter().all(|node| node.vip("web") == Some(vip(4)) && node.offers("web").is_empty()));
    for _round in 0..3 {
        nodes.iter_mut().for_each(|node| node.tend(&names));
        settle(&mut nodes);
    }
    assert_eq!(nodes[1].state.logs().entries().count(), 1, "nothing of before is left");
}

#[test]
fn a_definition_that_leaves_its_log_because_another_covers_it_removes_nothing() {
    let mut nodes = cluster(3);
    let names = names(&nodes);
    nodes[0].write(vec![define("web", 1)]);
    settle(&mut nodes);
    nodes[2].write(vec![offer("web", 3, 1)]);
    nodes[0].wall_ms += 100;
    nodes[0].write(vec![define("web", 2)]);
    nodes[1].wall_ms += 200;
    nodes[1].write(vec![define("web", 4)]);
    for _round in 0..4 {
        settle(&mut nodes);
        nodes.iter_mut().for_each(|node| node.tend(&names));
    }
    for node in &nodes {
        assert_eq!(node.offers("web"), [(3, 1, "h3".to_owned())]);
        assert_eq!(node.state.logs().entries().count(), 2);
    }
}
