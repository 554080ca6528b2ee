//! How sessions come to be, stay and end.

use std::{sync::Arc, time::Duration};

use netgauze_bgp_pkt::BgpMessage;

use super::{
    pair::{Pair, address, local, peer},
    router::{NOW, established, open},
    tables::{prefix, route},
};
use crate::bgp::{Action, Link, Session, State, Stop, message, shutdown_text};

const SECOND: Duration = Duration::from_secs(1);

fn connecting(session: &mut Session) -> Link {
    let actions = session.take_actions();
    let Some(Action::Connect(link)) = actions.last() else { panic!("{actions:?}") };
    *link
}

/// Code and subcode of the NOTIFICATION that was sent last.
fn notified(session: &mut Session) -> (u8, u8) {
    let sent = session.take_actions().into_iter().rev().find_map(|action| match action {
        Action::Send(_, bytes) if bytes[18] == 3 => Some((bytes[19], bytes[20])),
        _ => None,
    });
    sent.expect("a NOTIFICATION")
}

#[test]
fn two_speakers_that_connect_to_each_other_keep_one_connection() {
    for seed in 0..200 {
        let mut pair = Pair::of(local(65_001, 1), local(65_002, 2), seed);
        pair.run(10 * SECOND);
        assert!(pair.is_established(), "seed {seed}: {:?}", pair.states());
        let flaps = pair.sides.iter().map(|side| side.status().counts.flaps).max();
        pair.run(60 * SECOND);
        assert!(pair.is_established());
        assert_eq!(pair.sides.iter().map(|side| side.status().counts.flaps).max(), flaps, "seed {seed}");
    }
}

#[test]
fn a_session_lives_on_keepalives_and_ends_with_the_hold_time() {
    let mut pair = Pair::of(local(65_001, 1), local(65_002, 2), 1);
    pair.run(10 * SECOND);
    pair.run(600 * SECOND);
    assert!(pair.is_established());
    pair.lose_all();
    pair.run(10 * SECOND);
    let error = pair.sides[0].status().last_error.unwrap();
    assert_ne!(pair.states()[0], State::Established);
    assert!(error.contains("hold timer expired (4/0)") || error.contains("can't connect"), "{error}");
}

#[test]
fn a_lost_session_is_tried_at_once_and_then_ever_later() {
    let mut pair = Pair::of(local(65_001, 1), local(65_002, 2), 3);
    pair.run(10 * SECOND);
    pair.is_up = false;
    let lost = pair.now;
    pair.cut();
    assert_eq!(pair.sides[0].status().state, State::Connect, "at once");
    let mut waits = Vec::new();
    let mut session = pair.sides.into_iter().next().unwrap();
    let mut now = lost;
    for _ in 0..7 {
        let link = connecting(&mut session);
        session.closed(link, "refused", now);
        assert_eq!(session.status().state, State::Active);
        let next = session.deadline().unwrap();
        waits.push((next - now).as_secs_f64());
        now = next;
        session.tick(now);
    }
    for (wait, about) in waits.iter().zip([0.3, 0.6, 1.2, 2.4, 4.8, 5.0, 5.0]) {
        assert!((about * 0.8..=about * 1.2).contains(wait), "{waits:?}");
    }
}

#[test]
fn a_peer_that_does_not_answer_is_given_up_in_time() {
    let mut session = Session::new(local(65_001, 1), peer(65_002, 2), 1, false, NOW);
    let link = connecting(&mut session);
    session.tick(5 * SECOND);
    assert_eq!(session.take_actions(), [Action::Close(link)]);
    assert_eq!(session.status().last_error.unwrap(), "can't connect: no answer");
    // One that opens and says nothing.
    let later = session.deadline().unwrap();
    session.tick(later);
    let link = connecting(&mut session);
    session.opened(link, address(1), later);
    assert_eq!(session.status().state, State::OpenSent);
    session.tick(later + 30 * SECOND);
    assert_eq!(notified(&mut session), (4, 0));
}

#[test]
fn a_peer_of_another_as_or_with_our_identifier_is_refused() {
    let refuse = |asn: u32, opening: Vec<u8>| {
        let mut session = Session::new(local(65_001, 2), peer(asn, 2), 1, false, NOW);
        let link = connecting(&mut session);
        session.opened(link, address(1), NOW);
        session.received(link, &opening, NOW);
        notified(&mut session)
    };
    assert_eq!(refuse(65_002, open(65_003, 9, true)), (2, 2));
    assert_eq!(refuse(65_001, open(65_001, 9, true)), (2, 3));
    assert_eq!(refuse(65_002, open(65_002, 2, true)), (2, 6));
}

#[test]
fn what_is_out_of_place_ends_the_session_with_its_reason() {
    let (mut session, link) = established(65_001, 65_002, true);
    session.received(link, &open(65_002, 9, true), NOW);
    assert_eq!(notified(&mut session), (5, 3));
    let mut session = Session::new(local(65_001, 1), peer(65_002, 2), 1, false, NOW);
    let link = connecting(&mut session);
    session.opened(link, address(1), NOW);
    session.received(link, &message::encode(&BgpMessage::KeepAlive).unwrap(), NOW);
    assert_eq!(notified(&mut session), (5, 1));
}

#[test]
fn a_shutdown_tells_its_reason_and_withdraws_first() {
    let (mut session, link) = established(65_001, 65_002, true);
    session.want(Arc::new([(prefix(1), route(100))].into()), NOW);
    session.take_actions();
    session.stop(&Stop::Shutdown("maintenance".to_owned()), NOW);
    let actions = session.take_actions();
    let [Action::Send(_, withdrawal), Action::Send(_, cease), Action::Close(closed)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((*closed, withdrawal[18], cease[18]), (link, 2, 3));
    assert_eq!(shutdown_text(cease[19], cease[20], &cease[21..]).unwrap(), "maintenance");
    assert_eq!(session.deadline(), None);
    assert_eq!(session.accepted(address(1), NOW), None);
}

#[test]
fn a_peers_text_is_shown_without_what_could_harm_a_terminal() {
    assert_eq!(shutdown_text(6, 2, b"\x05a\x1b[1m").as_deref(), Some("a[1m"));
    assert_eq!(shutdown_text(6, 2, b"\x09a"), None, "longer than it is");
    assert_eq!(shutdown_text(6, 3, b"\x01a"), None);
    let long = "\u{e9}".repeat(200);
    let (mut session, _) = established(65_001, 65_002, true);
    session.stop(&Stop::Shutdown(long), NOW);
    assert_eq!(notified(&mut session), (6, 2));
}

#[test]
fn an_agent_that_leaves_says_nothing_to_a_peer_that_keeps_its_routes() {
    let mut pair = Pair::of(local(65_001, 1), local(65_002, 2), 1);
    pair.run(10 * SECOND);
    let now = pair.now;
    pair.sides[0].stop(&Stop::Leave, now);
    assert!(matches!(pair.sides[0].take_actions()[..], [Action::Close(_)]));
    // Without graceful restart it is a shutdown.
    let (mut session, _) = established(65_001, 65_002, true);
    session.stop(&Stop::Leave, NOW);
    assert_eq!(notified(&mut session), (6, 2));
    let (mut session, _) = established(65_001, 65_002, true);
    session.stop(&Stop::Removed, NOW);
    assert_eq!(notified(&mut session), (6, 3));
}

#[test]
fn a_peer_that_restarted_takes_the_place_of_its_former_connection() {
    let mut pair = Pair::of(local(65_001, 1), local(65_002, 2), 5);
    pair.run(10 * SECOND);
    let now = pair.now;
    pair.replace(1, Session::new(local(65_002, 2), peer(65_001, 1), 9, true, now));
    pair.run(SECOND);
    assert!(pair.is_established(), "{:?}", pair.states());
    assert_eq!(pair.sides[0].status().last_error.unwrap(), "the peer has restarted");
}

#[test]
fn an_uplink_without_carrier_ends_the_session_until_it_is_back() {
    let (mut session, link) = established(65_001, 65_002, true);
    session.set_carrier(false, NOW);
    assert_eq!(session.take_actions(), [Action::Close(link)]);
    assert_eq!((session.status().state, session.deadline()), (State::Idle, None));
    assert_eq!(session.accepted(address(1), NOW), None);
    session.set_carrier(true, SECOND);
    connecting(&mut session);
}

#[test]
fn without_a_hold_time_nothing_is_sent_or_expected() {
    let quiet = || crate::bgp::Local { hold_time: 0, ..local(65_001, 1) };
    let mut pair = Pair::of(quiet(), local(65_002, 2), 1);
    pair.run(10 * SECOND);
    assert!(pair.is_established());
    pair.run(3_600 * SECOND);
    assert!(pair.is_established());
    assert_eq!(pair.sides[0].deadline(), None);
}
