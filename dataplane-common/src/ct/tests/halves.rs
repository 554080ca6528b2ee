//! A flow is one thing: what either side says keeps both its entries, and ends them together.

use super::*;

/// A connected flow's segment from the client, and one from its backend, that carry on.
fn client(flags: u8) -> Sent {
    segment(flags).with(|sent| (sent.sequence, sent.acknowledgement) = (2, 7_001))
}

fn server(flags: u8) -> Sent {
    answer(TO_FIRST, PROTO_TCP, flags).with(|sent| sent.sequence = 7_001)
}

fn states(tables: &Memory) -> [Option<u8>; 2] {
    [segment_key(), reply_key()].map(|key| tables.balancer.flows.get(&key).map(|flow| flow.state.get()))
}

#[test]
fn a_backend_that_has_closed_may_reset_what_the_client_sends_much_later() {
    let tables = tables();
    connected(&tables);
    let closed = back(&tables, server(FIN_ACK));
    assert_eq!(closed, Some(tuple((VIP, 80), (CLIENT, 40_000))));
    advance(&tables, 45);
    assert_eq!(forward(&tables, client(ACK)), TO_FIRST);
    assert_eq!(back(&tables, server(RST)), closed, "from the VIP, not from the backend");
}

#[test]
fn a_connection_whose_client_has_closed_lives_until_its_backend_has_answered() {
    let tables = tables();
    connected(&tables);
    assert_eq!(forward(&tables, client(FIN_ACK)), TO_FIRST);
    advance(&tables, 3600);
    assert!(back(&tables, server(ACK)).is_some());
    assert_eq!(forward(&tables, client(ACK)), TO_FIRST);
    assert!(back(&tables, server(FIN_ACK)).is_some());
    assert_eq!(states(&tables), [Some(State::Closed as u8); 2]);
    advance(&tables, 21);
    assert_eq!(back(&tables, server(ACK)), None, "it is over");
}

#[test]
fn ends_that_nobody_expects_are_not_believed() {
    let tables = tables();
    connected(&tables);
    let forged = |flags, sequence| client(flags).with(|sent| sent.sequence = sequence);
    assert_eq!(forward(&tables, forged(RST, 900_000)), TO_FIRST);
    assert_eq!(forward(&tables, forged(FIN_ACK, 900_000_000)), TO_FIRST);
    let late = server(RST).with(|sent| sent.sequence = 1_000_000);
    assert!(back(&tables, late).is_some());
    assert_eq!(states(&tables), [Some(State::Established as u8); 2]);
    assert!(back(&tables, server(RST)).is_some());
    assert_eq!(states(&tables), [Some(State::Reset as u8); 2]);
}

#[test]
fn either_side_keeps_a_flow_of_datagrams() {
    let tables = tables();
    assert_eq!(forward(&tables, datagram()), TO_FIRST);
    let answered = back(&tables, answer(TO_FIRST, PROTO_UDP, 0));
    for _ in 0..10 {
        advance(&tables, 100);
        assert_eq!(forward(&tables, datagram()), TO_FIRST);
    }
    assert_eq!(back(&tables, answer(TO_FIRST, PROTO_UDP, 0)), answered, "its backend was silent for long");
    for _ in 0..10 {
        advance(&tables, 100);
        assert_eq!(back(&tables, answer(TO_FIRST, PROTO_UDP, 0)), answered);
    }
    assert_eq!(tables.balancer.unconfirmed.len(), 2, "nothing began anew");
}

#[test]
fn datagrams_that_nobody_answers_keep_their_backend() {
    let mut tables = tables();
    assert_eq!(forward(&tables, datagram()), TO_FIRST);
    lead_to(&mut tables, 1);
    for _ in 0..10 {
        advance(&tables, 20);
        assert_eq!(forward(&tables, datagram()), TO_FIRST);
    }
    advance(&tables, 31);
    assert_ne!(forward(&tables, datagram()), TO_FIRST);
}

#[test]
fn an_entry_that_is_lost_is_made_again_by_the_other_sides_next_packet() {
    for is_reply_lost in [true, false] {
        let tables = tables();
        connected(&tables);
        let (lost, packets) = if is_reply_lost { (reply_key(), 0) } else { (segment_key(), 0) };
        tables.balancer.flows.remove(&lost);
        advance(&tables, 1);
        if is_reply_lost {
            assert_eq!(forward(&tables, client(ACK)), TO_FIRST);
        } else {
            assert!(back(&tables, server(ACK)).is_some());
        }
        let made = tables.balancer.flows.get(&lost).expect("it is there again").record();
        assert_eq!((made.state, made.packets), (State::Established as u8, packets));
        assert_eq!(forward(&tables, client(ACK)), TO_FIRST);
        assert_eq!(back(&tables, server(ACK)), Some(tuple((VIP, 80), (CLIENT, 40_000))));
    }
}

#[test]
fn a_connection_whose_answers_have_become_another_flows_is_ended() {
    let tables = tables();
    connected(&tables);
    let mut reply = tables.balancer.flows.get(&reply_key()).expect("an entry").record();
    reply.dst = (CLIENT + 7).to_be();
    tables.balancer.flows.insert(reply_key(), &reply);
    advance(&tables, 1);
    assert_eq!(forward(&tables, client(ACK)), Err(Refusal::BackendGone));
}

#[test]
fn a_connection_whose_answers_a_new_flow_has_claimed_is_ended() {
    let tables = tables();
    connected(&tables);
    tables.balancer.flows.remove(&reply_key());
    tables.balancer.unconfirmed.remove(&reply_key());
    tables.balancer.unconfirmed.remove(&segment_key());
    // To another VIP of the backend, from the same port.
    let mut claim = FlowRecord { src: (VIP + 1).to_be(), ..new_reply(&tables) };
    claim.seen = tables.balancer.now.get();
    tables.balancer.unconfirmed.insert(reply_key(), &claim);
    advance(&tables, 1);
    assert_eq!(forward(&tables, client(ACK)), Err(Refusal::BackendGone));
    assert!(tables.balancer.flows.get(&reply_key()).is_none(), "the new flow's answers are its own");
}

/// The entry of a new flow's answers.
fn new_reply(tables: &Memory) -> FlowRecord {
    let other = self::tables();
    let _ = forward(&other, segment(SYN));
    other.balancer.now.set(tables.balancer.now.get());
    other.balancer.unconfirmed.get(&reply_key()).expect("an entry").record()
}

proptest! {
    /// Whatever the two sides say and however long they are silent between: their entries end together.
    #[test]
    fn the_two_entries_of_a_flow_live_and_die_together(
        steps in prop::collection::vec((any::<bool>(), prop::sample::select(vec![ACK, FIN_ACK, RST]), 0u64..60), 1..30),
    ) {
        let tables = tables();
        connected(&tables);
        for (is_client, flags, seconds) in steps {
            advance(&tables, seconds);
            if is_client {
                let _ = forward(&tables, client(flags));
            } else {
                let _ = back(&tables, server(flags));
            }
            let now = tables.balancer.now.get();
            let [there, back] = [segment_key(), reply_key()].map(|key| {
                let living = tables.balancer.flows.get(&key).filter(|flow| flow.lives(PROTO_TCP, now));
                living.map(|flow| flow.state.get() > State::Closing as u8)
            });
            prop_assert_eq!(there, back);
        }
    }
}
