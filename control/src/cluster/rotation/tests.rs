use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    cluster::{
        clock::Stamp,
        log::{Change, Item},
        records::{BackendRecord, Claim, Facts, Record, RecordKey, Verdict, checkers, puts},
    },
    health::{Check, Checking, OnDown, Probe},
    service::{Algorithm, VipSpec},
};

/// A service that is not checked.
fn plain(vip: VipSpec) -> Definition {
    Definition { vip, algorithm: Algorithm::Maglev, checking: None }
}

/// Logs of nodes, the view of them, and what a node serves by it.
#[derive(Default)]
struct World {
    view: View,
    clock: crate::cluster::clock::Clock,
    standings: BTreeMap<Name, Standing>,
    serving: Serving,
    now: Duration,
    last: BTreeMap<(Name, RecordKey), Item>,
}

impl World {
    /// Nodes `h1` and so on, with slices 250.0.N.0/24 and a service `web`.
    fn new(nodes: u8) -> Self {
        let mut world = Self::default();
        for number in 1..=nodes {
            let slices = vec![format!("250.0.{number}.0/24").parse().unwrap()];
            let addresses = vec![[172, 30, 0, number].into()];
            let name = format!("h{number}");
            world.write(&name, Record::Facts(Facts { addresses, slices, ..Facts::default() }));
            world.standings.insert(name.as_str().into(), Standing::Alive);
        }
        let vip = "10.96.0.1:80/tcp".parse().unwrap();
        world.write("h1", Record::Define { name: "web".into(), what: plain(vip) });
        world.stand(false);
        world
    }

    fn write(&mut self, node: &str, record: Record) -> Vec<String> {
        let node = Name::from(node);
        let key = record.key();
        let put = puts(&self.view, &node, vec![record], &mut self.clock, 1_796_000_000_000).remove(0);
        let now = Item { seq: 1, stamp: put.stamp, writer: None, value: put.value };
        let was = self.last.insert((node.clone(), key), now.clone());
        let change = Change { origin: node, slot: 0, key: put.key, was, now: Some(now) };
        let touched = self.view.follow(&[change]);
        let changed = self.serving.follow(&self.view, &touched, self.now);
        self.is_as_from_nothing();
        changed.iter().map(ToString::to_string).collect()
    }

    fn offer(&mut self, node: &str, address: &str, weight: u32) {
        let socket = address.parse().unwrap();
        self.write(node, Record::Offer("web".into(), socket, BackendRecord { weight, file: None }));
    }

    fn withdraw(&mut self, node: &str, address: &str) {
        self.write(node, Record::Withdraw("web".into(), address.parse().unwrap()));
    }

    fn set(&mut self, standing: Standing, numbers: &[u8]) -> Vec<String> {
        for number in numbers {
            self.standings.insert(format!("h{number}").as_str().into(), standing);
        }
        self.stand(false)
    }

    fn stand(&mut self, is_minority: bool) -> Vec<String> {
        let changed = self.serving.stand(&self.view, self.standings.clone(), is_minority, self.now);
        changed.iter().map(ToString::to_string).collect()
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        if self.serving.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.serving.elapse(&self.view, self.now);
        }
    }

    /// Backends as `ADDRESS STATE`.
    fn served(&self) -> Vec<String> {
        let web = self.serving.get("web");
        let backends = web.into_iter().flat_map(|web| &web.backends);
        backends.map(|own| format!("{} {:?}", own.socket, own.rotation)).collect()
    }

    fn deaths(&self) -> Deaths {
        self.serving.get("web").unwrap().deaths
    }

    /// Outside of a second in which a ring shrank, what is served is a function of view and standings.
    fn is_as_from_nothing(&self) {
        let mut anew = Serving { standings: self.serving.standings.clone(), ..Serving::default() };
        let nodes = self.view.facts().map(|(name, _)| name.clone()).collect();
        let services = self.view.names().cloned().collect();
        let touched = Touched { services, nodes, ..Touched::default() };
        anew.follow(&self.view, &touched, self.now);
        if self.serving.shrunk.is_empty() {
            assert_eq!(self.serving.services, anew.services);
        }
        assert_eq!((&self.serving.addresses, &self.serving.claimed), (&anew.addresses, &anew.claimed));
    }
}

#[test]
fn where_an_address_is_decides_and_not_who_contributed_it() {
    let mut world = World::new(4);
    world.offer("h1", "250.0.2.7:80", 1);
    world.offer("h1", "172.30.0.3:80", 1);
    world.offer("h4", "250.0.1.5:80", 1);
    world.offer("h4", "192.0.2.9:80", 1);
    world.set(Standing::Gone, &[4]);
    let all_up = ["172.30.0.3:80 Up", "192.0.2.9:80 Up", "250.0.1.5:80 Up", "250.0.2.7:80 Up"];
    assert_eq!(world.served(), all_up);
    assert_eq!(world.set(Standing::Gone, &[2]), ["web"]);
    assert_eq!(world.served()[3], "250.0.2.7:80 Down");
    world.set(Standing::Maintenance, &[3]);
    assert_eq!(world.served()[0], "172.30.0.3:80 Drained");
    world.set(Standing::Alive, &[2, 3]);
    assert_eq!(world.served(), all_up);
    assert_eq!(world.set(Standing::Alive, &[2, 3]), Vec::<String>::new());
    let web = world.serving.get("web").unwrap();
    assert_eq!(web.backends[1].node, None);
    assert_eq!(web.backends[3].node.as_deref(), Some("h2"));
}

#[test]
fn of_several_contributors_the_smallest_name_gives_the_weight_and_any_of_them_keeps_it() {
    let mut world = World::new(3);
    world.offer("h2", "250.0.1.5:80", 2);
    world.offer("h1", "250.0.1.5:80", 7);
    let web = world.serving.get("web").unwrap();
    assert_eq!((web.backends.len(), web.backends[0].weight), (1, 7));
    let contributors = world.view.service("web").unwrap().contributors("250.0.1.5:80".parse().unwrap());
    assert_eq!(contributors, ["h1", "h2"].map(Name::from).iter().collect::<Vec<_>>());
    world.withdraw("h1", "250.0.1.5:80");
    assert_eq!(world.serving.get("web").unwrap().backends[0].weight, 2);
    world.withdraw("h2", "250.0.1.5:80");
    assert_eq!(world.served(), Vec::<String>::new());
}

#[test]
fn a_node_that_says_that_it_is_in_maintenance_is_out_at_once_and_its_slice_may_move() {
    let mut world = World::new(2);
    world.offer("h1", "250.0.1.5:80", 1);
    world.offer("h1", "250.0.2.5:80", 1);
    let facts = |slice: &str, is_in_maintenance| {
        let slices = vec![slice.parse().unwrap()];
        Record::Facts(Facts { slices, is_in_maintenance, ..Facts::default() })
    };
    assert_eq!(world.write("h2", facts("250.0.2.0/24", true)), ["web"]);
    assert_eq!(world.served(), ["250.0.1.5:80 Up", "250.0.2.5:80 Drained"]);
    assert_eq!(world.write("h2", facts("250.0.9.0/24", true)), ["web"]);
    assert_eq!(world.served(), ["250.0.1.5:80 Up", "250.0.2.5:80 Up"]);
    assert_eq!(world.write("h2", facts("250.0.9.0/24", false)), Vec::<String>::new());
}

#[test]
fn a_service_is_never_emptied_by_deaths() {
    let mut world = World::new(5);
    for number in 1..=4 {
        world.offer("h5", &format!("250.0.{number}.5:80"), 1);
    }
    world.set(Standing::Gone, &[1, 2]);
    assert_eq!((world.deaths(), world.serving.get("web").unwrap().in_rotation()), (Deaths::Followed, 2));
    world.set(Standing::Gone, &[3]);
    assert_eq!(world.deaths(), Deaths::Kept);
    assert_eq!(world.served()[2..], ["250.0.3.5:80 Kept", "250.0.4.5:80 Up"]);
    world.set(Standing::Gone, &[4]);
    assert_eq!((world.deaths(), world.serving.get("web").unwrap().in_rotation()), (Deaths::AllDown, 4));
    world.set(Standing::Alive, &[1, 2]);
    assert_eq!(world.served()[..2], ["250.0.1.5:80 Up", "250.0.2.5:80 Up"]);
    assert_eq!(world.serving.get("web").unwrap().in_rotation(), 2);
    // What is drained or weighs nothing could not serve, and does not count.
    world.offer("h5", "250.0.1.5:80", 0);
    world.write("h5", Record::Drain("web".into(), "250.0.2.5:80".parse().unwrap(), true));
    assert_eq!(world.deaths(), Deaths::AllDown);
    assert_eq!(world.served()[1], "250.0.2.5:80 Drained");
}

#[test]
fn deaths_take_no_more_than_half_of_a_ring_within_a_second() {
    let mut world = World::new(12);
    for number in 1..=10 {
        world.offer("h11", &format!("250.0.{number}.5:80"), 1);
    }
    world.set(Standing::Gone, &[1, 2, 3, 4, 5]);
    assert_eq!(world.serving.get("web").unwrap().in_rotation(), 5);
    // Their contributor takes two of the dead away, so that one more death leaves half of what is known.
    world.withdraw("h11", "250.0.1.5:80");
    world.withdraw("h11", "250.0.2.5:80");
    world.pass(500);
    world.set(Standing::Gone, &[6]);
    assert_eq!((world.deaths(), world.serving.get("web").unwrap().in_rotation()), (Deaths::Kept, 5));
    assert_eq!(
        world.served()[..4],
        ["250.0.3.5:80 Down", "250.0.4.5:80 Down", "250.0.5.5:80 Down", "250.0.6.5:80 Kept"]
    );
    world.pass(499);
    assert_eq!(world.deaths(), Deaths::Kept);
    world.pass(1);
    assert_eq!((world.deaths(), world.serving.get("web").unwrap().in_rotation()), (Deaths::Followed, 4));
    world.pass(1_000);
    assert_eq!(world.serving.deadline(), None);
    world.is_as_from_nothing();
}

#[test]
fn members_beyond_a_partition_may_go_one_after_the_other_and_those_long_before_stay_gone() {
    let mut world = World::new(6);
    for number in 1..=5 {
        world.offer("h6", &format!("250.0.{number}.5:80"), 1);
    }
    for (number, pause) in [(1, 15_001), (2, 14_000), (3, 14_000)] {
        world.set(Standing::Gone, &[number]);
        world.pass(pause);
    }
    world.standings.insert("h4".into(), Standing::Gone);
    world.stand(true);
    assert_eq!(world.served()[..3], ["250.0.1.5:80 Down", "250.0.2.5:80 Up", "250.0.3.5:80 Up"]);
}

#[test]
fn a_minority_serves_what_it_last_knew_and_still_follows_records() {
    let mut world = World::new(5);
    for number in 1..=4 {
        world.offer("h5", &format!("250.0.{number}.5:80"), 1);
    }
    world.set(Standing::Gone, &[1]);
    world.pass(15_001);
    for number in ["h2", "h3", "h4"] {
        world.standings.insert(number.into(), Standing::Gone);
    }
    assert_eq!(world.stand(true), Vec::<String>::new());
    assert!(world.serving.is_minority());
    assert_eq!(world.served()[..2], ["250.0.1.5:80 Down", "250.0.2.5:80 Up"]);
    world.withdraw("h5", "250.0.3.5:80");
    assert_eq!(world.served().len(), 3);
    // One of them is heard of again, and dies while this node is with the majority.
    world.standings.insert("h2".into(), Standing::Alive);
    world.stand(false);
    world.set(Standing::Alive, &[3, 4]);
    world.set(Standing::Gone, &[2]);
    assert_eq!(world.deaths(), Deaths::Kept);
}

#[test]
fn whom_a_partition_took_away_one_after_the_other_is_believed_to_be_there() {
    let mut world = World::new(3);
    world.offer("h3", "250.0.1.5:80", 1);
    world.offer("h3", "250.0.2.5:80", 1);
    assert_eq!(world.set(Standing::Gone, &[1]), ["web"]);
    world.pass(1_500);
    world.standings.insert("h2".into(), Standing::Left);
    assert_eq!(world.stand(true), ["web"]);
    assert_eq!(world.served(), ["250.0.1.5:80 Up", "250.0.2.5:80 Up"]);
    world.pass(10_000);
    assert_eq!(world.stand(true), Vec::<String>::new());
    world.standings.insert("h2".into(), Standing::Alive);
    assert_eq!(world.stand(false), ["web"]);
    assert_eq!(world.served(), ["250.0.1.5:80 Down", "250.0.2.5:80 Up"]);
}

#[test]
fn files_that_disagree_are_a_conflict_while_their_members_are_there() {
    let mut world = World::new(2);
    let claim = |last: u8| {
        let vip = format!("10.96.0.{last}:80/tcp").parse().unwrap();
        Some(Claim::of(&plain(vip), &[]))
    };
    world.write("h1", Record::Claim("web".into(), "/a".into(), claim(1)));
    assert_eq!(world.write("h2", Record::Claim("web".into(), "/b".into(), claim(2))), ["web"]);
    let is_conflict = |world: &World| world.serving.get("web").unwrap().conflict.is_some();
    assert!(is_conflict(&world));
    assert_eq!(world.set(Standing::Gone, &[2]), ["web"]);
    assert!(!is_conflict(&world));
    assert_eq!(world.set(Standing::Alive, &[2]), ["web"]);
    world.write("h2", Record::Claim("web".into(), "/b".into(), claim(1)));
    assert!(!is_conflict(&world));
}

#[test]
fn a_service_that_is_removed_is_not_served_and_one_behind_another_says_so() {
    let mut world = World::new(2);
    let vip = "10.96.0.1:80/tcp".parse().unwrap();
    let define = Record::Define { name: "later".into(), what: plain(vip) };
    assert_eq!(world.write("h2", define), ["later"]);
    assert_eq!(world.serving.get("later").unwrap().clash.as_deref(), Some("web"));
    assert_eq!(world.write("h2", Record::Undefine("web".into())), ["later", "web"]);
    assert_eq!(world.serving.get("later").unwrap().clash, None);
    assert!(world.serving.get("web").is_none());
    assert!(Stamp::ZERO < world.view.service("web").unwrap().since());
}

#[derive(Clone, Debug)]
enum Event {
    Offer(u8, u8, u32),
    Withdraw(u8, u8),
    Stand(u8, Standing),
    Pass(u64),
    Slice(u8, u8),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_one_change_at_a_time_gives_what_all_at_once_gives(
        events in vec(
            prop_oneof![
                (1_u8..5, 1_u8..7, 0_u32..3).prop_map(|(node, at, weight)| Event::Offer(node, at, weight)),
                (1_u8..5, 1_u8..7).prop_map(|(node, at)| Event::Withdraw(node, at)),
                (1_u8..5, prop_oneof![Just(Standing::Alive), Just(Standing::Maintenance), Just(Standing::Gone)])
                    .prop_map(|(node, standing)| Event::Stand(node, standing)),
                (0_u64..1_500).prop_map(Event::Pass),
                (1_u8..5, 1_u8..7).prop_map(|(node, at)| Event::Slice(node, at)),
            ],
            1..40,
        ),
    ) {
        let mut world = World::new(4);
        for event in events {
            let before = world.serving.get("web").map_or(0, |web| web.in_rotation());
            match event {
                Event::Offer(node, at, weight) => {
                    world.offer(&format!("h{node}"), &format!("250.0.{at}.{node}:80"), weight);
                }
                Event::Withdraw(node, at) => {
                    world.withdraw(&format!("h{node}"), &format!("250.0.{at}.{node}:80"));
                }
                Event::Stand(node, standing) => {
                    world.set(standing, &[node]);
                    if standing == Standing::Gone {
                        let after = world.serving.get("web").map_or(0, |web| web.in_rotation());
                        prop_assert!(after >= before / 2 || after >= before - before / 2, "{before} {after}");
                    }
                }
                Event::Pass(ms) => world.pass(ms),
                Event::Slice(node, at) => {
                    let slices = vec![format!("250.0.{at}.0/24").parse().unwrap()];
                    world.write(&format!("h{node}"), Record::Facts(Facts { slices, ..Facts::default() }));
                }
            }
            world.is_as_from_nothing();
        }
        world.pass(1_000);
        world.pass(1_000);
        world.is_as_from_nothing();
        let web = world.serving.get("web").unwrap();
        let could = web.backends.iter().any(|own| own.weight > 0 && own.rotation != Rotation::Drained);
        prop_assert_eq!(could, web.in_rotation() > 0, "never emptied");
    }
}

impl World {
    /// Nodes and a service `web` that is checked.
    fn checked(nodes: u8) -> Self {
        let mut world = Self::new(nodes);
        let checking = Checking { check: Check::new(Probe::Tcp).into(), on_down: OnDown::Keep };
        let vip = "10.96.0.1:80/tcp".parse().unwrap();
        let what = Definition { checking: Some(Arc::new(checking)), ..plain(vip) };
        world.write("h1", Record::Define { name: "web".into(), what });
        world
    }

    fn judge(&mut self, node: &str, address: &str, is_up: Option<bool>) {
        let verdict = is_up.map(|is_up| Verdict { is_up });
        self.write(node, Record::Verdict("web".into(), address.parse().unwrap(), verdict));
    }

    fn is_up(&self, address: &str) -> Option<bool> {
        let web = self.serving.get("web").unwrap();
        web.backends.iter().find(|own| own.socket.to_string() == address).unwrap().is_checked_up
    }
}

#[test]
fn a_backend_is_up_when_at_least_half_of_its_live_contributors_say_so() {
    let mut world = World::checked(4);
    let address = "250.0.1.5:80";
    for node in ["h1", "h2", "h3"] {
        world.offer(node, address, 1);
    }
    assert_eq!(world.is_up(address), None);
    world.judge("h1", address, Some(false));
    assert_eq!(world.is_up(address), Some(false));
    world.judge("h2", address, Some(true));
    assert_eq!(world.is_up(address), Some(true), "one of two");
    world.judge("h3", address, Some(false));
    assert_eq!(world.is_up(address), Some(false), "one of three");
    // A contributor that has gone has no say, and who does not contribute has none.
    world.set(Standing::Gone, &[3]);
    assert_eq!(world.is_up(address), Some(true));
    world.judge("h4", address, Some(false));
    assert_eq!(world.is_up(address), Some(true));
    world.set(Standing::Gone, &[2]);
    assert_eq!(world.is_up(address), Some(false));
    // Of services that are not checked nobody says anything.
    world
        .write("h1", Record::Define { name: "web".into(), what: plain("10.96.0.1:80/tcp".parse().unwrap()) });
    assert_eq!(world.is_up(address), None);
}

#[test]
fn what_contributors_found_last_holds_when_they_have_gone() {
    let mut world = World::checked(3);
    world.offer("h2", "250.0.1.5:80", 1);
    world.judge("h2", "250.0.1.5:80", Some(false));
    world.set(Standing::Gone, &[2]);
    assert_eq!(world.is_up("250.0.1.5:80"), Some(false));
}

#[test]
fn an_address_that_no_member_has_is_down_when_two_of_three_say_so() {
    let mut world = World::checked(6);
    let address = "192.0.2.9:80";
    world.offer("h1", address, 1);
    let names: Vec<Name> = (1..=6).map(|number| Name::from(format!("h{number}").as_str())).collect();
    let three: Vec<String> =
        checkers(address.parse().unwrap(), &names).iter().map(ToString::to_string).collect();
    world.judge(&three[0], address, Some(false));
    assert_eq!(world.is_up(address), None, "one alone, and nobody has found it up");
    world.judge(&three[1], address, Some(true));
    world.judge(&three[2], address, Some(true));
    assert_eq!(world.is_up(address), Some(true));
    world.judge(&three[1], address, Some(false));
    assert_eq!(world.is_up(address), Some(false));
    // One of those who say so goes, and who takes its place has found nothing yet.
    let number: u8 = three[0][1..].parse().unwrap();
    world.set(Standing::Gone, &[number]);
    assert_eq!(world.is_up(address), Some(true));
}

#[test]
fn what_was_found_of_a_former_service_is_nothing_to_the_next_of_its_name() {
    let mut world = World::checked(2);
    world.offer("h2", "250.0.1.5:80", 1);
    world.judge("h2", "250.0.1.5:80", Some(true));
    world.write("h1", Record::Undefine("web".into()));
    let checking = Checking { check: Check::new(Probe::Tcp).into(), on_down: OnDown::Keep };
    let what =
        Definition { checking: Some(Arc::new(checking)), ..plain("10.96.0.1:80/tcp".parse().unwrap()) };
    world.write("h1", Record::Define { name: "web".into(), what });
    world.offer("h2", "250.0.1.5:80", 1);
    assert_eq!(world.is_up("250.0.1.5:80"), None);
}
