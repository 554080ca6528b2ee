//! Requests on any node, as records.

use super::super::*;
use super::nodes::{Node, cluster, service, settle, socket, vip};

fn applied(node: &mut Node, service: &crate::service::Declared) -> usize {
    let records = apply(node.state.view(), node.state.logs(), &node.name(), service);
    let count = records.len();
    if count > 0 {
        node.write(records);
    }
    count
}

fn withdrawn(node: &mut Node, name: &str, last: u8) -> Result<(), String> {
    let outcome = withdraw(node.state.view(), node.state.logs(), &node.name(), name, socket(last));
    let (records, _weight) = outcome.map_err(|error| error.to_string())?;
    node.write(records);
    Ok(())
}

fn offered_by(node: &mut Node, name: &str, last: u8, weight: Option<u32>) -> Result<(u32, bool), String> {
    let asked = (socket(last), weight);
    let outcome = offer(node.state.view(), node.state.logs(), &node.name(), name, asked);
    let (record, weight) = outcome.map_err(|error| error.to_string())?;
    let is_news = record.is_some();
    node.write(record.into_iter().collect());
    Ok((weight, is_news))
}

fn mark(node: &mut Node, last: u8, is_drained: bool) -> bool {
    let record = drain(node.state.view(), "web", socket(last), is_drained).expect("the backend is there");
    let is_news = record.is_some();
    node.write(record.into_iter().collect());
    is_news
}

#[test]
fn an_apply_replaces_the_definition_and_the_backends_of_its_node_and_a_second_one_is_nothing() {
    let mut nodes = cluster(2);
    assert_eq!(applied(&mut nodes[0], &service("web", 1, &[1, 2])), 3);
    settle(&mut nodes);
    assert_eq!(applied(&mut nodes[0], &service("web", 1, &[2, 1])), 0);
    assert_eq!(applied(&mut nodes[1], &service("web", 3, &[2, 9])), 3);
    settle(&mut nodes);
    assert_eq!(nodes[0].vip("web"), Some(vip(3)));
    let (one, other) = ("h1".to_owned(), "h2".to_owned());
    let all = [(1, 1, one.clone()), (2, 1, one), (2, 1, other.clone()), (9, 1, other.clone())];
    assert_eq!(nodes[0].offers("web"), all);
    applied(&mut nodes[0], &service("web", 3, &[]));
    assert_eq!(nodes[0].offers("web"), [(2, 1, other.clone()), (9, 1, other)]);
    let record = remove(nodes[0].state.view(), "web").unwrap();
    nodes[0].write(vec![record]);
    settle(&mut nodes);
    assert_eq!((nodes[1].vip("web"), nodes[1].offers("web")), (None, vec![]));
    let gone = remove(nodes[1].state.view(), "web").unwrap_err().to_string();
    assert_eq!(gone, "no service 'web'; see 'fanlight service list'");
}

#[test]
fn a_backend_is_contributed_and_withdrawn_by_its_own_node_and_its_mark_goes_with_the_last() {
    let mut nodes = cluster(2);
    nodes[0].file("/a", &[service("web", 1, &[1])]);
    settle(&mut nodes);
    assert_eq!(offered_by(&mut nodes[1], "web", 5, None), Ok((1, true)));
    assert_eq!(offered_by(&mut nodes[1], "web", 5, Some(4)), Ok((4, true)));
    assert_eq!(offered_by(&mut nodes[1], "web", 5, None), Ok((4, false)), "without a weight it is as it is");
    assert_eq!(offered_by(&mut nodes[0], "web", 1, None), Ok((1, false)));
    let of_file = "backend 250.0.28.1:80 of service web is of /a; change it there".to_owned();
    assert_eq!(offered_by(&mut nodes[0], "web", 1, Some(2)), Err(of_file.clone()));
    assert_eq!(withdrawn(&mut nodes[0], "web", 1), Err(of_file));
    assert!(offered_by(&mut nodes[0], "db", 1, None).unwrap_err().starts_with("no service 'db'"));
    settle(&mut nodes);
    let others = "this node does not contribute 250.0.28.5:80 to service web; remove it on h2".to_owned();
    assert_eq!(withdrawn(&mut nodes[0], "web", 5), Err(others));
    assert!(withdrawn(&mut nodes[0], "web", 9).unwrap_err().contains("has no backend 250.0.28.9:80"));

    assert_eq!(offered_by(&mut nodes[0], "web", 5, None), Ok((1, true)));
    assert!(mark(&mut nodes[0], 5, true) && !mark(&mut nodes[0], 5, true));
    settle(&mut nodes);
    let drained = |node: &Node| node.state.view().service("web").unwrap().drained().count();
    assert_eq!(withdrawn(&mut nodes[0], "web", 5), Ok(()));
    settle(&mut nodes);
    assert_eq!(drained(&nodes[1]), 1, "the other one contributes it");
    nodes[1].wall_ms += 1_000;
    assert_eq!(withdrawn(&mut nodes[1], "web", 5), Ok(()));
    assert_eq!(drained(&nodes[1]), 0);
    assert!(drain(nodes[1].state.view(), "web", socket(5), true).is_err());
}

#[test]
fn what_was_applied_before_is_written_once_and_what_was_changed_since_stays() {
    let mut nodes = cluster(2);
    let web = service("web", 1, &[1, 2]);
    let drained = [socket(2)].into();
    let adopted = |node: &mut Node| {
        let former = Former {
            definition: Some(&crate::service::Definition::of(&web)),
            backends: &web.backends,
            drained: &drained,
        };
        let records = adopt(node.state.view(), node.state.logs(), &node.name(), &"web".into(), former);
        node.write(records.clone());
        records.len()
    };
    assert_eq!(adopted(&mut nodes[0]), 5);
    assert_eq!(adopted(&mut nodes[0]), 0);
    settle(&mut nodes);
    let record = remove(nodes[1].state.view(), "web").unwrap();
    nodes[1].wall_ms += 1_000;
    nodes[1].write(vec![record]);
    settle(&mut nodes);
    nodes[0].restart();
    assert_eq!((adopted(&mut nodes[0]), nodes[0].vip("web")), (0, None));
    let parts = nodes[0].state.view().service("web").unwrap();
    assert_eq!((overruled(parts, &nodes[0].name()), conflict(parts, |_| true)), (None, None));
    assert!(claimed(nodes[0].state.view(), &nodes[0].name()).is_empty(), "no file has it");
}

#[test]
fn a_service_that_moves_from_one_file_of_a_node_to_another_stays() {
    let mut nodes = cluster(2);
    nodes[0].file("/a", &[service("web", 1, &[1, 2])]);
    nodes[0].file("/b", &[service("web", 1, &[2, 3])]);
    settle(&mut nodes);
    let one = "h1".to_owned();
    assert_eq!(nodes[1].offers("web"), [(2, 1, one.clone()), (3, 1, one)]);
    let claims = nodes[1].state.view().service("web").unwrap().claims().len();
    assert_eq!((nodes[1].vip("web"), claims), (Some(vip(1)), 1));
    nodes[0].file("/b", &[]);
    assert_eq!(nodes[0].vip("web"), None);
}
