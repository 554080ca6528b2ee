//! What is no whole packet between a client and a backend that know each other: shared sources, fragments, errors.

use super::*;
use crate::{
    abi::{Config, FragmentKey},
    icmp,
    wire::PROTO_ICMP,
};

/// What a packet to the VIP becomes where clients share a source.
fn from_far(tables: &Memory, sent: Sent) -> Result<Tuple, Refusal> {
    let bytes = sent.bytes();
    let Translation { rewrite, refusal } = whole_to_vip(tables, &bytes, &Far);
    refusal.map_or(Ok(rewrite), Err)
}

#[test]
fn flows_that_share_a_source_have_ports_of_the_range_and_answers_find_their_client() {
    let tables = tables();
    let range = Config::NAT_PORTS[0]..=Config::NAT_PORTS[1];
    let mut ports = std::collections::BTreeSet::new();
    for client in 0..50 {
        let sent = datagram().with(|sent| sent.src.0 = CLIENT + client);
        let to = from_far(&tables, sent).expect("a free port");
        assert_eq!((to.src, to.dst), (UPLINK.to_be(), FIRST.to_be()));
        assert!(range.contains(&u16::from_be(to.sport)));
        ports.insert(to.sport);
        let from = back(&tables, answer(Ok(to), PROTO_UDP, 0));
        assert_eq!(from, Some(tuple((VIP, 80), (CLIENT + client, 40_000))));
        assert_eq!(from_far(&tables, sent), Ok(to), "the same flow");
    }
    assert_eq!(ports.len(), 50);
}

#[test]
fn with_no_port_left_towards_a_backend_a_flow_is_refused() {
    let mut tables = tables();
    tables.config.nat_ports = [61_000, 61_000];
    assert!(from_far(&tables, datagram()).is_ok());
    let other = datagram().with(|sent| sent.src.0 = CLIENT + 1);
    assert_eq!(from_far(&tables, other), Err(Refusal::Collision));
    let tcp = segment(SYN).with(|sent| sent.src.0 = CLIENT + 1);
    assert!(from_far(&tables, tcp).is_ok(), "a port is taken for one protocol");
}

#[test]
fn with_no_port_left_towards_a_backend_a_flow_goes_to_another_of_its_service() {
    let mut tables = tables();
    tables.config.nat_ports = [61_000, 61_000];
    for (_, word) in tables.balancer.services.values_mut() {
        word.log2_bits = 2;
    }
    // One slot in ten is the second's.
    let ring = (0..crate::abi::RING_SLOTS).map(|slot| u16::from(slot % 10 == 0)).collect();
    tables.balancer.rings.insert(0, ring);
    let sent = |client| datagram().with(|sent| sent.src.0 = CLIENT + client);
    let met: Vec<_> = (0..2).map(|client| from_far(&tables, sent(client)).expect("a backend").dst).collect();
    assert!(met[0] != met[1], "{met:?}");
    assert_eq!(from_far(&tables, sent(2)), Err(Refusal::Collision));
    for client in 0..2 {
        assert_eq!(from_far(&tables, sent(client)).map(|to| to.dst), Ok(met[client as usize]), "it stays");
    }
}

#[test]
fn the_last_free_port_towards_a_backend_is_found() {
    let mut tables = tables();
    tables.config.nat_ports = [61_000, 61_099];
    let sent = |client| datagram().with(|sent| sent.src.0 = CLIENT + client);
    let ports: std::collections::BTreeSet<_> =
        (0..100).map(|client| from_far(&tables, sent(client)).expect("a free port").sport).collect();
    assert_eq!(ports.len(), 100);
    assert_eq!(from_far(&tables, sent(100)), Err(Refusal::Collision));
}

/// A fragment of a packet: more come after the first.
fn fragment(sent: Sent, offset: u8) -> Vec<u8> {
    let mut bytes = sent.bytes();
    bytes[4..6].copy_from_slice(&[7, 7]);
    bytes[6..8].copy_from_slice(&[if offset == 0 { 0x20 } else { 0 }, offset]);
    if offset > 0 {
        bytes.truncate(IPV4_LEN + 1);
    }
    bytes
}

#[test]
fn fragments_follow_the_first_of_their_packet_in_both_directions() {
    let tables = tables();
    assert_eq!(forward_bytes(&tables, &fragment(datagram(), 2)), Err(Refusal::FragmentEarly));
    let first = forward_bytes(&tables, &fragment(datagram(), 0));
    assert_eq!(first, TO_FIRST);
    let later = forward_bytes(&tables, &fragment(datagram(), 2));
    assert_eq!(later, Ok(Tuple::addresses(CLIENT.to_be(), FIRST.to_be())));
    let sent_back = answer(first, PROTO_UDP, 0);
    let back = |offset| {
        let bytes = fragment(sent_back, offset);
        from_backend(&bytes[..], &ip(&bytes), (0, false), &tables)
    };
    assert!(back(2).is_kept(), "it came before the first");
    assert_eq!(back(0), tuple((VIP, 80), (CLIENT, 40_000)));
    assert_eq!(back(2), Tuple::addresses(VIP.to_be(), CLIENT.to_be()));
    let other = FragmentKey { id: [7, 8], ..fragment::key(&ip(&fragment(datagram(), 2))) };
    assert!(tables.fragment(&other).is_kept(), "another packet's");
}

/// An ICMP error from `src` to `dst` about a packet.
fn error(src: u32, dst: u32, kind: u8, about: Sent) -> Vec<u8> {
    let mut bytes = vec![0; IPV4_LEN + 8];
    bytes[0] = 0x45;
    bytes[3] = 56;
    bytes[9] = PROTO_ICMP;
    bytes[12..16].copy_from_slice(&src.to_be_bytes());
    bytes[16..20].copy_from_slice(&dst.to_be_bytes());
    bytes[20] = kind;
    bytes.extend_from_slice(&about.bytes()[..28]);
    bytes
}

#[test]
fn an_error_about_a_packet_to_a_backend_reaches_its_client_as_about_one_to_the_vip() {
    let tables = tables();
    let to = from_far(&tables, datagram());
    let Sent { src: backend, dst: source, .. } = answer(to, PROTO_UDP, 0);
    let sent = Sent { src: source, dst: backend, ..datagram() };
    let told = |bytes: &[u8]| from_backend(bytes, &ip(bytes), (0, false), &tables);
    let about = error(FIRST, UPLINK, icmp::UNREACHABLE, sent);
    assert_eq!(told(&about), tuple((VIP, 80), (CLIENT, 40_000)));
    let about_another = error(FIRST, UPLINK, icmp::UNREACHABLE, sent.with(|sent| sent.src.1 ^= 1));
    assert!(told(&about_another).is_kept());
    assert!(told(&error(FIRST, UPLINK, icmp::ECHO_REQUEST, sent)).is_kept(), "not an error");
}

#[test]
fn an_error_of_the_client_about_an_answer_reaches_the_backend() {
    let tables = tables();
    let to = forward(&tables, datagram());
    back(&tables, answer(to, PROTO_UDP, 0)).expect("an answer");
    let seen = Sent { src: (VIP, 80), dst: (CLIENT, 40_000), ..datagram() };
    let about = error(CLIENT, VIP, icmp::UNREACHABLE, seen);
    assert_eq!(forward_bytes(&tables, &about), TO_FIRST);
    let unknown = error(CLIENT, VIP, icmp::UNREACHABLE, seen.with(|sent| sent.dst.1 ^= 1));
    assert_eq!(forward_bytes(&tables, &unknown), Err(Refusal::NoService));
}

#[test]
fn a_connection_from_a_shared_source_that_nobody_remembers_is_reset_instead_of_taken_for_another() {
    let tables = tables();
    assert_eq!(from_far(&tables, segment(ACK)), Err(Refusal::BackendGone));
    assert!(tables.balancer.unconfirmed.is_empty());
    assert!(from_far(&tables, segment(SYN)).is_ok());
    assert_eq!(
        forward(&tables, segment(ACK).with(|sent| sent.src.1 = 9)).map(|to| to.dst),
        Ok(FIRST.to_be())
    );
}
