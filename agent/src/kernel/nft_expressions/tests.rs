use std::{collections::HashMap, io, net::IpAddr, rc::Rc};

use control::{
    filter::{Packet, Packets, Rule, Set, Table, translated},
    service::Vip,
};

use super::{rule, set};

/// Messages about a table, as they were taken from a kernel.
struct Dumped(HashMap<(&'static str, &'static str), Vec<Vec<u8>>>);

impl Dumped {
    fn read(text: &'static str) -> Self {
        let mut messages: HashMap<_, Vec<_>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let [kind, name, hex] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let byte = |place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap();
            messages.entry((kind, name)).or_default().push((0..hex.len()).step_by(2).map(byte).collect());
        }
        Self(messages)
    }

    fn of(&self, kind: &str, name: &str) -> impl Iterator<Item = &[u8]> {
        let found = self.0.iter().find(|(key, _)| **key == (kind, name));
        found.into_iter().flat_map(|(_, messages)| messages).map(Vec::as_slice)
    }
}

impl Table for Dumped {
    fn chain(&mut self, name: &str) -> io::Result<Rc<[Rule]>> {
        Ok(self.of("rule", name).filter_map(rule).collect())
    }

    fn set(&mut self, name: &str) -> io::Result<Rc<Set>> {
        Ok(Rc::new(set(self.of("set", name))))
    }
}

/// The chain that translates a VIP, or nothing.
fn translator(text: &'static str, base: &str, vip: &str) -> String {
    let Vip { address, protocol, port } = vip.parse().unwrap();
    let IpAddr::V4(address) = address else { panic!("{address} is of IPv6") };
    let address = (address.to_bits(), address.to_bits());
    let packets = Packets::new(vec![Packet::to(address, protocol.number(), port)]);
    let found = translated(&packets, &mut Dumped::read(text), base).unwrap();
    found.first().map_or_else(String::new, |(_, chain)| chain.to_string())
}

#[track_caller]
fn assert_translated(text: &'static str, base: &str, expected: &[(&str, &str)]) {
    for (vip, chain) in expected {
        assert_eq!(translator(text, base, vip), *chain, "{vip}");
    }
}

#[test]
fn rules_of_nftables_translate_exactly_what_they_name() {
    const NONE: &str = "";
    assert_translated(
        include_str!("fixtures/nftables.txt"),
        "out",
        &[
            ("10.96.0.10:80/tcp", "service-web"),
            ("10.96.0.10:80/udp", NONE),
            ("10.96.0.10:81/tcp", NONE),
            ("10.96.0.10:0/tcp", "service-web"),
            ("10.96.0.11:53/udp", NONE),
            ("10.97.0.200:9/tcp", "service-web"),
            // Endpoints of that service are TCP's alone.
            ("10.97.0.200:9/udp", NONE),
            ("10.98.0.1:9/tcp", "service-web"),
            ("10.98.0.5:9/tcp", "service-web"),
            ("10.98.0.6:9/tcp", NONE),
            ("10.0.0.255:80/tcp", "out"),
            ("10.0.1.0:80/tcp", NONE),
            ("10.5.5.5:95/tcp", "out"),
            ("10.6.0.3:101/tcp", NONE),
            ("1.1.1.1:53/udp", "out"),
            ("2.2.2.9:53/udp", "out"),
            ("2.2.2.9:53/tcp", NONE),
            ("10.9.9.9:80/tcp", "out"),
            ("10.9.9.9:81/tcp", NONE),
            ("10.9.9.9:99/tcp", "out"),
            ("10.9.8.7:70/tcp", "out"),
            ("10.9.8.7:71/tcp", NONE),
            ("5.5.5.9:53/udp", "out"),
            ("5.5.7.1:79/tcp", "out"),
            ("5.5.7.1:80/tcp", NONE),
            // Accepted before.
            ("5.5.6.1:79/tcp", NONE),
            ("9.9.9.77:1000/tcp", "out"),
            ("9.9.9.77:999/tcp", NONE),
            ("9.1.1.1:9/udp", "out"),
            ("8.8.7.1:9/udp", "out"),
            ("8.8.8.1:9/udp", NONE),
        ],
    );
}

#[test]
fn rules_that_ask_for_what_is_not_known_here_are_not_held_against_anybody() {
    for last in 5..=9 {
        let vip = format!("6.6.6.{last}:80/tcp");
        assert_eq!(translator(include_str!("fixtures/nftables.txt"), "out", &vip), "", "{vip}");
    }
}

#[test]
fn rules_of_iptables_translate_exactly_what_they_name() {
    assert_translated(
        include_str!("fixtures/iptables.txt"),
        "OUTPUT",
        &[
            ("7.0.0.1:80/tcp", "SVC"),
            ("7.0.0.1:90/tcp", "SVC"),
            ("7.0.0.1:91/tcp", ""),
            ("7.0.0.1:80/udp", ""),
            ("7.0.0.2:9/udp", "SVC"),
            // Options that are not read: multiport, flags, addrtype.
            ("7.0.0.3:80/tcp", ""),
            ("7.0.0.4:80/tcp", ""),
            ("7.0.1.4:80/tcp", ""),
            ("7.0.0.5:80/tcp", "SVC"),
            ("1.2.3.4:81/tcp", "SVC"),
            ("1.2.3.4:80/tcp", ""),
        ],
    );
}

#[test]
fn messages_that_end_early_are_read_without_harm() {
    for text in [include_str!("fixtures/nftables.txt"), include_str!("fixtures/iptables.txt")] {
        for messages in Dumped::read(text).0.values() {
            for message in messages {
                for length in 0..message.len() {
                    let _rule = rule(&message[..length]);
                    let _set = set(std::iter::once(&message[..length]));
                }
            }
        }
    }
}
