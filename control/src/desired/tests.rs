use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use proptest::prelude::*;

use super::*;
use crate::{
    health::{Check, Checking, OnDown, Probe},
    service::{Algorithm, Backend, BackendLife, Declared, Down, Outage, Service, ServiceLife, VipSpec},
};

const FILE: &str = "/etc/fanlight/fanlight.toml";

fn socket(last: u8) -> SocketAddr {
    ([250, 0, 28, last], 80).into()
}

fn service(name: &str, vip: u8, backends: &[u8]) -> Service {
    let backend = |&last: &u8| Backend { address: [250, 0, 28, last].into(), port: 80, weight: 1 };
    Service {
        name: name.to_owned(),
        vip: format!("10.96.0.{vip}:80/tcp").parse().unwrap(),
        algorithm: Algorithm::Maglev,
        checking: None,
        backends: backends.iter().map(backend).collect(),
    }
}

fn set(service: &Service) -> Change {
    Change::Set(service.clone().into())
}

/// A service with the VIP of a name.
fn named(name: &str, vip: &str, backends: &[u8]) -> Declared {
    let Service { name, algorithm, backends, .. } = service(name, 1, backends);
    Declared { name, vip: vip.parse().unwrap(), algorithm, checking: None, backends }
}

fn listed<V: Clone + Into<VipSpec>>(services: &[Service<V>]) -> Input {
    let stated = services.iter().map(|service| {
        let place = Some(Arc::from(format!("/d/{}.toml", service.name)));
        (Name::from(service.name.as_str()), Arc::new(Statement { place, ..Statement::of(service) }))
    });
    Input { label: "/d".to_owned(), services: stated.collect(), ..Input::default() }
}

/// Inputs with what follows from them.
#[derive(Clone, Default)]
struct Node {
    inputs: Inputs,
    desired: Arc<Desired>,
}

impl Node {
    /// One with a range of VIPs.
    fn ranged(range: &str) -> Self {
        let mut node = Self::default();
        node.inputs.set_settings(Settings { vip_range: range.parse().ok(), ..Settings::default() });
        node.follow(&Dirty::All);
        node
    }

    fn new(file: &[Service], applied: &[Service]) -> Self {
        let mut node = Self::default();
        node.set_file(file);
        node.make(&applied.iter().map(set).collect::<Vec<_>>());
        node
    }

    /// Follows what changed; the names of the services that are others now.
    fn follow(&mut self, dirty: &Dirty) -> Vec<String> {
        let (desired, changed) = desired(&self.inputs, &self.desired, dirty);
        self.desired = desired;
        changed.iter().map(ToString::to_string).collect()
    }

    fn set_file(&mut self, services: &[Service]) -> Vec<String> {
        self.declare(services)
    }

    fn declare<V: Clone + Into<VipSpec>>(&mut self, services: &[Service<V>]) -> Vec<String> {
        let dirty = self.inputs.replace(SourceId::File, Input::defining(FILE, services));
        self.follow(&dirty)
    }

    /// A listed source's services, each of a file of its own.
    fn set_listed<V: Clone + Into<VipSpec>>(&mut self, place: u8, services: &[Service<V>]) -> Vec<String> {
        let dirty = self.inputs.replace(SourceId::Listed(place), listed(services));
        self.follow(&dirty)
    }

    fn set_absent(&mut self, lasts: &[u8]) -> Vec<String> {
        let address = |&last: &u8| (IpAddr::from(Ipv4Addr::new(250, 0, 28, last)), Down::EndpointGone);
        let dirty = self.inputs.set_down(SourceId::Presence, lasts.iter().map(address).collect());
        self.follow(&dirty)
    }

    fn make(&mut self, changes: &[Change]) -> Vec<Change> {
        let (inverse, dirty) = make(&mut self.inputs, changes);
        self.follow(&dirty);
        inverse
    }

    fn drain(&mut self, name: &str, last: u8) {
        let change = drain(&self.desired, name, socket(last), true).unwrap().unwrap();
        self.make(&[change]);
    }

    fn prune(&mut self) {
        let stale = stale(&self.inputs);
        self.make(&stale);
    }

    fn weights(&self, name: &str) -> Vec<u32> {
        self.desired.get(name).unwrap().wanted.backends.iter().map(|backend| backend.weight).collect()
    }

    fn clashes(&self) -> Vec<&str> {
        self.desired.clashes().collect()
    }

    fn names(&self) -> Vec<&str> {
        self.desired.entries().map(|entry| entry.defined.name.as_str()).collect()
    }

    /// What stands in the way of applying these.
    fn obstacles(&self, services: &[&Service]) -> Vec<String> {
        let declared: Vec<Declared> = services.iter().map(|service| (*service).clone().into()).collect();
        self.declared_obstacles(&declared)
    }

    fn declared_obstacles(&self, services: &[Declared]) -> Vec<String> {
        let problems = check(&self.inputs, &self.desired, &services.iter().collect::<Vec<_>>()).unwrap_err();
        problems.iter().map(|(place, error)| format!("{place}: {error}")).collect()
    }

    /// The last octets of VIPs, by the services' names.
    fn lasts(&self) -> Vec<(&str, u8)> {
        let last = |entry: &Entry| match entry.wanted.vip.address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => unreachable!("VIPs are IPv4"),
        };
        self.desired.entries().map(|entry| (entry.defined.name.as_str(), last(entry))).collect()
    }

    fn applied(&self) -> impl Iterator<Item = (&Name, &Arc<Statement>)> + Clone {
        self.inputs.services(SourceId::Applied)
    }

    fn state(&self) -> (Vec<Change>, Desired) {
        (all_changes(self.applied()), Desired { generation: 0, ..(*self.desired).clone() })
    }
}

#[test]
fn the_files_services_are_changed_only_there() {
    let web = service("web", 1, &[2]);
    let node = Node::new(std::slice::from_ref(&web), &[]);
    let why = format!("service web is of {FILE}; change it there");
    assert_eq!(node.obstacles(&[&web]), [format!("0: {why}")]);
    assert_eq!(remove(&node.inputs, "web").unwrap_err().to_string(), why);
    let unknown = remove(&node.inputs, "db").unwrap_err().to_string();
    assert_eq!(unknown, "no service 'db'; see 'fanlight service list'");
}

#[test]
fn backends_that_are_down_weigh_nothing_until_they_are_back() {
    let mut node = Node::new(&[service("web", 1, &[2, 3]), service("db", 2, &[4])], &[]);
    assert_eq!(node.set_absent(&[2, 99]), ["web"]);
    assert_eq!((node.weights("web"), node.weights("db")), (vec![0, 1], vec![1]));
    assert_eq!(
        node.desired.get("web").unwrap().down,
        BTreeMap::from([(socket(2), Down::EndpointGone.into())])
    );
    assert!(node.set_absent(&[2, 99]).is_empty());
    node.make(&[set(&service("new", 3, &[2]))]);
    assert_eq!(node.weights("new"), [0], "also of services that come later");
    assert_eq!(node.set_absent(&[]), ["new", "web"]);
    assert_eq!((node.weights("web"), node.weights("new")), (vec![1, 1], vec![1]));
}

#[test]
fn a_vip_belongs_to_one_service() {
    let node = Node::new(&[service("web", 1, &[])], &[service("db", 2, &[])]);
    let (first, second) = (service("a", 1, &[]), service("b", 2, &[]));
    assert_eq!(
        node.obstacles(&[&first, &second]),
        [
            format!("0: 10.96.0.1:80/tcp is the VIP of service web of {FILE}; give each its own"),
            "1: 10.96.0.2:80/tcp is the VIP of service db; give each its own".to_owned(),
        ]
    );
}

#[test]
fn an_applied_service_that_contradicts_the_files_addresses_waits_until_one_of_them_goes() {
    let at = |vip: &str, service: Service| Service { vip: vip.parse().unwrap(), ..service };
    let web = service("web", 1, &[2]);
    let shadowing = at("250.0.28.2:53/udp", service("shadowing", 2, &[3]));
    let nested = Service {
        backends: vec![Backend { address: web.vip.address, port: 80, weight: 1 }],
        ..service("nested", 3, &[])
    };
    let mut node = Node::new(&[], &[shadowing, nested]);
    assert_eq!(node.desired.len(), 2);
    assert_eq!(node.set_file(&[web]), ["nested", "shadowing", "web"]);
    let followed = format!("of service web of {FILE}, which is followed; give one of them another");
    assert_eq!(
        node.clashes(),
        [
            format!("service nested: 10.96.0.1 is the VIP's address {followed}"),
            format!("service shadowing: 250.0.28.2 is a backend's address {followed}"),
        ]
    );
    assert_eq!(node.names(), ["web"]);
    node.set_file(&[]);
    assert_eq!((node.clashes().len(), node.desired.len()), (0, 2));
}

/// Contributes a backend; its weight then, and whether that is a change.
fn offered(node: &mut Node, name: &str, last: u8, weight: Option<u32>) -> Result<(u32, bool), String> {
    let (change, backend) =
        offer(&node.inputs, &node.desired, name, socket(last), weight).map_err(|error| error.to_string())?;
    let is_other = change.is_some();
    node.make(&change.into_iter().collect::<Vec<_>>());
    Ok((backend.weight, is_other))
}

fn withdrawn(node: &mut Node, name: &str, last: u8) -> Result<(), String> {
    let (change, _) =
        withdraw(&node.inputs, &node.desired, name, socket(last)).map_err(|error| error.to_string())?;
    node.make(&[change]);
    Ok(())
}

#[test]
fn a_backend_is_contributed_beside_a_definition_wherever_that_is() {
    let mut node = Node::new(&[service("web", 1, &[2])], &[service("db", 2, &[3])]);
    assert_eq!(offered(&mut node, "web", 4, None), Ok((1, true)));
    assert_eq!(offered(&mut node, "web", 4, None), Ok((1, false)));
    assert_eq!(offered(&mut node, "web", 4, Some(5)), Ok((5, true)));
    assert_eq!(offered(&mut node, "web", 4, None), Ok((5, false)), "without a weight it is as it is");
    assert_eq!(
        (offered(&mut node, "web", 2, None), offered(&mut node, "web", 2, Some(1))),
        (Ok((1, false)), Ok((1, false)))
    );
    let of_file = format!("backend 250.0.28.2:80 of service web is of {FILE}; change it there");
    assert_eq!(offered(&mut node, "web", 2, Some(3)), Err(of_file.clone()));
    assert_eq!(offered(&mut node, "db", 5, Some(7)), Ok((7, true)));
    assert_eq!((node.weights("web"), node.weights("db")), (vec![1, 5], vec![1, 7]));
    let unknown = "no service 'api'; see 'fanlight service list'".to_owned();
    assert_eq!(offered(&mut node, "api", 5, None), Err(unknown.clone()));
    let vip = offer(&node.inputs, &node.desired, "db", "10.96.0.1:80".parse().unwrap(), None).unwrap_err();
    assert_eq!(vip.to_string(), "10.96.0.1 is the VIP of service web; name its backends");

    assert_eq!(withdrawn(&mut node, "web", 2), Err(of_file));
    assert_eq!(withdrawn(&mut node, "api", 2), Err(unknown));
    node.drain("web", 4);
    assert_eq!((withdrawn(&mut node, "web", 4), withdrawn(&mut node, "db", 3)), (Ok(()), Ok(())));
    assert_eq!((node.weights("web"), node.weights("db")), (vec![1], vec![7]));
    let none = "service web has no backend 250.0.28.4:80; it has 250.0.28.2:80".to_owned();
    assert_eq!(withdrawn(&mut node, "web", 4), Err(none));
    assert_eq!(offered(&mut node, "web", 4, None), Ok((1, true)));
    assert_eq!(node.weights("web"), [1, 1], "its mark went with it");
}

#[test]
fn what_is_contributed_outlives_changes_of_the_file_and_ends_with_the_service() {
    let mut node = Node::new(&[service("web", 1, &[2])], &[]);
    offered(&mut node, "web", 4, Some(3)).unwrap();
    node.set_file(&[service("web", 2, &[2, 3])]);
    node.prune();
    assert_eq!(node.weights("web"), [1, 1, 3]);
    // In the file, too, it is one backend, of the file's weight.
    node.set_file(&[service("web", 2, &[4])]);
    assert_eq!(node.weights("web"), [1]);
    node.set_file(&[]);
    node.prune();
    node.set_file(&[service("web", 2, &[2])]);
    assert_eq!((node.weights("web"), all_changes(node.applied())), (vec![1], vec![]));
    // What is applied replaces what this node contributed; a hidden definition hides what comes with it.
    let mut node = Node::new(&[], &[service("web", 1, &[2])]);
    offered(&mut node, "web", 4, None).unwrap();
    node.make(&[set(&service("web", 1, &[5]))]);
    assert_eq!(node.desired.get("web").unwrap().defined, service("web", 1, &[5]));
    node.set_file(&[service("web", 1, &[])]);
    let hidden = format!(
        "service web is of {FILE}, which hides the applied one; remove that by 'fanlight service remove web'"
    );
    assert_eq!(offered(&mut node, "web", 6, None), Err(hidden));
}

#[test]
fn a_listed_source_comes_after_the_file_and_before_what_was_applied() {
    let mut node = Node::new(&[service("web", 1, &[])], &[service("db", 2, &[])]);
    node.set_listed(1, &[service("c", 3, &[]), service("d", 4, &[])]);
    node.set_listed(0, &[service("b", 3, &[]), service("db", 5, &[]), service("e", 1, &[])]);
    assert_eq!(node.names(), ["b", "d", "db", "web"]);
    let followed = "which is followed; give one of them another";
    assert_eq!(
        node.clashes(),
        [
            format!("service c: 10.96.0.3:80/tcp is the VIP of service b of /d/b.toml, {followed}"),
            "service db: /d/db.toml has it too, and is followed; remove it there, or the applied one with 'fanlight \
             service remove db'"
                .to_owned(),
            format!("service e: 10.96.0.1:80/tcp is the VIP of service web of {FILE}, {followed}"),
        ]
    );
    let why = "service b is of /d/b.toml; change it there";
    assert_eq!(node.obstacles(&[&service("b", 9, &[])]), [format!("0: {why}")]);
    assert_eq!(remove(&node.inputs, "b").unwrap_err().to_string(), why);
    assert_eq!(
        node.obstacles(&[&service("new", 4, &[])]),
        ["0: 10.96.0.4:80/tcp is the VIP of service d of /d/d.toml; give each its own"]
    );
    node.inputs.remove(SourceId::Listed(0));
    node.follow(&Dirty::All);
    assert_eq!((node.names(), node.clashes()), (vec!["c", "d", "db", "web"], vec![]));
}

#[test]
fn of_two_services_of_one_source_that_contradict_each_other_the_first_name_is_followed() {
    let nested = Service {
        backends: vec![Backend { address: [10, 96, 0, 1].into(), port: 80, weight: 1 }],
        ..service("nested", 3, &[])
    };
    let mut node = Node::default();
    node.set_listed(0, &[service("web", 1, &[2]), nested]);
    assert_eq!(node.names(), ["nested"]);
    assert_eq!(
        node.clashes(),
        [
            "service web: 10.96.0.1 is a backend's address of service nested of /d/nested.toml, which is followed; give \
          one of them another"
        ]
    );
}

#[test]
fn what_can_t_be_followed_of_a_source_is_told_until_it_can() {
    let mut node = Node::default();
    node.inputs.set_faults(SourceId::Listed(0), vec!["source-lost /d".to_owned()]);
    assert!(node.follow(&Dirty::default()).is_empty());
    assert_eq!(node.desired.faults().collect::<Vec<_>>(), ["source-lost /d"]);
    node.inputs.set_faults(SourceId::Listed(0), Vec::new());
    node.follow(&Dirty::default());
    assert_eq!(node.desired.faults().count(), 0);
}

#[test]
fn services_may_change_their_vips_with_each_other() {
    let mut node = Node::new(&[], &[service("a", 1, &[]), service("b", 2, &[])]);
    let (a, b) = (service("a", 2, &[]), service("b", 1, &[]));
    assert_eq!(check(&node.inputs, &node.desired, &[&a.clone().into(), &b.clone().into()]), Ok(vec![0, 1]));
    node.make(&[set(&a), set(&b)]);
    assert_eq!(node.desired.at(a.vip).unwrap().wanted, a);
    assert_eq!(node.desired.at(b.vip).unwrap().wanted, b);
    assert_eq!(node.clashes(), [""; 0]);
}

#[test]
fn the_same_again_is_no_change_whatever_the_order_of_backends() {
    let node = Node::new(&[], &[service("a", 1, &[2, 3])]);
    let (a, b) = (service("a", 1, &[3, 2]), service("b", 3, &[]));
    assert_eq!(check(&node.inputs, &node.desired, &[&a.into(), &b.into()]), Ok(vec![1]));
}

#[test]
fn a_drained_backend_weighs_nothing_until_it_is_undrained() {
    let mut node = Node::new(&[service("web", 1, &[2, 3])], &[]);
    node.drain("web", 3);
    assert_eq!(node.weights("web"), [1, 0]);
    assert_eq!(node.desired.get("web").unwrap().defined.backends[1].weight, 1);
    assert_eq!(drain(&node.desired, "web", socket(3), true), Ok(None));
    let change = drain(&node.desired, "web", socket(3), false).unwrap().unwrap();
    node.make(&[change]);
    assert_eq!(node.weights("web"), [1, 1]);
    assert_eq!(
        drain(&node.desired, "web", socket(9), true).unwrap_err().to_string(),
        "service web has no backend 250.0.28.9:80; it has 250.0.28.2:80, 250.0.28.3:80"
    );
}

#[test]
fn marks_outlive_changes_of_the_file_and_go_with_their_backend() {
    let mut node = Node::new(&[service("web", 1, &[2, 3])], &[service("db", 2, &[4, 5])]);
    node.drain("web", 3);
    node.drain("db", 5);
    node.set_file(&[service("web", 1, &[3, 4])]);
    node.prune();
    assert_eq!(node.weights("web"), [0, 1]);
    node.make(&[set(&service("db", 2, &[4]))]);
    node.make(&[set(&service("db", 2, &[4, 5]))]);
    assert_eq!(node.weights("db"), [1, 1]);
    node.set_file(&[]);
    node.prune();
    assert_eq!(all_changes(node.applied()), [set(&service("db", 2, &[4, 5]))]);
}

#[test]
fn the_file_is_followed_where_it_clashes_and_what_was_applied_comes_back_after_it() {
    let (web, db) = (service("web", 1, &[2]), service("db", 2, &[2]));
    let mut node = Node::new(&[], &[web.clone(), db.clone()]);
    node.set_file(&[service("web", 3, &[4]), service("other", 2, &[4])]);
    assert_eq!(node.desired.get("web").unwrap().wanted.vip, service("", 3, &[]).vip);
    assert!(node.desired.get("db").is_none());
    assert_eq!(
        node.clashes(),
        [
            format!(
                "service db: 10.96.0.2:80/tcp is the VIP of service other of {FILE}, which is followed; give one of \
                 them another"
            ),
            format!(
                "service web: {FILE} has it too, and is followed; remove it there, or the applied one with 'fanlight \
                 service remove web'"
            ),
        ]
    );
    let removed = remove(&node.inputs, "web").unwrap();
    node.make(&[removed]);
    assert_eq!(node.clashes().len(), 1);
    node.set_file(&[]);
    assert_eq!(node.desired.get("db").unwrap().wanted, db);
    assert!(node.desired.get("web").is_none());
}

#[test]
fn an_applied_service_comes_back_when_the_applied_one_that_hid_it_goes() {
    let mut node = Node::new(&[service("a", 3, &[])], &[]);
    // The first is hidden by the file's, so that its VIP is free.
    node.make(&[set(&service("a", 1, &[2]))]);
    node.make(&[set(&service("b", 1, &[3]))]);
    assert_eq!(node.set_file(&[]), ["a", "b"]);
    assert_eq!(node.names(), ["a"]);
    let removed = remove(&node.inputs, "a").unwrap();
    node.make(&[removed]);
    assert_eq!((node.names(), node.clashes().len()), (vec!["b"], 0));
}

#[test]
fn one_address_of_several_nodes_is_one_backend_of_the_smallest_names_weight() {
    let weighing = |node: &str, weight| {
        let backends = vec![Backend { address: [250, 0, 28, 2].into(), port: 80, weight }];
        let statement = Statement { backends, ..Statement::default() };
        let services = BTreeMap::from([(Name::from("web"), Arc::new(statement))]);
        Input { node: node.into(), services, ..Input::default() }
    };
    let mut node = Node::new(&[service("web", 1, &[])], &[]);
    let of_b = node.inputs.replace(SourceId::Presence, weighing("b", 5));
    node.follow(&of_b);
    assert_eq!(node.weights("web"), [5]);
    let of_a = node.inputs.replace(SourceId::Applied, weighing("a", 7));
    node.follow(&of_a);
    assert_eq!(node.weights("web"), [7]);
}

#[test]
fn a_service_is_up_while_a_backend_takes_new_flows() {
    let mut node = Node::new(&[service("web", 1, &[2, 3])], &[]);
    let state = |node: &Node, is_held| node.desired.get("web").unwrap().state(is_held);
    assert_eq!((state(&node, true).state, state(&node, false).state), (ServiceLife::Up, ServiceLife::Failed));
    node.drain("web", 2);
    node.set_absent(&[3]);
    let seen = state(&node, true);
    let backends: Vec<_> = seen.backends.iter().map(|backend| (backend.state, backend.reason)).collect();
    assert_eq!(
        (seen.state, backends),
        (
            ServiceLife::Down,
            vec![(BackendLife::Drained, None), (BackendLife::Down, Some(Down::EndpointGone))]
        )
    );
}

/// A range in which names "c" and "e" hash to its first address, and "a" to its fifth.
const RANGE: &str = "11.0.0.0/29";

#[test]
fn of_two_named_vips_that_hash_to_one_address_the_one_applied_first_keeps_it() {
    let (c, e) = (named("c", "/c:80/tcp", &[2]), named("e", "/e:80/tcp", &[2]));
    let mut node = Node::ranged(RANGE);
    node.make(&[Change::Set(e.clone())]);
    assert_eq!((node.lasts(), node.clashes()), (vec![("e", 1)], vec![]));
    node.make(&[Change::Set(c)]);
    let both = [("c", 2), ("e", 1)];
    assert_eq!(node.lasts(), both);
    assert_eq!(
        node.clashes(),
        [
            "vip-collision c: 11.0.0.1, which its VIP's name hashes to, is another's; it has 11.0.0.2: give one of them an \
          address of its own"
        ]
    );
    assert_eq!(node.desired.get("c").unwrap().hashed, Some([11, 0, 0, 1].into()));
    // A change of its backends makes it no younger, nor does what is taken back.
    let inverse = node.make(&[Change::Set(Declared { backends: Vec::new(), ..e.clone() })]);
    assert_eq!(node.lasts(), both);
    node.make(&inverse);
    assert_eq!(node.lasts(), both);
    let removed = remove(&node.inputs, "e").unwrap();
    let inverse = node.make(&[removed]);
    assert_eq!(node.lasts(), [("c", 1)]);
    node.make(&inverse);
    assert_eq!(node.lasts(), both);
    // Neither does a restart.
    let mut restarted = Node::ranged(RANGE);
    restarted.make(&all_changes(node.applied()));
    assert_eq!(restarted.lasts(), both);
    // A file's is older than what was applied.
    node.declare(&[named("file", "/c:81/tcp", &[])]);
    assert_eq!(node.lasts(), [("c", 1), ("e", 2), ("file", 1)]);
}

#[test]
fn a_named_vip_needs_a_range_with_a_free_address() {
    let mut node = Node::default();
    let web = named("web", "/web:80/tcp", &[]);
    let why = "named VIPs need a range; set vip-range in [datapath], or give the VIP an address";
    assert_eq!(node.declared_obstacles(std::slice::from_ref(&web)), [format!("0: /web:80/tcp: {why}")]);
    node.declare(std::slice::from_ref(&web));
    assert_eq!(node.clashes(), [format!("service web: /web:80/tcp: {why}")]);
    node.inputs.set_settings(Settings { vip_range: "11.0.0.9/32".parse().ok(), ..Settings::default() });
    node.follow(&Dirty::All);
    assert_eq!((node.lasts(), node.clashes()), (vec![("web", 9)], vec![]));
    let full = "0: /db:80/tcp: no address of vip-range is free; give it a larger one in [datapath]";
    assert_eq!(node.declared_obstacles(&[named("db", "/db:80/tcp", &[])]), [full]);
    node.set_listed(0, &[named("db", "/db:80/tcp", &[])]);
    assert_eq!(
        node.clashes(),
        [
            "service db: /db:80/tcp: no address of vip-range 11.0.0.9/32 is free; give it a larger one in [datapath]"
        ]
    );
    node.inputs
        .set_reserved(Reserved { addresses: BTreeSet::from([[11, 0, 0, 9].into()]), networks: Vec::new() });
    node.follow(&Dirty::All);
    assert_eq!((node.lasts(), node.clashes().len()), (vec![], 2), "an address of this host is no VIP's");
}

#[test]
fn vips_of_one_name_have_one_address_and_none_that_is_another_s() {
    let hashed = 5;
    let mut node = Node::ranged(RANGE);
    let literal =
        Service { vip: format!("11.0.0.{hashed}:443/tcp").parse().unwrap(), ..service("literal", 1, &[]) };
    node.make(&[Change::Set(named("a", "/a:80/tcp", &[])), Change::Set(named("b", "/a:443/tcp", &[]))]);
    assert_eq!(node.lasts(), [("a", hashed), ("b", hashed)]);
    assert_eq!(
        node.declared_obstacles(&[named("d", "/a:80/tcp", &[]), literal.clone().into()]),
        [
            format!("0: 11.0.0.{hashed}:80/tcp is the VIP of service a; give each its own"),
            format!("1: 11.0.0.{hashed}:443/tcp is the VIP of service b; give each its own"),
        ]
    );
    let beside = Service { vip: format!("11.0.0.{hashed}:9/tcp").parse().unwrap(), ..literal.clone() };
    let why = format!("0: 11.0.0.{hashed} is the address of VIP name 'a'; give the service another VIP");
    assert_eq!(node.obstacles(&[&beside]), [why]);
    // In place of the name's own services it may have that address.
    let both = [
        Service { name: "a".to_owned(), ..beside.clone() },
        Service { name: "b".to_owned(), ..literal.clone() },
    ];
    let declared: Vec<Declared> = both.iter().map(|service| service.clone().into()).collect();
    assert_eq!(check(&node.inputs, &node.desired, &declared.iter().collect::<Vec<_>>()), Ok(vec![0, 1]));
    // A file is asked nothing: the name makes room.
    node.set_file(&[beside]);
    assert_eq!(node.lasts(), [("a", hashed + 1), ("b", hashed + 1), ("literal", hashed)]);
}

#[test]
fn while_the_cluster_speaks_this_nodes_sources_do_not_and_they_come_back() {
    let mut node = Node::new(&[service("web", 1, &[2])], &[service("db", 2, &[3])]);
    node.inputs.replace(SourceId::Cluster, Input::defining("", &[service("web", 7, &[9])]));
    node.follow(&Dirty::All);
    assert_eq!(node.lasts(), [("db", 2), ("web", 1)]);
    let dirty = node.inputs.set_clustered(true);
    assert_eq!(node.follow(&dirty), ["db", "web"]);
    assert_eq!((node.lasts(), node.clashes().len()), (vec![("web", 7)], 0));
    assert!(node.desired.is_clustered && node.weights("web") == [1]);
    // A file is changed in the file all the same, and other services where the cluster is.
    let of_file = format!("0: service web is of {FILE}; change it there");
    assert_eq!(node.obstacles(&[&service("web", 7, &[])]), [of_file]);
    let taken = "0: 10.96.0.7:80/tcp is the VIP of service web; give each its own";
    assert_eq!(node.obstacles(&[&service("new", 7, &[])]), [taken]);
    assert_eq!(node.inputs.stated("web").map(|(file, _)| file.to_string()).as_deref(), Some(FILE));
    assert_eq!(node.inputs.stated("db"), None, "no file has it");
    node.set_file(&[service("web", 4, &[])]);
    assert_eq!(node.lasts(), [("web", 7)]);
    let dirty = node.inputs.set_clustered(false);
    node.follow(&dirty);
    assert_eq!(node.lasts(), [("db", 2), ("web", 4)]);
    assert_eq!(none_left(&node.inputs), [Change::Remove("db".to_owned())]);
}

#[test]
fn backends_that_are_kept_are_down_and_take_new_flows_all_the_same() {
    let mut node = Node::default();
    node.inputs.set_clustered(true);
    let say = |node: &mut Node, backends: &[u8], down: &[u8], is_kept| {
        let down = down.iter().copied().collect();
        let said = shared(&[service("web", 1, backends).into()], &down, is_kept);
        let dirty = node.inputs.replace(SourceId::Cluster, said);
        node.follow(&dirty);
        node.desired.get("web").unwrap().state(true).state
    };
    assert_eq!(say(&mut node, &[2, 3], &[3], false), ServiceLife::Up);
    assert_eq!((node.weights("web"), node.desired.notes()), (vec![1, 0], vec![]));
    assert_eq!(say(&mut node, &[2, 3], &[3], true), ServiceLife::Kept);
    let state = node.desired.get("web").unwrap().state(true).backends[1];
    assert_eq!((node.weights("web"), state.state, state.kept), (vec![1, 1], BackendLife::Down, true));
    let kept = "kept: web: 1 of 2 backends are down and take new flows all the same: too few would be left";
    assert_eq!(node.desired.notes(), [kept]);
    assert_eq!(say(&mut node, &[2, 3], &[2, 3], true), ServiceLife::AllDown);
    assert_eq!(node.desired.notes(), ["all-down: web: none of 2 backends is up, so that all take new flows"]);
    // What this node sees of its own endpoints counts all the same.
    node.set_absent(&[3]);
    assert_eq!(node.weights("web"), [1, 0]);
    assert_eq!(say(&mut node, &[], &[], false), ServiceLife::Conflict);
    assert_eq!(node.desired.notes(), ["conflict: web: of files"]);
}

#[test]
fn of_many_services_that_there_is_something_to_tell_of_some_are_named() {
    let mut node = Node::default();
    node.inputs.set_clustered(true);
    let services: Vec<Declared> =
        (0..30).map(|number| service(&format!("s{number:02}"), number, &[]).into()).collect();
    let dirty = node.inputs.replace(SourceId::Cluster, shared(&services, &BTreeSet::new(), false));
    node.follow(&dirty);
    let notes = node.desired.notes();
    assert_eq!((notes.len(), notes[0].as_str()), (11, "conflict: s00: of files"));
    assert_eq!(notes[10], "conflict: and 20 more services; see 'fanlight service list'");
}

/// Any change among few names, VIPs and backends.
fn any_change() -> impl Strategy<Value = Change> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        any_declared().prop_map(Change::Set),
        name().prop_map(|name| Change::Remove(name.to_owned())),
        (name(), 1..4_u8, 1..3_u32).prop_map(|(name, last, weight)| {
            Change::Offer(name.to_owned(), Backend { address: socket(last).ip(), port: 80, weight })
        }),
        (name(), 1..4_u8).prop_map(|(name, last)| Change::Withdraw(name.to_owned(), socket(last))),
        (name(), 1..4_u8).prop_map(|(name, last)| Change::Drain(name.to_owned(), socket(last))),
        (name(), 1..4_u8).prop_map(|(name, last)| Change::Undrain(name.to_owned(), socket(last))),
    ]
}

/// A service whose VIP may be another's, or a backend's address.
fn any_service() -> impl Strategy<Value = Service> {
    let name = prop::sample::select(vec!["a", "b", "c", "d"]);
    let vip = prop_oneof![
        (1..4_u8).prop_map(|last| format!("10.96.0.{last}:80/tcp")),
        (1..3_u8).prop_map(|last| format!("250.0.28.{last}:80/tcp")),
    ];
    let backends = prop::collection::btree_set(
        prop_oneof![
            4 => (1..4_u8).prop_map(|last| IpAddr::from([250, 0, 28, last])),
            1 => (1..4_u8).prop_map(|last| IpAddr::from([10, 96, 0, last])),
        ],
        0..3,
    );
    (name, vip, backends).prop_map(|(name, vip, backends)| Service {
        vip: vip.parse().unwrap(),
        backends: backends.into_iter().map(|address| Backend { address, port: 80, weight: 1 }).collect(),
        ..service(name, 1, &[])
    })
}

/// A service of an address or of a name; names of VIPs often meet in [`ranged`](Node::ranged).
fn any_declared() -> impl Strategy<Value = Declared> {
    let vip = prop_oneof![
        2 => Just(None),
        1 => ("[a-d]", 80..82_u16).prop_map(|(name, port)| Some(format!("/{name}:{port}/tcp"))),
        1 => (1..7_u8, 80..82_u16).prop_map(|(last, port)| Some(format!("11.0.0.{last}:{port}/tcp"))),
    ];
    (any_service(), vip).prop_map(|(service, vip)| {
        let declared = Declared::from(service);
        Declared { vip: vip.map_or(declared.vip, |vip| vip.parse().unwrap()), ..declared }
    })
}

#[derive(Clone, Debug)]
enum Step {
    File(Vec<Declared>),
    Listed(u8, Vec<Declared>),
    Applied(Vec<Change>),
    Down(BTreeSet<u8>),
    /// What the cluster says, with backends that are down, and whether these are kept.
    Cluster(Vec<Declared>, BTreeSet<u8>, bool),
    /// Whether the cluster speaks.
    Clustered(bool),
}

/// What a cluster says of services.
fn shared(services: &[Declared], down: &BTreeSet<u8>, is_kept: bool) -> Input {
    let of = |service: &Declared| {
        let down = down.iter().map(|&last| (socket(last), Outage { why: Down::NodeDead, is_kept }));
        let notes = vec![(Topic::Conflict, Arc::from("of files"))];
        let notes = if service.backends.is_empty() { notes } else { Vec::new() };
        let statement = Statement { down: down.collect(), notes, age: 7, ..Statement::of(service) };
        (Name::from(service.name.as_str()), Arc::new(statement))
    };
    Input { services: services.iter().map(of).collect(), ..Input::default() }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => prop::collection::vec(any_declared(), 0..3).prop_map(Step::File),
        1 => (0..2_u8, prop::collection::vec(any_declared(), 0..3)).prop_map(|(place, all)| Step::Listed(place, all)),
        4 => prop::collection::vec(any_change(), 1..4).prop_map(Step::Applied),
        1 => prop::collection::btree_set(1..4_u8, 0..3).prop_map(Step::Down),
        2 => (prop::collection::vec(any_declared(), 0..3), prop::collection::btree_set(1..4_u8, 0..3), any::<bool>())
            .prop_map(|(services, down, is_kept)| Step::Cluster(services, down, is_kept)),
        1 => any::<bool>().prop_map(Step::Clustered),
    ]
}

proptest! {
    #[test]
    fn what_follows_from_changes_follows_from_nothing_too(steps in prop::collection::vec(any_step(), 0..24)) {
        let mut node = Node::ranged(RANGE);
        for step in steps {
            let before = node.clone();
            match step {
                Step::File(services) => drop(node.declare(&services)),
                Step::Listed(place, services) => drop(node.set_listed(place, &services)),
                Step::Applied(changes) => drop(node.make(&changes)),
                Step::Down(lasts) => drop(node.set_absent(&lasts.into_iter().collect::<Vec<_>>())),
                Step::Cluster(services, down, is_kept) => {
                    let dirty = node.inputs.replace(SourceId::Cluster, shared(&services, &down, is_kept));
                    node.follow(&dirty);
                }
                Step::Clustered(is_clustered) => {
                    let dirty = node.inputs.set_clustered(is_clustered);
                    node.follow(&dirty);
                }
            }
            let (anew, _) = desired(&node.inputs, &Desired::default(), &Dirty::All);
            prop_assert_eq!(node.state().1, Desired { generation: 0, ..(*anew).clone() });
            // What is as before is the same value.
            for entry in before.desired.entries() {
                if let Some(now) = node.desired.get(&entry.defined.name).filter(|now| *now == entry) {
                    prop_assert!(Arc::ptr_eq(now, entry));
                }
            }
        }
    }

    #[test]
    fn the_names_that_changed_are_told(steps in prop::collection::vec(any_step(), 0..12)) {
        let mut node = Node::ranged(RANGE);
        for step in steps {
            let before = node.desired.clone();
            let dirty = match step {
                Step::File(services) => node.inputs.replace(SourceId::File, Input::defining(FILE, &services)),
                Step::Listed(place, services) => {
                    node.inputs.replace(SourceId::Listed(place), listed(&services))
                }
                Step::Applied(changes) => make(&mut node.inputs, &changes).1,
                Step::Cluster(services, down, is_kept) => {
                    node.inputs.replace(SourceId::Cluster, shared(&services, &down, is_kept))
                }
                Step::Clustered(is_clustered) => node.inputs.set_clustered(is_clustered),
                Step::Down(_) => Dirty::All,
            };
            let told: BTreeSet<String> = node.follow(&dirty).into_iter().collect();
            let names = before.entries().chain(node.desired.entries()).map(|entry| &entry.defined.name);
            let changed = names.filter(|name| before.get(name) != node.desired.get(name));
            prop_assert_eq!(told, changed.cloned().collect::<BTreeSet<_>>());
        }
    }

    #[test]
    fn a_change_taken_back_leaves_all_as_it_was(
        file in prop::collection::vec(any_declared(), 0..2),
        before in prop::collection::vec(any_change(), 0..12),
        changes in prop::collection::vec(any_change(), 1..4),
    ) {
        let mut node = Node::ranged(RANGE);
        node.declare(&file);
        before.iter().for_each(|change| drop(node.make(std::slice::from_ref(change))));
        node.prune();
        let was = node.state();
        let inverse = node.make(&changes);
        node.make(&inverse);
        prop_assert_eq!(node.state(), was);
    }

    #[test]
    fn what_is_applied_is_reached_again_from_nothing(changes in prop::collection::vec(any_change(), 0..12)) {
        let mut first = Node::ranged(RANGE);
        changes.iter().for_each(|change| drop(first.make(std::slice::from_ref(change))));
        let mut second = Node::ranged(RANGE);
        second.make(&all_changes(first.applied()));
        prop_assert_eq!(first.state(), second.state());
    }
}

/// A service that is checked.
fn checked(name: &str, vip: u8, backends: &[u8], on_down: OnDown) -> Service {
    let checking = Checking { check: Check::new(Probe::Tcp).into(), on_down };
    Service { checking: Some(Arc::new(checking)), ..service(name, vip, backends) }
}

impl Node {
    /// What checks say of `web`: backends with whether they are up.
    fn check(&mut self, found: &[(u8, bool)]) {
        let checked = found.iter().map(|(last, is_up)| (socket(*last), *is_up)).collect();
        let statement = (!found.is_empty()).then(|| Arc::new(Statement { checked, ..Statement::default() }));
        let names = self.inputs.state(SourceId::Checks, &"web".into(), statement);
        self.follow(&Dirty::Names(names));
    }

    /// Backends of `web` that take new flows.
    fn serving(&self) -> Vec<u8> {
        let wanted = &self.desired.get("web").unwrap().wanted;
        wanted.backends.iter().filter(|own| own.weight > 0).map(|own| last_of(own.address)).collect()
    }

    fn life(&self) -> ServiceLife {
        self.desired.get("web").unwrap().state(true).state
    }
}

fn last_of(address: IpAddr) -> u8 {
    let IpAddr::V4(address) = address else { panic!("no IPv4 address") };
    address.octets()[3]
}

#[test]
fn a_checked_backend_takes_new_flows_once_it_passes_and_as_long_as_it_does() {
    let mut node = Node::default();
    node.set_file(&[checked("web", 1, &[1, 2, 3], OnDown::Keep)]);
    // None has passed yet: all take flows, and nothing is wrong.
    assert_eq!((node.serving(), node.life()), (vec![1, 2, 3], ServiceLife::Up));
    assert_eq!(node.desired.notes(), Vec::<String>::new());
    node.check(&[(1, true)]);
    assert_eq!((node.serving(), node.life()), (vec![1], ServiceLife::Up));
    node.check(&[(1, true), (2, true), (3, false)]);
    assert_eq!(node.serving(), [1, 2]);
    let state = node.desired.get("web").unwrap().state(true);
    assert_eq!(
        (state.backends[2].state, state.backends[2].reason),
        (BackendLife::Down, Some(Down::CheckFailed))
    );
    // One that is down keeps its flows.
    assert_eq!(node.desired.get("web").unwrap().wanted.backends.len(), 3);
}

#[test]
fn if_checks_would_leave_none_all_stay_and_that_is_told() {
    let mut node = Node::default();
    node.set_file(&[checked("web", 1, &[1, 2], OnDown::Reset)]);
    node.check(&[(1, false), (2, false)]);
    assert_eq!((node.serving(), node.life()), (vec![1, 2], ServiceLife::AllDown));
    assert_eq!(node.desired.notes(), ["all-down: web: none of 2 backends is up, so that all take new flows"]);
    // What is drained or gone could not serve, and is not brought back.
    node.inputs.replace(
        SourceId::Presence,
        Input { down: [(socket(1).ip(), Down::EndpointGone)].into(), ..Input::default() },
    );
    node.follow(&Dirty::All);
    assert_eq!((node.serving(), node.life()), (vec![2], ServiceLife::AllDown));
    node.check(&[(1, true), (2, false)]);
    assert_eq!((node.serving(), node.life()), (vec![2], ServiceLife::AllDown), "who has passed has gone");
    node.inputs.replace(SourceId::Presence, Input::default());
    node.follow(&Dirty::All);
    assert_eq!((node.serving(), node.life()), (vec![1], ServiceLife::Up));
}

#[test]
fn flows_of_a_backend_that_fails_end_where_that_is_asked_for() {
    let mut node = Node::default();
    node.set_file(&[checked("web", 1, &[1, 2, 3], OnDown::Reset)]);
    node.check(&[(1, true), (2, false)]);
    let kept: Vec<u8> =
        node.desired.get("web").unwrap().wanted.backends.iter().map(|own| last_of(own.address)).collect();
    assert_eq!(kept, [1, 3], "what has not passed yet has not failed");
    assert_eq!(node.desired.get("web").unwrap().state(true).backends.len(), 3);
}

#[test]
fn checks_of_this_node_alone_do_not_count_while_the_cluster_speaks() {
    let mut node = Node::default();
    node.check(&[(1, true), (2, false)]);
    node.inputs.set_clustered(true);
    let own = checked("web", 1, &[1, 2], OnDown::Keep);
    let statement =
        Statement { checked: [(socket(1), false), (socket(2), true)].into(), ..Statement::of(&own) };
    let services = [("web".into(), Arc::new(statement))].into();
    node.inputs.replace(SourceId::Cluster, Input { services, ..Input::default() });
    node.follow(&Dirty::All);
    assert_eq!(node.serving(), [2]);
}
