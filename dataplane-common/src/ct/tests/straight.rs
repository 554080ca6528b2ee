//! Connections straight to a backend, beside those of its services.

use super::*;

fn straight(flags: u8) -> Sent {
    segment(flags).with(|sent| sent.dst = (FIRST, 8080))
}

/// What a packet straight to a backend becomes.
fn direct(tables: &Memory, sent: Sent) -> Tuple {
    let bytes = sent.bytes();
    let Translation { rewrite, refusal } = super::direct(&bytes[..], &ip(&bytes), 0, tables);
    if refusal.is_none() {
        return rewrite;
    }
    begin(&bytes[..], &ip(&bytes), (0, false), (&Near, Towards::Addressed), tables).rewrite
}

#[test]
fn one_from_the_port_of_a_flow_of_a_service_gets_another_port() {
    let tables = tables();
    connected(&tables);
    assert!(direct(&tables, straight(ACK)).is_kept(), "a connection that is older than the flow");
    let to = direct(&tables, straight(SYN));
    assert!(u16::from_be(to.sport) >= 61_000 && to.dst == FIRST.to_be(), "{to:?}");
    let answered = back(&tables, answer(Ok(to), PROTO_TCP, SYN_ACK));
    assert_eq!(answered, Some(tuple((FIRST, 8080), (CLIENT, 40_000))));
    assert_eq!(direct(&tables, straight(ACK).with(|ack| ack.acknowledgement = 7_001)), to);
    assert_eq!(tables.balancer.flows.len(), 4);
    assert_eq!(direct(&tables, straight(ACK)), to);
    assert_eq!(forward(&tables, segment(ACK)), TO_FIRST);
}

#[test]
fn one_that_was_there_first_keeps_its_port_and_a_flow_of_a_service_gets_another() {
    let tables = tables();
    assert!(direct(&tables, straight(SYN)).is_kept());
    assert_eq!(back(&tables, answer(TO_FIRST, PROTO_TCP, SYN_ACK)), None, "its answer is its own");
    assert!(direct(&tables, straight(ACK).with(|ack| ack.acknowledgement = 7_001)).is_kept());
    assert_eq!(tables.balancer.flows.len(), 2);
    let fate = forward(&tables, segment(SYN)).expect("a backend");
    assert!(u16::from_be(fate.sport) >= 61_000, "{fate:?}");
    let answered = back(&tables, answer(Ok(fate), PROTO_TCP, SYN_ACK));
    assert_eq!(answered, Some(tuple((VIP, 80), (CLIENT, 40_000))));
    advance(&tables, 3600);
    assert!(direct(&tables, straight(ACK)).is_kept());
    assert_eq!(back(&tables, answer(TO_FIRST, PROTO_TCP, ACK)), None);
}

#[test]
fn datagrams_straight_to_a_backend_keep_their_port_beside_those_of_a_service() {
    let tables = tables();
    let straight = Sent { protocol: PROTO_UDP, ..straight(0) };
    assert!(direct(&tables, straight).is_kept());
    let fate = forward(&tables, datagram()).expect("a backend");
    assert_ne!(fate.sport, 40_000u16.to_be());
    assert_eq!(back(&tables, answer(TO_FIRST, PROTO_UDP, 0)), None);
    assert_eq!(back(&tables, answer(Ok(fate), PROTO_UDP, 0)), Some(tuple((VIP, 80), (CLIENT, 40_000))));
}
