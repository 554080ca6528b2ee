use dataplane_common::abi::EndpointRecord;
use proptest::prelude::*;

use super::*;
use crate::{
    observed::{FdbEntry, Neighbour},
    reconcile::{
        EndpointOp, Learning,
        endpoints::plan,
        fixtures::{BRIDGE, fan, port, routed},
    },
};

const BACKEND: Ipv4Addr = Ipv4Addr::new(250, 0, 28, 9);

/// A host's kernel with one container that only listens, and the agent's looks at it.
struct World {
    links: Vec<Link>,
    neighbours: Vec<Neighbour>,
    fdb: Vec<FdbEntry>,
    held: Vec<(Ipv4Addr, EndpointRecord)>,
    /// Port and MAC address of the container.
    alive: Option<(u32, [u8; 6])>,
    next_index: u32,
    inquiry: Inquiry,
    now: Duration,
}

impl World {
    fn new() -> Self {
        Self {
            links: vec![port(4, "other")],
            neighbours: vec![],
            fdb: vec![],
            held: vec![],
            alive: None,
            next_index: 5,
            inquiry: Inquiry::default(),
            now: Duration::from_secs(1000),
        }
    }

    /// A container that the agent has found.
    fn found() -> Self {
        let mut world = Self::new();
        world.start();
        world.settle();
        world.now += PAUSE;
        assert_eq!(world.look(), Findings::default());
        world
    }

    fn start(&mut self) {
        let index = self.next_index;
        self.next_index += 1;
        self.links.push(port(index, "c"));
        self.alive = Some((index, [2, 0, 0, 0, 2, index as u8]));
    }

    /// Its port goes, and with it what the bridge learnt there; the neighbour entry stays.
    fn stop(&mut self) {
        let Some((index, _)) = self.alive.take() else { return };
        self.links.retain(|link| link.index != index);
        self.fdb.retain(|entry| entry.port != index);
    }

    fn restart(&mut self) {
        self.stop();
        self.start();
    }

    fn device(&mut self) -> &mut Link {
        let index = self.alive.expect("it is alive").0;
        self.links.iter_mut().find(|link| link.index == index).expect("its port is there")
    }

    /// One look: the table is brought up to date, and the kernel does as it is asked.
    fn look(&mut self) -> Findings {
        let fans = [fan()];
        let backends = BTreeSet::from([BACKEND]);
        let (links, neighbours) = (self.links.clone(), self.neighbours.clone());
        let (fdb, held) = (self.fdb.clone(), self.held.clone());
        let observed =
            ObservedEndpoints { fans: &fans, links: &links, neighbours: &neighbours, fdb: &fdb, held: &held };
        for op in plan(&observed, Learning::On) {
            self.held.retain(|(held, _)| *held != op.address());
            match op {
                EndpointOp::Insert(record) | EndpointOp::Update(record) => {
                    self.held.push((op.address(), record));
                }
                EndpointOp::Remove(_) => self.neighbours.retain(|it| it.state == NeighbourState::Failed),
            }
        }
        let findings = self.inquiry.look(&observed, &backends, self.now);
        for question in &findings.ask {
            self.ask(question);
        }
        findings
    }

    fn ask(&mut self, question: &Question) {
        if question.anew {
            self.neighbours.clear();
        }
        // The kernel asks the MAC address of an entry that has one, and nobody else.
        if self.neighbours.iter().all(|entry| entry.state == NeighbourState::Failed) {
            let (index, address) = (question.device, question.address);
            self.neighbours = vec![Neighbour {
                index,
                address,
                mac: None,
                state: NeighbourState::Incomplete,
                is_static: false,
            }];
        }
    }

    /// The answer to a question under way, or that none comes.
    fn answer(&mut self) {
        let carries = |index| self.links.iter().any(|link| link.index == index && link.carrier);
        let answering = self.alive.filter(|&(index, _)| carries(index));
        for entry in self.neighbours.iter_mut().filter(|it| it.state == NeighbourState::Incomplete) {
            match answering {
                Some((port, mac)) => {
                    (entry.mac, entry.state) = (Some(mac), NeighbourState::Known);
                    self.fdb = vec![FdbEntry { bridge: BRIDGE, port, mac, local: false }];
                }
                None => entry.state = NeighbourState::Failed,
            }
        }
    }

    /// Looks until nothing is asked for that could be answered within a second.
    fn settle(&mut self) -> Findings {
        let end = self.now + Duration::from_millis(900);
        loop {
            self.look();
            self.answer();
            let findings = self.look();
            match findings.next.filter(|&next| next <= end) {
                Some(next) => self.now = next,
                None if findings.ask.is_empty() => return findings,
                None => {}
            }
        }
    }

    fn is_found(&self) -> bool {
        let held = self.held.iter().find(|(address, _)| *address == BACKEND);
        held.map(|(_, record)| (record.ifindex, record.mac)) == self.alive
    }
}

fn question(anew: bool) -> Question {
    Question { device: BRIDGE, address: BACKEND, anew }
}

#[test]
fn a_backend_that_only_listens_is_asked_for_at_once_and_left_alone_once_it_is_found() {
    let mut world = World::new();
    world.start();
    let findings = world.look();
    assert_eq!((findings.ask, findings.down.len()), (vec![question(true)], 0));
    world.answer();
    assert_eq!(world.look(), Findings::default());
    assert!(world.is_found());
    world.now += INTERVAL * 100;
    world.fdb.clear();
    assert_eq!(world.look(), Findings::default());
}

#[test]
fn a_backend_without_its_device_is_down_and_asked_for_when_a_port_joins() {
    let mut world = World::found();
    world.stop();
    let gone = world.look();
    assert!(gone.down.contains(&BACKEND));
    world.answer();
    world.now += PAUSE;
    assert!(world.look().ask.is_empty());
    world.start();
    assert_eq!(world.look().ask, [question(true)]);
    world.answer();
    assert_eq!(world.look(), Findings::default());
    assert!(world.is_found());
}

#[test]
fn a_restart_between_two_looks_is_noticed_by_the_new_port() {
    let mut world = World::found();
    world.restart();
    assert_eq!(world.look().ask, [question(true)]);
    world.answer();
    assert_eq!(world.look(), Findings::default());
    assert!(world.is_found());
}

#[test]
fn two_restarts_within_a_second_are_over_within_the_next() {
    let mut world = World::found();
    world.restart();
    world.look();
    world.answer();
    world.now += Duration::from_millis(50);
    world.restart();
    let early = world.look();
    assert_eq!((early.ask.len(), early.next), (0, Some(world.now + Duration::from_millis(150))));
    world.now += Duration::from_millis(150);
    assert_eq!(world.look().ask, [question(true)]);
    world.answer();
    assert_eq!(world.look(), Findings::default());
    assert!(world.is_found());
}

#[test]
fn an_address_that_nobody_has_is_down_when_nobody_answered_and_asked_for_now_and_then() {
    let mut world = World::new();
    assert!(world.look().down.is_empty());
    world.answer();
    let silent = world.look();
    assert_eq!((silent.down.contains(&BACKEND), silent.ask.len()), (true, 0));
    assert_eq!(silent.next, Some(world.now + INTERVAL));
    world.now += INTERVAL;
    assert_eq!(world.look().ask, [question(false)]);
    // A question under way clears nobody.
    assert!(world.look().down.contains(&BACKEND));
    // Nor does the kernel, that forgets what failed.
    world.neighbours.clear();
    assert!(world.look().down.contains(&BACKEND));
}

#[test]
fn a_machine_without_carrier_is_down_until_it_answers_again() {
    let mut world = World::found();
    world.device().carrier = false;
    assert!(world.look().down.contains(&BACKEND));
    world.device().carrier = true;
    world.now += INTERVAL;
    let back = world.look();
    assert_eq!((back.ask.as_slice(), back.down.contains(&BACKEND)), ([question(true)].as_slice(), true));
    world.answer();
    assert_eq!(world.look(), Findings::default());
}

#[test]
fn a_device_with_another_mac_address_is_asked_anew() {
    let mut world = World::found();
    world.device().mac = [2, 9, 9, 9, 9, 9];
    assert_eq!(world.look().ask, [question(true)]);
}

#[test]
fn a_storm_of_joining_ports_asks_no_more_than_a_few_times_a_second() {
    let mut world = World::new();
    let mut asked = 0;
    for index in 0..100 {
        world.links.push(port(100 + index, "storm"));
        asked += world.look().ask.len();
        world.now += Duration::from_millis(10);
    }
    assert!((1..=6).contains(&asked), "{asked}");
}

#[test]
fn a_routed_endpoint_is_asked_for_on_its_own_device() {
    let mut world = World::new();
    world.links.push(routed(7, "r", &[BACKEND]));
    world.neighbours = vec![Neighbour {
        index: 7,
        address: BACKEND,
        mac: None,
        state: NeighbourState::Failed,
        is_static: false,
    }];
    let findings = world.look();
    assert_eq!(findings.ask, [Question { device: 7, address: BACKEND, anew: true }]);
    assert!(findings.down.contains(&BACKEND));
}

#[test]
fn backends_elsewhere_are_nobodys_business_here() {
    let elsewhere = BTreeSet::from([Ipv4Addr::new(250, 0, 27, 9), Ipv4Addr::new(10, 0, 0, 1)]);
    let fans = [fan()];
    let observed = ObservedEndpoints { fans: &fans, links: &[], neighbours: &[], fdb: &[], held: &[] };
    assert_eq!(Inquiry::default().look(&observed, &elsewhere, Duration::ZERO), Findings::default());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Start,
    Stop,
    Restart,
    Look,
    Answer,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Start),
        Just(Step::Stop),
        Just(Step::Restart),
        Just(Step::Look),
        Just(Step::Answer),
        (0u64..3000).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_happened_a_living_backend_is_found_within_a_second_and_a_dead_one_is_down_soon(
        steps in proptest::collection::vec(step(), 0..40),
    ) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Start if world.alive.is_none() => world.start(),
                Step::Start => {}
                Step::Stop => world.stop(),
                Step::Restart => world.restart(),
                Step::Look => drop(world.look()),
                Step::Answer => world.answer(),
                Step::Wait(millis) => world.now += Duration::from_millis(millis),
            }
        }
        let mut findings = world.settle();
        prop_assert!(world.is_found(), "{:?} {:?}", world.held, world.alive);
        if world.alive.is_none() {
            // One that was never found is asked for once more.
            world.now += INTERVAL;
            findings = world.settle();
        }
        prop_assert_eq!(findings.down.contains(&BACKEND), world.alive.is_none());
    }
}
