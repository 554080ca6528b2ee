//! Whatever arrives: no panic, and no more memory than a message's.

use netgauze_bgp_pkt::{
    BgpMessage,
    nlri::{Ipv4Unicast, Ipv4UnicastAddress},
    update::BgpUpdateMessage,
};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    pair::{address, local, peer},
    router::{NOW, established, open},
};
use crate::bgp::{Action, Session, State, message::encode};

fn update() -> Vec<u8> {
    let networks = ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32"].map(|net| net.parse().unwrap());
    let nlri: Vec<_> =
        networks.map(|net| Ipv4UnicastAddress::new_no_path_id(Ipv4Unicast::from_net(net).unwrap())).into();
    encode(&BgpMessage::Update(BgpUpdateMessage::new([], [], nlri))).unwrap()
}

/// A header of any kind before any body, its length right or wrong.
fn framed() -> impl Strategy<Value = Vec<u8>> {
    (0..8_u8, vec(any::<u8>(), 0..200), prop_oneof![4 => Just(0_u16), 1 => 0..5_000_u16]).prop_map(
        |(kind, body, off)| {
            let length = u16::try_from(19 + body.len()).unwrap() + off;
            let mut message = vec![0xff; 16];
            message.extend(length.to_be_bytes());
            message.push(kind);
            message.extend(body);
            message
        },
    )
}

/// Messages that are right but for a byte.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let messages = prop_oneof![Just(open(65_002, 9, true)), Just(update())];
    (messages, any::<Index>(), any::<u8>()).prop_map(|(mut message, place, byte)| {
        let place = place.index(message.len());
        message[place] = byte;
        message
    })
}

fn arrives() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..100), framed(), damaged()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_a_peer_sends_is_survived(chunks in vec(arrives(), 1..6), is_open: bool) {
        let (mut session, link) = if is_open {
            established(65_001, 65_002, true)
        } else {
            let mut session = Session::new(local(65_001, 1), peer(65_002, 2), 1, false, NOW);
            let Some(Action::Connect(link)) = session.take_actions().pop() else { panic!("no connection") };
            session.opened(link, address(1), NOW);
            (session, link)
        };
        for chunk in chunks {
            session.received(link, &chunk, NOW);
        }
        let has_ended = session.take_actions().contains(&Action::Close(link));
        prop_assert_eq!(has_ended, session.status().state < State::OpenSent);
        prop_assert!(session.links_input() <= 4_096);
    }

    #[test]
    fn a_stream_may_arrive_in_any_pieces(cuts in vec(1..40_usize, 1..20)) {
        let (mut session, link) = established(65_001, 65_002, true);
        let stream: Vec<u8> = std::iter::repeat_n(update(), 5).flatten().collect();
        let mut rest = &stream[..];
        for cut in cuts.into_iter().cycle() {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            session.received(link, now, NOW);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(session.status().counts.received, 15);
        prop_assert_eq!(session.status().state, State::Established);
    }
}
