use bytemuck::Zeroable as _;

use super::*;

const CLIENT: Ipv4Addr = Ipv4Addr::new(250, 0, 28, 2);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const BACKEND: Ipv4Addr = Ipv4Addr::new(250, 0, 27, 3);
const NOW: u32 = 1_000_000;

fn wire(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

/// Both entries of a TCP flow; the backend sees the client's port as another where one is given.
fn entries(sport: u16, snat_port: u16, state: State) -> [(FlowKey, FlowRecord); 2] {
    let key = |src, dst, sport: u16, dport: u16| {
        FlowKey::new(wire(src), wire(dst), sport.to_be(), dport.to_be(), 6)
    };
    let seen_port = if snat_port == 0 { sport } else { snat_port };
    let forward = FlowRecord {
        src: wire(CLIENT),
        dst: wire(BACKEND),
        sport: seen_port.to_be(),
        dport: 8080_u16.to_be(),
        service: 7,
        state: state as u8,
        seen: NOW - 2_000,
        packets: 3,
        bytes: 300,
        ..FlowRecord::zeroed()
    };
    let reply = FlowRecord {
        src: wire(VIP),
        dst: wire(CLIENT),
        sport: 80_u16.to_be(),
        dport: sport.to_be(),
        flags: FlowRecord::REPLY,
        seen: NOW - 1_000,
        packets: 2,
        bytes: 2_000,
        ..forward
    };
    [(key(CLIENT, VIP, sport, 80), forward), (key(BACKEND, CLIENT, 8080, seen_port), reply)]
}

fn joined(entries: &[(FlowTable, FlowKey, FlowRecord)]) -> Vec<Flow> {
    let mut joiner = Joiner::new(NOW, None);
    let mut flows: Vec<_> =
        entries.iter().filter_map(|(table, key, record)| joiner.add(*table, key, record)).collect();
    flows.extend(joiner.rest());
    flows
}

fn in_table(table: FlowTable, entries: [(FlowKey, FlowRecord); 2]) -> Vec<(FlowTable, FlowKey, FlowRecord)> {
    entries.into_iter().map(|(key, record)| (table, key, record)).collect()
}

#[test]
fn a_flow_with_packets_while_the_table_is_walked_is_listed() {
    let mut entries = in_table(FlowTable::Flows, entries(40_000, 0, State::Established));
    for (_, _, record) in &mut entries {
        record.seen = NOW + 700;
    }
    let ages: Vec<_> = joined(&entries).iter().map(|flow| flow.age).collect();
    assert_eq!(ages, [0]);
}

#[test]
fn both_directions_are_one_flow_in_whatever_order_they_come() {
    for snat_port in [0, 61_234] {
        let mut entries = in_table(FlowTable::Flows, entries(40_000, snat_port, State::Established));
        let flows = joined(&entries);
        let flow = Flow {
            protocol: Protocol::Tcp,
            client: SocketAddrV4::new(CLIENT, 40_000),
            vip: SocketAddrV4::new(VIP, 80),
            backend: SocketAddrV4::new(BACKEND, 8080),
            service: 7,
            state: FlowState::Established,
            age: (1_000 << SEEN_SHIFT) / 1_000_000,
            packets: 5,
            bytes: 2_300,
        };
        assert_eq!(flows, [flow]);
        entries.reverse();
        assert_eq!(joined(&entries), [flow]);
    }
}

#[test]
fn a_complete_flow_is_given_out_at_once_and_half_a_one_at_the_end() {
    let [forward, reply] = entries(40_000, 0, State::Established);
    let mut joiner = Joiner::new(NOW, None);
    assert_eq!(joiner.add(FlowTable::Flows, &forward.0, &forward.1), None);
    assert!(joiner.add(FlowTable::Flows, &reply.0, &reply.1).is_some());
    assert_eq!(joiner.rest().count(), 0);
    for (key, record) in entries(40_000, 0, State::Established) {
        let [half] = joined(&[(FlowTable::Flows, key, record)])[..] else { panic!("one flow") };
        assert_eq!((half.backend, half.packets), (SocketAddrV4::new(BACKEND, 8080), record.packets));
    }
}

#[test]
fn what_is_left_in_unconfirmed_of_an_established_flow_is_not_told_twice() {
    let mut all = in_table(FlowTable::Unconfirmed, entries(40_000, 0, State::Answered));
    all.extend(in_table(FlowTable::Unconfirmed, entries(40_001, 0, State::New)));
    all.extend(in_table(FlowTable::Flows, entries(40_000, 0, State::Established)));
    let mut flows = joined(&all);
    flows.sort_by_key(|flow| flow.client);
    let states: Vec<_> = flows.iter().map(|flow| (flow.client.port(), flow.state.name())).collect();
    assert_eq!(states, [(40_000, "established"), (40_001, "new")]);
}

#[test]
fn what_is_left_in_unconfirmed_of_a_flow_that_is_over_is_not_told_at_all() {
    let mut closed = entries(40_000, 0, State::Closed);
    closed.iter_mut().for_each(|(_, record)| record.seen = NOW - 25_000);
    let mut left = entries(40_000, 0, State::Answered);
    left.iter_mut().for_each(|(_, record)| record.seen = NOW - 25_001);
    let all =
        |left, closed| [in_table(FlowTable::Unconfirmed, left), in_table(FlowTable::Flows, closed)].concat();
    assert_eq!(joined(&all(left, closed)), []);
    let next = entries(40_000, 0, State::Answered);
    let states: Vec<_> = joined(&all(next, closed)).iter().map(|flow| flow.state.name()).collect();
    assert_eq!(states, ["answered"], "the next flow from the same port");
}

#[test]
fn a_side_that_closes_or_resets_shows() {
    for (state, name) in [(State::Closing, "closing"), (State::Reset, "reset"), (State::Closed, "closed")] {
        for side in [0, 1] {
            let mut pair = entries(40_000, 0, State::Established);
            pair[side].1.state = state as u8;
            assert_eq!(joined(&in_table(FlowTable::Flows, pair))[0].state.name(), name);
        }
    }
}

#[test]
fn aged_entries_connections_straight_to_a_backend_and_other_clients_are_left_out() {
    let mut aged = entries(40_000, 0, State::Closed);
    aged.iter_mut().for_each(|(_, record)| record.seen = NOW - 30_000);
    assert_eq!(joined(&in_table(FlowTable::Flows, aged)), []);
    let mut straight = entries(40_000, 61_000, State::Established);
    straight.iter_mut().for_each(|(_, record)| record.service = FlowRecord::DIRECT);
    assert_eq!(joined(&in_table(FlowTable::Flows, straight)), []);
    let mut joiner = Joiner::new(NOW, Some(BACKEND));
    for (key, record) in entries(40_000, 0, State::Established) {
        assert_eq!(joiner.add(FlowTable::Flows, &key, &record), None);
    }
    assert_eq!(joiner.rest().count(), 0);
}
