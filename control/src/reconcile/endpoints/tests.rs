use proptest::prelude::*;

use super::*;
use crate::reconcile::fixtures::{BRIDGE, GATEWAY, address, bridged, fan, port, routed, veth};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 6];

/// A world to be changed by tests: one port with one learnt neighbour.
#[derive(Clone, Debug)]
struct World {
    links: Vec<Link>,
    neighbours: Vec<Neighbour>,
    fdb: Vec<FdbEntry>,
    held: Vec<(Ipv4Addr, EndpointRecord)>,
}

impl World {
    fn new() -> Self {
        Self {
            links: vec![port(4, "a"), port(5, "b")],
            neighbours: vec![neighbour(BRIDGE, address(9), MAC)],
            fdb: vec![behind(4, MAC)],
            held: vec![],
        }
    }

    /// The same world with the table as the agent would have filled it.
    fn settled(mut self) -> Self {
        self.apply(Learning::On);
        self
    }

    fn plan(&self, learning: Learning) -> Vec<EndpointOp> {
        plan(&self.observed(&[fan()]), learning)
    }

    fn observed<'a>(&'a self, fans: &'a [FanRecord]) -> ObservedEndpoints<'a> {
        ObservedEndpoints {
            fans,
            links: &self.links,
            neighbours: &self.neighbours,
            fdb: &self.fdb,
            held: &self.held,
        }
    }

    fn apply(&mut self, learning: Learning) {
        for op in self.plan(learning) {
            self.held.retain(|(address, _)| *address != op.address());
            match op {
                EndpointOp::Insert(record) | EndpointOp::Update(record) => {
                    self.held.push((record.address.into(), record));
                }
                EndpointOp::Remove(_) => {}
            }
        }
    }
}

fn neighbour(index: u32, address: Ipv4Addr, mac: [u8; 6]) -> Neighbour {
    Neighbour { index, address, mac: Some(mac), state: NeighbourState::Known, is_static: false }
}

fn failed(index: u32, address: Ipv4Addr) -> Neighbour {
    Neighbour { index, address, mac: None, state: NeighbourState::Failed, is_static: false }
}

fn behind(port: u32, mac: [u8; 6]) -> FdbEntry {
    FdbEntry { bridge: BRIDGE, port, mac, local: false }
}

fn entry(host: u8, ifindex: u32, mac: [u8; 6]) -> EndpointRecord {
    EndpointRecord { address: address(host).to_bits(), ifindex, mac, flags: EndpointRecord::PEER }
}

#[test]
fn a_neighbour_whose_port_is_known_enters_the_table() {
    assert_eq!(World::new().plan(Learning::On), [EndpointOp::Insert(entry(9, 4, MAC))]);
    assert_eq!(World::new().settled().plan(Learning::On), []);
}

#[test]
fn without_an_agent_nothing_is_learnt_but_what_is_over_is_removed() {
    assert_eq!(World::new().plan(Learning::Off), []);
    let mut world = World::new().settled();
    assert_eq!(world.plan(Learning::Off), []);
    world.links.remove(0);
    assert_eq!(world.plan(Learning::Off), [EndpointOp::Remove(address(9))]);
}

#[test]
fn a_neighbour_whose_port_is_unknown_waits() {
    let world = World { fdb: vec![], ..World::new() };
    assert_eq!(world.plan(Learning::On), []);
    assert_eq!(suspects(&world.observed(&[fan()])), [(BRIDGE, address(9))]);
}

#[test]
fn gateway_foreign_addresses_multicast_macs_and_the_bridges_own_entries_are_ignored() {
    let own = FdbEntry { local: true, ..behind(4, OTHER) };
    let multicast = [0x01, 0, 0x5e, 0, 0, 1];
    let world = World {
        neighbours: vec![
            neighbour(BRIDGE, GATEWAY, MAC),
            neighbour(BRIDGE, address(0), MAC),
            neighbour(BRIDGE, address(255), MAC),
            neighbour(BRIDGE, Ipv4Addr::new(250, 0, 27, 9), MAC),
            neighbour(9, address(10), MAC),
            neighbour(BRIDGE, address(11), multicast),
            neighbour(BRIDGE, address(12), OTHER),
        ],
        fdb: vec![behind(4, MAC), behind(4, multicast), own],
        ..World::new()
    };
    assert_eq!(world.plan(Learning::On), []);
}

#[test]
fn forwarding_entries_that_age_remove_nothing() {
    let world = World { fdb: vec![], ..World::new().settled() };
    assert_eq!(world.plan(Learning::On), []);
}

#[test]
fn a_neighbour_entry_that_the_kernel_dropped_or_asks_for_again_removes_nothing() {
    let gone = World { neighbours: vec![], fdb: vec![], ..World::new().settled() };
    assert_eq!(gone.plan(Learning::On), []);
    let asked =
        Neighbour { mac: None, state: NeighbourState::Incomplete, ..neighbour(BRIDGE, address(9), MAC) };
    let world = World { neighbours: vec![asked], ..World::new().settled() };
    assert_eq!(world.plan(Learning::On), []);
}

#[test]
fn a_neighbour_that_nobody_answers_for_is_removed() {
    let world = World { neighbours: vec![failed(BRIDGE, address(9))], ..World::new().settled() };
    assert_eq!(world.plan(Learning::On), [EndpointOp::Remove(address(9))]);
}

#[test]
fn an_address_that_moved_to_another_mac_follows_it_or_waits_for_its_port() {
    let mut world =
        World { neighbours: vec![neighbour(BRIDGE, address(9), OTHER)], ..World::new().settled() };
    assert_eq!(world.plan(Learning::On), [EndpointOp::Remove(address(9))]);
    world.fdb.push(behind(5, OTHER));
    assert_eq!(world.plan(Learning::On), [EndpointOp::Update(entry(9, 5, OTHER))]);
}

#[test]
fn a_mac_that_shows_up_on_another_port_takes_its_addresses_along() {
    let world = World { fdb: vec![behind(5, MAC)], ..World::new().settled() };
    assert_eq!(world.plan(Learning::On), [EndpointOp::Update(entry(9, 5, MAC))]);
}

#[test]
fn entries_behind_a_port_that_is_gone_or_left_the_bridge_or_without_their_fan_are_removed() {
    let settled = World::new().settled();
    let removed = [EndpointOp::Remove(address(9))];
    assert_eq!(World { links: vec![], ..settled.clone() }.plan(Learning::On), removed);
    assert_eq!(
        World { links: vec![veth(4, "a")], fdb: vec![], ..settled.clone() }.plan(Learning::On),
        removed
    );
    assert_eq!(plan(&settled.observed(&[]), Learning::On), removed);
}

#[test]
fn a_port_without_a_peer_elsewhere_is_not_marked_as_one() {
    let mut world = World::new();
    world.links[0].peer_netns = false;
    let plain = EndpointRecord { flags: 0, ..entry(9, 4, MAC) };
    assert_eq!(world.plan(Learning::On), [EndpointOp::Insert(plain)]);
}

#[test]
fn endpoints_that_we_wired_are_known_before_they_speak() {
    let links = vec![bridged(4, "a", &[address(2)]), routed(5, "b", &[address(3)])];
    let world = World { links, neighbours: vec![], fdb: vec![], held: vec![] };
    let expected = [
        EndpointOp::Insert(entry(2, 4, [2, 0xfb, 250, 0, 28, 2])),
        EndpointOp::Insert(entry(3, 5, [2, 0xfb, 250, 0, 28, 3])),
    ];
    assert_eq!(world.plan(Learning::Off), expected);
    assert_eq!(world.settled().plan(Learning::On), []);
}

#[test]
fn a_wired_endpoint_can_change_its_mac_but_nobody_else_takes_its_address() {
    let links = vec![bridged(4, "a", &[address(2)]), port(5, "b")];
    let neighbours = vec![neighbour(BRIDGE, address(2), OTHER)];
    let changed = World { links, neighbours, fdb: vec![behind(4, OTHER)], held: vec![] };
    assert_eq!(changed.plan(Learning::On), [EndpointOp::Insert(entry(2, 4, OTHER))]);
    let stolen = World { fdb: vec![behind(5, OTHER)], ..changed };
    let kept = entry(2, 4, [2, 0xfb, 250, 0, 28, 2]);
    assert_eq!(stolen.plan(Learning::On), [EndpointOp::Insert(kept)]);
}

#[test]
fn a_wired_endpoint_that_does_not_answer_leaves_the_table_until_it_does() {
    let world =
        World { links: vec![routed(5, "b", &[address(3)])], neighbours: vec![], fdb: vec![], held: vec![] };
    let settled = world.settled();
    let silent = World { neighbours: vec![failed(5, address(3))], ..settled.clone() };
    assert_eq!(silent.plan(Learning::On), [EndpointOp::Remove(address(3))]);
    let asked = Neighbour { mac: None, state: NeighbourState::Incomplete, ..neighbour(5, address(3), MAC) };
    let asked = World { neighbours: vec![asked], held: vec![], ..settled.clone() };
    assert_eq!(asked.plan(Learning::On), []);
    let answered = World { neighbours: vec![neighbour(5, address(3), MAC)], ..asked };
    assert_eq!(answered.plan(Learning::On), [EndpointOp::Insert(entry(3, 5, MAC))]);
    assert_eq!(suspects(&settled.observed(&[fan()])), [(5, address(3))]);
}

#[test]
fn endpoints_that_we_wired_are_there_while_their_device_is_and_others_while_they_are_known() {
    let mut world = World::new();
    world.links.push(bridged(6, "c", &[address(6)]));
    world.neighbours.push(failed(BRIDGE, address(6)));
    let world = world.settled();
    let fans = [fan()];
    assert_eq!(devices(&world.observed(&fans)), [(address(6), 6), (address(9), 4)].into());
    let gone = World { links: vec![port(5, "b")], ..world };
    assert_eq!(devices(&gone.observed(&fans)), BTreeMap::new());
}

fn any_mac() -> impl Strategy<Value = [u8; 6]> {
    (0u8..6, any::<bool>()).prop_map(|(last, group)| [if group { 3 } else { 2 }, 0, 0, 0, 0, last])
}

fn any_neighbour() -> impl Strategy<Value = Neighbour> {
    let state = prop_oneof![
        3 => Just(NeighbourState::Known),
        1 => Just(NeighbourState::Incomplete),
        1 => Just(NeighbourState::Failed)
    ];
    (1u32..8, 0u8..8, any_mac(), state).prop_map(|(index, last, mac, state)| Neighbour {
        mac: (state == NeighbourState::Known).then_some(mac),
        state,
        ..neighbour(index, address(last), mac)
    })
}

fn any_link() -> impl Strategy<Value = Link> {
    (3u32..8, 0u8..4, 2u8..8).prop_map(|(index, kind, last)| match kind {
        0 => veth(index, "plain"),
        1 => bridged(index, "bridged", &[address(last)]),
        2 => routed(index, "routed", &[address(last)]),
        _ => port(index, "port"),
    })
}

fn any_world() -> impl Strategy<Value = World> {
    let links = prop::collection::vec(any_link(), 0..5).prop_map(|mut links| {
        links.sort_by_key(|link| link.index);
        links.dedup_by_key(|link| link.index);
        links
    });
    let fdb = prop::collection::vec((3u32..8, any_mac()).prop_map(|(port, mac)| behind(port, mac)), 0..6);
    let record = (0u8..8, 3u32..8, any_mac()).prop_map(|(host, index, mac)| entry(host, index, mac));
    let held = prop::collection::vec(record, 0..4).prop_map(|records| {
        let by_address: BTreeMap<Ipv4Addr, _> =
            records.into_iter().map(|record| (record.address.into(), record)).collect();
        by_address.into_iter().collect()
    });
    (links, prop::collection::vec(any_neighbour(), 0..6), fdb, held)
        .prop_map(|(links, neighbours, fdb, held)| World { links, neighbours, fdb, held })
}

proptest! {
    #[test]
    fn an_applied_plan_leaves_nothing_to_do(mut world in any_world()) {
        world.apply(Learning::On);
        prop_assert_eq!(world.plan(Learning::On), vec![]);
        prop_assert_eq!(world.plan(Learning::Off), vec![]);
    }

    #[test]
    fn every_entry_is_an_endpoint_address_behind_a_port_or_a_device_that_we_wired(mut world in any_world()) {
        world.apply(Learning::On);
        for (address, record) in &world.held {
            prop_assert!(endpoint_address(&fan(), *address));
            let link = world.links.iter().find(|link| link.index == record.ifindex).unwrap();
            prop_assert!(link.master == Some(BRIDGE) || link.alias.is_some());
        }
    }

    #[test]
    fn ageing_of_forwarding_entries_never_changes_a_settled_table(mut world in any_world()) {
        world.apply(Learning::On);
        world.fdb.clear();
        prop_assert_eq!(world.plan(Learning::On), vec![]);
    }
}
