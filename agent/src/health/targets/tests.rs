use std::collections::BTreeSet;

use control::{
    cluster::records::checkers,
    desired::{Dirty, Input, Inputs, Provenance, SourceId, Statement, desired},
    health::{Checking, OnDown, Probe},
    service::{Algorithm, Backend, Service},
};

use super::*;

fn socket(last: u8) -> SocketAddr {
    ([250, 0, 28, last], 80).into()
}

fn service(name: &str, vip: u8, backends: &[u8], is_checked: bool) -> Service {
    let checking = Checking { check: Check::new(Probe::Tcp).into(), on_down: OnDown::Keep };
    let backend = |last: &u8| Backend { address: socket(*last).ip(), port: 80, weight: 1 };
    Service {
        name: name.to_owned(),
        vip: format!("10.96.0.{vip}:80/tcp").parse().unwrap(),
        algorithm: Algorithm::Maglev,
        checking: is_checked.then(|| checking.into()),
        backends: backends.iter().map(backend).collect(),
    }
}

/// What is desired, and what is checked of it.
#[derive(Default)]
struct World {
    inputs: Inputs,
    desired: Arc<Desired>,
    targets: Targets,
}

impl World {
    fn follow(&mut self, members: Option<Members>) -> Vec<String> {
        (self.desired, _) = desired(&self.inputs, &self.desired, &Dirty::All);
        let turns = self.targets.follow(&self.desired, members);
        let shown = |turn: &Turn| match turn {
            Turn::Check((name, socket), _, state) => format!("{name} {socket} {state}"),
            Turn::Leave((name, socket)) => format!("{name} {socket} -"),
        };
        turns.iter().map(shown).collect()
    }

    fn set(&mut self, services: &[Service]) -> Vec<String> {
        self.inputs.replace(SourceId::File, Input::defining("/f", services));
        self.follow(None)
    }
}

#[test]
fn backends_of_services_that_are_checked_come_and_go() {
    let mut world = World::default();
    assert_eq!(
        world.set(&[service("a", 1, &[1], false), service("b", 2, &[1, 2], true)]),
        ["b 250.0.28.1:80 init", "b 250.0.28.2:80 init"]
    );
    assert_eq!(world.follow(None), Vec::<String>::new());
    assert_eq!(
        world.set(&[service("b", 2, &[2, 3], true), service("c", 3, &[9], true)]),
        ["b 250.0.28.1:80 -", "b 250.0.28.2:80 init", "b 250.0.28.3:80 init", "c 250.0.28.9:80 init"]
    );
    assert_eq!(
        world.set(&[service("b", 2, &[2, 3], false)]),
        ["b 250.0.28.2:80 -", "b 250.0.28.3:80 -", "c 250.0.28.9:80 -"]
    );
}

#[test]
fn a_check_begins_as_its_backend_counts() {
    let mut world = World::default();
    let checked = [(socket(1), true), (socket(2), false)].into();
    let statement = Statement { checked, ..Statement::default() };
    world.inputs.state(SourceId::Checks, &"web".into(), Some(Arc::new(statement)));
    assert_eq!(
        world.set(&[service("web", 1, &[1, 2, 3], true)]),
        ["web 250.0.28.1:80 up", "web 250.0.28.2:80 down", "web 250.0.28.3:80 init"]
    );
}

#[test]
fn what_took_flows_before_it_was_checked_begins_up() {
    let mut world = World::default();
    world.set(&[service("web", 1, &[1], false)]);
    assert_eq!(
        world.set(&[service("web", 1, &[1, 2], true)]),
        ["web 250.0.28.1:80 up", "web 250.0.28.2:80 init"]
    );
}

#[test]
fn a_member_checks_what_it_contributes_and_its_share_of_what_no_member_has() {
    let names: Vec<Name> = (1..=6).map(|number| format!("h{number}").as_str().into()).collect();
    let external: SocketAddr = "192.0.2.9:80".parse().unwrap();
    let chosen: BTreeSet<&Name> = checkers(external, &names).into_iter().collect();
    let provenance = |socket, node: Option<&str>, contributors: &[&str]| Provenance {
        socket,
        node: node.map(Name::from),
        contributors: contributors.iter().map(|name| Name::from(*name)).collect(),
    };
    let mut web = service("web", 1, &[1, 2], true);
    web.backends.push(Backend { address: external.ip(), port: 80, weight: 1 });
    let own = [
        provenance(external, None, &["h1"]),
        provenance(socket(1), Some("h1"), &["h1", "h2"]),
        provenance(socket(2), Some("h1"), &["h3"]),
    ];
    for name in &names {
        let mut world = World::default();
        world.inputs.set_clustered(true);
        let statement = Statement { provenance: own.clone().into(), ..Statement::of(&web) };
        let services = [("web".into(), Arc::new(statement))].into();
        world.inputs.replace(SourceId::Cluster, Input { services, ..Input::default() });
        assert_eq!(world.follow(None), Vec::<String>::new(), "its own name is not known");
        let turns = world.follow(Some(Members { own: name.clone(), live: names.clone() }));
        let mut expected = Vec::new();
        if chosen.contains(name) {
            expected.push("web 192.0.2.9:80 init");
        }
        if ["h1", "h2"].contains(&&**name) {
            expected.push("web 250.0.28.1:80 init");
        }
        if **name == *"h3" {
            expected.push("web 250.0.28.2:80 init");
        }
        assert_eq!(turns, expected, "{name}");
    }
}
