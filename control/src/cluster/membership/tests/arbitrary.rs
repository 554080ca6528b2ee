use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    super::{Membership, Tuning},
    net::{Net, address, named, node, ring, settings},
};
use crate::cluster::{
    identity::{Identity, PublicKey},
    wire::{Envelope, Message, Seal, Sender},
};

fn seal() -> Seal {
    Seal::new("prod", ring('A'))
}

fn identity(name: u16, generation: u64, key: u8) -> Identity {
    Identity::new(named(&format!("n{name}")), address(9), generation, PublicKey([key; 32]))
}

fn hello(sender: Identity, wall: u64) -> Vec<u8> {
    let message = Message::Hello { nonce: 1, cookie: 0 };
    let envelope = Envelope { sender: Sender::Full(sender), uptime: 1, wall, message };
    seal().seal(&mut StdRng::seed_from_u64(1), &envelope).unwrap()
}

#[test]
fn thousands_of_names_behind_a_right_key_take_bounded_room() {
    let mut few = settings("prod", Some('A'));
    few.tuning = Tuning { max_members: 100, ..Tuning::default() };
    let own = node("a", 1, 1, 1).identity().clone();
    let mut net = Net::of(vec![Membership::new(own, few, [1; 32])]);
    for name in 0..5_000 {
        let at = net.at(0);
        let datagram = hello(identity(name, 1, 1), at.wall);
        net.act(0, |core, at| core.datagram(at, address(9).into(), &datagram));
        net.act(0, |core, _| core.take_outputs());
        assert!(net.hosts[0].core.members().len() <= 100);
        if name % 100 == 0 {
            net.run(100);
        }
    }
    assert!(net.member(0, "a").is_some());
}

fn words() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..300)
}

/// Gives a joined node a datagram of a plain text, and lets time pass.
fn give(net: &mut Net, plain: &[u8]) {
    if let Some(datagram) = seal().wrap(&mut StdRng::seed_from_u64(1), plain) {
        net.act(0, |core, at| core.datagram(at, address(2).into(), &datagram));
        net.step();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_plain_texts_behind_a_right_key_are_taken_or_refused(texts in proptest::collection::vec(words(), 1..20)) {
        let mut net = Net::joined();
        for text in texts {
            give(&mut net, &text);
            let member = net.hosts[1].core.identity().clone();
            for message in [Message::Swim(&text), Message::Payload(1, &text)] {
                let wall = net.at(0).wall;
                let envelope = Envelope { sender: Sender::Full(member.clone()), uptime: 9_000, wall, message };
                give(&mut net, &postcard::to_allocvec(&envelope).unwrap());
            }
            net.act(0, |core, at| core.answer(at, &text));
            net.act(0, |core, at| core.answered(at, address(2), Some(&text)));
        }
        net.run(500);
        prop_assert!(net.hosts[0].core.members().len() < 100);
    }

    #[test]
    fn changed_messages_of_members_behind_a_right_key_never_take_a_node_down(
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..30),
    ) {
        let mut net = Net::joined();
        net.run(1_000);
        for (place, change) in changes {
            let sent = &net.hosts[1].sent;
            let (_, datagram) = sent[usize::from(place) % sent.len()].clone();
            let mut plain = seal().open(&datagram).unwrap();
            let byte = usize::from(place) % plain.len();
            plain[byte] = change;
            give(&mut net, &plain);
            let own = net.hosts[0].core.identity();
            prop_assert!(own.name() == &named("a") && own.address() == address(1));
        }
        net.run(500);
        prop_assert!(net.hosts[0].core.members().len() < 100);
    }
}
