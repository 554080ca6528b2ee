//! Flows of services, packet by packet, in tables held in memory.

use proptest::prelude::*;

mod beyond;
mod claims;
mod halves;
mod straight;

use super::*;
use crate::{
    abi::{FlowRecord, ServiceWord, State, VipKey},
    memory::Memory,
    wire::{IPV4_LEN, PROTO_TCP, PROTO_UDP},
};
use network_types::ip::Ipv4Hdr;

const CLIENT: u32 = 0xfa00_1c02; // 250.0.28.2
const VIP: u32 = 0x0a60_000a; // 10.96.0.10
const UPLINK: u32 = 0xac1e_001c; // 172.30.0.28
const FIRST: u32 = 0xfa00_1b02; // 250.0.27.2
const SECOND: u32 = 0xfa00_1d02; // 250.0.29.2
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;
const SYN_ACK: u8 = 0x12;

/// A packet as a test changes it: addresses and ports in host order.
#[derive(Clone, Copy)]
struct Sent {
    src: (u32, u16),
    dst: (u32, u16),
    protocol: u8,
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; IPV4_LEN + 20];
        bytes[0] = 0x45;
        bytes[3] = 40;
        bytes[9] = self.protocol;
        bytes[12..16].copy_from_slice(&self.src.0.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.dst.0.to_be_bytes());
        bytes[20..22].copy_from_slice(&self.src.1.to_be_bytes());
        bytes[22..24].copy_from_slice(&self.dst.1.to_be_bytes());
        if self.protocol == PROTO_TCP {
            bytes[24..28].copy_from_slice(&self.sequence.to_be_bytes());
            bytes[28..32].copy_from_slice(&self.acknowledgement.to_be_bytes());
            bytes[33] = self.flags;
        }
        bytes
    }

    fn with(self, change: impl FnOnce(&mut Self)) -> Self {
        let mut sent = self;
        change(&mut sent);
        sent
    }
}

/// Everybody keeps the own source, but a backend that is its own client.
struct Near;

impl Place for Near {
    fn source(&self, key: &FlowKey, backend: &BackendRecord) -> Source {
        let address = if key.src == backend.address { key.dst } else { key.src };
        Source { address, flags: 0 }
    }
}

/// Clients come from one address, as those outside the overlays do.
struct Far;

impl Place for Far {
    fn source(&self, _: &FlowKey, _: &BackendRecord) -> Source {
        Source { address: UPLINK.to_be(), flags: FlowRecord::SHARED_SOURCE }
    }
}

fn ip(bytes: &[u8]) -> Ipv4 {
    let header: Ipv4Hdr = bytes.read(0).expect("a header");
    Ipv4::new(header)
}

/// What a packet to the VIP becomes.
fn forward(tables: &Memory, sent: Sent) -> Result<Tuple, Refusal> {
    forward_bytes(tables, &sent.bytes())
}

fn forward_bytes(tables: &Memory, bytes: &[u8]) -> Result<Tuple, Refusal> {
    let Translation { rewrite, refusal } = whole_to_vip(tables, bytes, &Near);
    assert_eq!(rewrite.is_kept(), refusal.is_some());
    refusal.map_or(Ok(rewrite), Err)
}

/// What the stages make of a packet to the VIP, one after the other.
fn whole_to_vip(tables: &Memory, bytes: &[u8], place: &impl Place) -> Translation {
    let found = to_vip(bytes, &ip(bytes), (0, false), tables);
    if found.refusal != Some(Refusal::Unknown) {
        return found;
    }
    let begun = begin(bytes, &ip(bytes), (0, false), (place, Towards::Service), tables);
    if begun.refusal != Some(Refusal::Collision) {
        return begun;
    }
    begin(bytes, &ip(bytes), (0, false), (place, Towards::Other), tables)
}

/// What a packet from a backend becomes.
fn back(tables: &Memory, sent: Sent) -> Option<Tuple> {
    let bytes = sent.bytes();
    Some(from_backend(&bytes[..], &ip(&bytes), (0, false), tables)).filter(|tuple| !tuple.is_kept())
}

fn tuple(src: (u32, u16), dst: (u32, u16)) -> Tuple {
    Tuple { src: src.0.to_be(), dst: dst.0.to_be(), sport: src.1.to_be(), dport: dst.1.to_be() }
}

fn segment(flags: u8) -> Sent {
    Sent {
        src: (CLIENT, 40_000),
        dst: (VIP, 80),
        protocol: PROTO_TCP,
        flags,
        sequence: 1,
        acknowledgement: 0,
    }
}

fn datagram() -> Sent {
    Sent { protocol: PROTO_UDP, ..segment(0) }
}

/// The backend's answer to what a packet became.
fn answer(fate: Result<Tuple, Refusal>, protocol: u8, flags: u8) -> Sent {
    let to = fate.expect("it goes to a backend");
    Sent {
        src: (u32::from_be(to.dst), u16::from_be(to.dport)),
        dst: (u32::from_be(to.src), u16::from_be(to.sport)),
        protocol,
        flags,
        sequence: 7_000,
        acknowledgement: 2,
    }
}

fn backend(address: u32) -> BackendRecord {
    BackendRecord { address: address.to_be(), port: 8080u16.to_be(), flags: 0, service: 0, generation: 1 }
}

/// `VIP:80` over TCP and UDP with one backend, and a second one in row 1 of no service.
fn tables() -> Memory {
    let mut tables = Memory::new(&[], &[]);
    let word = ServiceWord { base: 0, ring: 0, log2_bits: 0, flags: 0 };
    for protocol in [PROTO_TCP, PROTO_UDP] {
        tables.balancer.services.insert((VIP.to_be(), 80u16.to_be(), protocol), (0, word));
    }
    tables.balancer.backends = vec![backend(FIRST), backend(SECOND)];
    tables.balancer.now.set(1_000);
    tables
}

fn lead_to(tables: &mut Memory, base: u32) {
    for (_, word) in tables.balancer.services.values_mut() {
        word.base = base;
    }
}

fn advance(tables: &Memory, seconds: u64) {
    let units = (seconds * 1_000_000_000) >> crate::abi::SEEN_SHIFT;
    tables.balancer.now.set(tables.balancer.now.get() + units as u32);
}

/// A connection whose handshake is complete.
fn connected(tables: &Memory) {
    let fate = forward(tables, segment(SYN));
    back(tables, answer(fate, PROTO_TCP, SYN_ACK)).expect("an answer of the flow");
    let _ = forward(tables, segment(ACK).with(|ack| ack.acknowledgement = 7_001));
    assert_eq!(tables.balancer.flows.len(), 2);
}

const TO_FIRST: Result<Tuple, Refusal> =
    Ok(Tuple { src: CLIENT.to_be(), dst: FIRST.to_be(), sport: 40_000u16.to_be(), dport: 8080u16.to_be() });

#[test]
fn a_packet_keeps_to_its_flow_though_another_processor_read_the_clock_later() {
    let mut tables = tables();
    connected(&tables);
    lead_to(&mut tables, 1);
    tables.balancer.now.set(tables.balancer.now.get() - 1);
    assert_eq!(forward(&tables, segment(ACK)), TO_FIRST);
    assert!(back(&tables, answer(TO_FIRST, PROTO_TCP, ACK)).is_some());
}

#[test]
fn a_connection_goes_to_a_backend_and_its_answers_come_from_the_vip() {
    let tables = tables();
    let fate = forward(&tables, segment(SYN));
    assert_eq!(fate, TO_FIRST);
    let answered = back(&tables, answer(fate, PROTO_TCP, SYN_ACK));
    assert_eq!(answered, Some(tuple((VIP, 80), (CLIENT, 40_000))));
    assert!(tables.balancer.flows.is_empty(), "the client has not acknowledged");
    let ack = segment(ACK).with(|ack| ack.acknowledgement = 7_001);
    assert_eq!(forward(&tables, ack), fate);
    assert_eq!(tables.balancer.flows.len(), 2);
}

#[test]
fn an_acknowledgement_of_what_the_backend_never_said_confirms_nothing() {
    for number in [0, 6_999, 7_000, 7_001 + 16 * 1024] {
        let tables = tables();
        let fate = forward(&tables, segment(SYN));
        let forged = segment(ACK).with(|ack| ack.acknowledgement = number);
        let _ = forward(&tables, forged);
        assert!(tables.balancer.flows.is_empty(), "before the answer");
        back(&tables, answer(fate, PROTO_TCP, SYN_ACK));
        let _ = forward(&tables, forged);
        assert!(tables.balancer.flows.is_empty(), "{number}");
    }
}

#[test]
fn datagrams_are_confirmed_by_the_backends_answer() {
    let tables = tables();
    let fate = forward(&tables, datagram());
    assert_eq!(fate, TO_FIRST);
    assert!(tables.balancer.datagrams.is_empty());
    assert_eq!(back(&tables, answer(fate, PROTO_UDP, 0)), Some(tuple((VIP, 80), (CLIENT, 40_000))));
    assert_eq!(tables.balancer.datagrams.len(), 2);
    assert!(tables.balancer.flows.is_empty(), "forged datagrams to who answers evict no connection");
}

#[test]
fn every_datagram_of_a_flow_counts_once() {
    let tables = tables();
    for _ in 0..3 {
        let fate = forward(&tables, datagram());
        assert!(back(&tables, answer(fate, PROTO_UDP, 0)).is_some());
    }
    let sent = answer(TO_FIRST, PROTO_UDP, 0).bytes();
    let reply_key = Segment::read(&sent[..], &ip(&sent), 0).expect("a datagram").key(&ip(&sent));
    for key in [FlowKey { protocol: PROTO_UDP, ..segment_key() }, reply_key] {
        let entry = tables.balancer.datagrams.get(&key).expect("an entry").record();
        assert_eq!((entry.packets, entry.bytes), (3, 120));
    }
}

#[test]
fn a_flow_keeps_its_backend_when_the_set_changes() {
    let mut tables = tables();
    connected(&tables);
    lead_to(&mut tables, 1);
    assert_eq!(forward(&tables, segment(ACK)), TO_FIRST);
    let other = forward(&tables, segment(SYN).with(|syn| syn.src.1 = 40_001)).expect("a backend");
    assert_eq!(other.dst, SECOND.to_be());
}

#[test]
fn a_connection_whose_backend_is_gone_is_lost_and_its_next_one_goes_elsewhere() {
    let mut tables = tables();
    connected(&tables);
    tables.balancer.backends[0].flags = BackendRecord::GONE;
    assert_eq!(forward(&tables, segment(ACK)), Err(Refusal::BackendGone));
    lead_to(&mut tables, 1);
    assert_eq!(forward(&tables, segment(ACK)), Err(Refusal::BackendGone));
    let fate = forward(&tables, segment(SYN));
    assert!(matches!(fate, Ok(to) if to.dst == SECOND.to_be()), "{fate:?}");
    assert_eq!(forward(&tables, segment(ACK)), fate);
}

#[test]
fn a_row_that_another_backend_was_given_is_not_the_flows_backend() {
    let mut tables = tables();
    connected(&tables);
    tables.balancer.backends[0].generation += 1;
    assert_eq!(forward(&tables, segment(ACK)), Err(Refusal::BackendGone));
}

#[test]
fn datagrams_move_when_their_backend_is_gone() {
    let mut tables = tables();
    let fate = forward(&tables, datagram());
    back(&tables, answer(fate, PROTO_UDP, 0));
    tables.balancer.backends[0].flags = BackendRecord::GONE;
    lead_to(&mut tables, 1);
    let fate = forward(&tables, datagram());
    assert!(matches!(fate, Ok(to) if to.dst == SECOND.to_be()), "{fate:?}");
    assert_eq!(forward(&tables, datagram()), fate);
}

#[test]
fn datagrams_move_when_their_backends_endpoint_has_vanished_and_connections_stay() {
    let mut tables = tables();
    connected(&tables);
    let fate = forward(&tables, datagram());
    back(&tables, answer(fate, PROTO_UDP, 0));
    let unconfirmed = datagram().with(|datagram| datagram.src.1 = 40_001);
    let _ = forward(&tables, unconfirmed);
    tables.balancer.backends[0].flags = BackendRecord::ABSENT;
    lead_to(&mut tables, 1);
    assert_eq!(forward(&tables, segment(ACK)), TO_FIRST);
    for datagram in [datagram(), unconfirmed] {
        let fate = forward(&tables, datagram);
        assert!(matches!(fate, Ok(to) if to.dst == SECOND.to_be()), "{fate:?}");
        assert_eq!(forward(&tables, datagram), fate);
    }
}

/// The first backend has left rotation, and new flows lead to the second.
fn leave_the_first(tables: &mut Memory) {
    tables.balancer.backends[0].flags = BackendRecord::OUT;
    lead_to(tables, 1);
}

#[test]
fn a_connection_that_is_not_answered_chooses_again_once_its_backend_has_left_rotation() {
    let mut tables = tables();
    assert_eq!(forward(&tables, segment(SYN)), TO_FIRST);
    assert_eq!(forward(&tables, segment(SYN)), TO_FIRST, "it is in rotation");
    leave_the_first(&mut tables);
    let fate = opened_towards_the_second(&tables);
    assert_eq!(forward(&tables, segment(ACK)), fate);
}

#[test]
fn so_does_one_that_its_client_has_begun_anew_in_the_entries_of_a_former() {
    let mut tables = tables();
    connected(&tables);
    let _ = forward(&tables, segment(FIN_ACK));
    assert_eq!(forward(&tables, segment(SYN)), TO_FIRST);
    leave_the_first(&mut tables);
    let fate = opened_towards_the_second(&tables);
    assert_eq!(forward(&tables, segment(ACK)), fate);
}

#[test]
fn a_port_used_again_is_not_led_by_what_a_forgotten_connection_has_left() {
    let mut tables = tables();
    connected(&tables);
    [segment_key(), reply_key()].iter().for_each(|key| tables.balancer.flows.remove(key));
    leave_the_first(&mut tables);
    let fate = opened_towards_the_second(&tables);
    assert_eq!(forward(&tables, segment(ACK)), fate);
}

#[test]
fn connections_and_datagrams_stay_with_a_backend_that_has_left_rotation() {
    let mut tables = tables();
    connected(&tables);
    let other = segment(SYN).with(|syn| syn.src.1 = 40_001);
    let fate = forward(&tables, other);
    back(&tables, answer(fate, PROTO_TCP, SYN_ACK)).expect("an answer of the flow");
    let _ = forward(&tables, datagram());
    leave_the_first(&mut tables);
    assert_eq!(forward(&tables, segment(ACK)), TO_FIRST, "a connection");
    let acknowledged = other.with(|ack| (ack.flags, ack.acknowledgement) = (ACK, 7_001));
    assert_eq!(forward(&tables, acknowledged), fate, "one that its backend has answered");
    assert!(matches!(forward(&tables, datagram()), Ok(to) if to.dst == FIRST.to_be()), "datagrams");
}

/// A connection whose handshake, with the second backend, is complete.
fn opened_towards_the_second(tables: &Memory) -> Result<Tuple, Refusal> {
    let fate = forward(tables, segment(SYN));
    assert!(matches!(fate, Ok(to) if to.dst == SECOND.to_be()), "{fate:?}");
    back(tables, answer(fate, PROTO_TCP, SYN_ACK)).expect("an answer of the flow");
    let _ = forward(tables, segment(ACK).with(|ack| ack.acknowledgement = 7_001));
    fate
}

#[test]
fn a_port_used_again_right_after_the_close_is_a_new_connection() {
    let mut tables = tables();
    connected(&tables);
    let _ = forward(&tables, segment(FIN_ACK));
    lead_to(&mut tables, 1);
    let fate = opened_towards_the_second(&tables);
    advance(&tables, 3600);
    assert_eq!(forward(&tables, segment(ACK)), fate, "established, not closing");
}

#[test]
fn a_port_used_again_towards_the_same_backend_takes_the_former_entries() {
    let tables = tables();
    connected(&tables);
    let _ = forward(&tables, segment(FIN_ACK));
    let entries = tables.balancer.flows.clone();
    let unconfirmed = tables.balancer.unconfirmed.len();
    let entry = |key: &FlowKey| tables.balancer.flows.get(key).expect("it stays").record();
    assert_eq!(forward(&tables, segment(SYN)), TO_FIRST);
    assert_eq!(forward(&tables, segment(SYN)), TO_FIRST, "once more");
    let reopened = entry(&segment_key());
    assert_eq!((reopened.state, reopened.packets), (State::New as u8, 2));
    let early = segment(ACK).with(|ack| ack.acknowledgement = 7_001);
    assert_eq!(forward(&tables, early), TO_FIRST);
    assert_eq!(entry(&segment_key()).state, State::New as u8, "its backend has not answered");
    let late = answer(TO_FIRST, PROTO_TCP, FIN_ACK).with(|late| late.sequence = 5_000_000);
    back(&tables, late).expect("an answer of the former life");
    back(&tables, answer(TO_FIRST, PROTO_TCP, SYN_ACK)).expect("an answer of the flow");
    let _ = forward(&tables, segment(ACK).with(|ack| ack.acknowledgement = 6_999));
    assert_eq!(entry(&segment_key()).state, State::Answered as u8, "not what the backend said");
    let _ = forward(&tables, segment(ACK).with(|ack| ack.acknowledgement = 7_001));
    assert_eq!(entry(&segment_key()).state, State::Established as u8);
    assert_eq!(
        (tables.balancer.flows.len(), tables.balancer.unconfirmed.len()),
        (entries.len(), unconfirmed)
    );
    advance(&tables, 3600);
    assert_eq!(forward(&tables, segment(ACK)), TO_FIRST);
    back(&tables, answer(TO_FIRST, PROTO_TCP, ACK)).expect("an answer of the flow");
}

#[test]
fn a_reopened_connection_leaves_a_key_to_the_flow_that_has_taken_it() {
    let mut tables = tables();
    connected(&tables);
    let _ = forward(&tables, segment(FIN_ACK));
    // The answers ceased long ago, and a flow of the same client to another VIP of the backend has their key now.
    const OTHER: u32 = VIP + 1;
    let answers = answer(TO_FIRST, PROTO_TCP, ACK).bytes();
    let key = Segment::read(&answers[..], &ip(&answers), 0).expect("a segment").key(&ip(&answers));
    let mut reply = tables.balancer.flows.get(&key).expect("an entry").record();
    reply.src = OTHER.to_be();
    tables.balancer.flows.insert(key, &reply);
    tables.config.nat_ports = [61_000, 61_000];
    let fate = forward(&tables, segment(SYN));
    assert_eq!(fate, Ok(tuple((CLIENT, 61_000), (FIRST, 8080))));
    assert_eq!(back(&tables, answer(TO_FIRST, PROTO_TCP, ACK)), Some(tuple((OTHER, 80), (CLIENT, 40_000))));
    assert_eq!(back(&tables, answer(fate, PROTO_TCP, SYN_ACK)), Some(tuple((VIP, 80), (CLIENT, 40_000))));
}

#[test]
fn a_reopened_connection_that_is_not_answered_ends_as_a_new_one_does() {
    let mut tables = tables();
    connected(&tables);
    let _ = forward(&tables, segment(FIN_ACK));
    assert_eq!(forward(&tables, segment(SYN)), TO_FIRST);
    advance(&tables, 20);
    assert_eq!(forward(&tables, segment(SYN)), TO_FIRST);
    advance(&tables, 11);
    lead_to(&mut tables, 1);
    let fate = opened_towards_the_second(&tables);
    advance(&tables, 3600);
    assert_eq!(forward(&tables, segment(ACK)), fate);
}

#[test]
fn a_forged_reset_ends_nothing_that_goes_on() {
    let tables = tables();
    connected(&tables);
    let _ = forward(&tables, segment(RST));
    assert_eq!(forward(&tables, segment(ACK)), TO_FIRST);
    advance(&tables, 3600);
    assert_eq!(forward(&tables, segment(ACK)), TO_FIRST);
}

#[test]
fn entries_end_with_their_idle_time() {
    let mut tables = tables();
    let _ = forward(&tables, segment(SYN));
    advance(&tables, 31);
    lead_to(&mut tables, 1);
    let fate = forward(&tables, segment(SYN));
    assert!(matches!(fate, Ok(to) if to.dst == SECOND.to_be()), "{fate:?}");
    let tables = self::tables();
    connected(&tables);
    let _ = forward(&tables, segment(FIN_ACK));
    advance(&tables, 21);
    tables.balancer.flows.remove(&segment_key());
    assert_eq!(forward(&tables, segment(ACK)), TO_FIRST, "an unknown segment goes by the ring");
}

/// The entry of the backend's packets.
fn reply_key() -> FlowKey {
    let bytes = answer(TO_FIRST, PROTO_TCP, ACK).bytes();
    Segment::read(&bytes[..], &ip(&bytes), 0).expect("a segment").key(&ip(&bytes))
}

fn segment_key() -> FlowKey {
    let bytes = segment(ACK).bytes();
    Segment::read(&bytes[..], &ip(&bytes), 0).expect("a segment").key(&ip(&bytes))
}

#[test]
fn an_unknown_connection_is_recorded_once_its_backend_answers() {
    let tables = tables();
    let fate = forward(&tables, segment(ACK).with(|ack| ack.acknowledgement = 7_000));
    assert_eq!(fate, TO_FIRST);
    back(&tables, answer(fate, PROTO_TCP, RST)).expect("a reset from the VIP");
    let _ = forward(&tables, segment(ACK).with(|ack| ack.acknowledgement = 7_001));
    assert!(tables.balancer.flows.is_empty(), "a reset is no answer");
    back(&tables, answer(fate, PROTO_TCP, ACK)).expect("an answer from the VIP");
    let _ = forward(&tables, segment(ACK).with(|ack| ack.acknowledgement = 7_100));
    assert_eq!(tables.balancer.flows.len(), 2);
}

#[test]
fn one_port_to_two_vips_that_share_a_backend_gets_another_port() {
    let mut tables = tables();
    let other = 0x0a60_000b;
    let word = ServiceWord { base: 0, ring: 0, log2_bits: 0, flags: 0 };
    tables.balancer.services.insert((u32::to_be(other), 80u16.to_be(), PROTO_TCP), (1, word));
    connected(&tables);
    let second = |flags| segment(flags).with(|sent| sent.dst.0 = other);
    let fate = forward(&tables, second(SYN));
    let to = fate.expect("it goes to a backend");
    assert!(u16::from_be(to.sport) >= 61_000, "{to:?}");
    let answered = back(&tables, answer(fate, PROTO_TCP, SYN_ACK));
    assert_eq!(answered, Some(tuple((other, 80), (CLIENT, 40_000))));
    let _ = forward(&tables, second(ACK).with(|ack| ack.acknowledgement = 7_001));
    assert_eq!(tables.balancer.flows.len(), 4);
    assert_eq!(forward(&tables, second(ACK)), fate);
    assert_eq!(forward(&tables, segment(ACK)), TO_FIRST);
}

#[test]
fn a_backend_that_calls_its_own_vip_meets_the_vip() {
    let tables = tables();
    let own = |flags| segment(flags).with(|sent| sent.src.0 = FIRST);
    let fate = forward(&tables, own(SYN));
    assert_eq!(fate, Ok(tuple((VIP, 40_000), (FIRST, 8080))));
    // The answer is addressed to the VIP.
    let answered = forward(&tables, answer(fate, PROTO_TCP, SYN_ACK));
    assert_eq!(answered, Ok(tuple((VIP, 80), (FIRST, 40_000))));
    let _ = forward(&tables, own(ACK).with(|ack| ack.acknowledgement = 7_001));
    assert_eq!(tables.balancer.flows.len(), 2);
    assert_eq!(forward(&tables, answer(fate, PROTO_TCP, ACK)), answered);
}

#[test]
fn a_vip_without_service_backend_or_ports_says_which() {
    let mut tables = tables();
    assert_eq!(forward(&tables, segment(SYN).with(|syn| syn.dst.1 = 81)), Err(Refusal::NoService));
    assert_eq!(forward(&tables, segment(SYN).with(|syn| syn.protocol = 1)), Err(Refusal::NoService));
    for (_, word) in tables.balancer.services.values_mut() {
        word.flags = ServiceWord::EMPTY;
    }
    assert_eq!(forward(&tables, segment(SYN)), Err(Refusal::NoBackend));
    let mut bytes = segment(SYN).bytes();
    bytes[7] = 1;
    assert_eq!(forward_bytes(&tables, &bytes), Err(Refusal::FragmentEarly));
}

#[test]
fn a_service_of_any_port_keeps_the_clients_and_gives_way_to_an_exact_one() {
    let mut tables = tables();
    let word = ServiceWord { base: 1, ring: 0, log2_bits: 0, flags: 0 };
    tables.balancer.services.insert((VIP.to_be(), 0, PROTO_TCP), (1, word));
    tables.balancer.backends[1].port = 0;
    assert_eq!(forward(&tables, segment(SYN)), TO_FIRST);
    let fate = forward(&tables, segment(SYN).with(|syn| syn.dst.1 = 5432));
    assert_eq!(fate, Ok(tuple((CLIENT, 40_000), (SECOND, 5432))));
}

proptest! {
    #[test]
    fn answers_undo_what_was_done_to_the_request(port in 1u16.., client: u32, udp: bool) {
        prop_assume!(crate::icmp::names_a_host(client));
        let tables = tables();
        let protocol = if udp { PROTO_UDP } else { PROTO_TCP };
        let sent = segment(SYN).with(|sent| (sent.src, sent.protocol) = ((client, port), protocol));
        let fate = forward(&tables, sent);
        let reply = answer(fate, protocol, SYN_ACK);
        let undone = if reply.dst.0 == VIP { forward(&tables, reply) } else {
            Ok(back(&tables, reply).expect("a flow"))
        };
        prop_assert_eq!(undone, Ok(tuple((VIP, 80), (client, port))));
    }

    #[test]
    fn a_flood_of_any_segments_to_a_vip_confirms_no_flow(
        segments in prop::collection::vec((any::<u32>(), any::<u16>(), any::<u8>(), any::<u32>()), 1..100),
    ) {
        let tables = tables();
        for (client, port, flags, acknowledgement) in segments {
            let forged = segment(flags).with(|sent| {
                (sent.src, sent.acknowledgement) = ((client, port), acknowledgement);
            });
            let _ = forward(&tables, forged);
        }
        prop_assert!(tables.balancer.flows.is_empty());
    }
}
