//! The packet that a question is about: small, whole, and the first of its flow unless there is one.

use std::net::Ipv4Addr;

use dataplane_common::{
    checksum, icmp, tunnel,
    wire::{ETHERTYPE_IPV4, IPV4_LEN, PLAIN, PROTO_ICMP, PROTO_TCP},
};

use super::Question;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const TTL: u8 = 64;
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];

/// The packet from its network header on; a TCP segment opens the connection, or belongs to one.
pub(super) fn packet(question: &Question, is_in_flow: bool) -> Vec<u8> {
    let ports = question.ports().map(u16::to_be_bytes).concat();
    let payload = match question.protocol {
        PROTO_ICMP => [icmp::ECHO_REQUEST, 0, 0xf7, 0xff, 0, 0, 0, 0].to_vec(),
        PROTO_TCP => {
            let flags = if is_in_flow { ACK } else { SYN };
            [&ports[..], &[0, 0, 0, 1], &[0; 4], &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]].concat()
        }
        _ => [&ports[..], &[0, 8, 0, 0]].concat(),
    };
    ipv4(question.src, question.dst, question.protocol, &payload)
}

/// A packet in the tunnel from another host.
pub(super) fn carried(packet: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    ipv4(from, to, tunnel::PROTOCOL, packet)
}

/// A frame with a packet in it, to a link-layer address.
pub(super) fn frame(to: [u8; 6], packet: &[u8]) -> Vec<u8> {
    [&to[..], &[0; 6], &ETHERTYPE_IPV4.to_be_bytes(), packet].concat()
}

fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; IPV4_LEN];
    (header[0], header[8], header[9]) = (PLAIN, TTL, protocol);
    header[2..4].copy_from_slice(&((IPV4_LEN + payload.len()) as u16).to_be_bytes());
    header[6..8].copy_from_slice(&DONT_FRAGMENT);
    header[12..16].copy_from_slice(&src.octets());
    header[16..20].copy_from_slice(&dst.octets());
    let check = checksum::finish(checksum::add(&header, 0));
    header[10..12].copy_from_slice(&check);
    [&header, payload].concat()
}

#[cfg(test)]
mod tests {
    use dataplane_common::{
        ct::Segment,
        packet::Packet as _,
        wire::{Ipv4, Ipv4Words},
    };

    use super::*;

    fn question(protocol: u8) -> Question {
        let (src, dst) = (Ipv4Addr::new(250, 0, 28, 2), Ipv4Addr::new(10, 96, 0, 10));
        Question { src, dst, protocol, sport: Some(40_000), dport: Some(80) }
    }

    #[test]
    fn a_packet_is_whole_and_has_the_ports_that_were_asked_about() {
        for (protocol, is_syn) in [(6, true), (17, false)] {
            let bytes = packet(&question(protocol), false);
            let ip = Ipv4::new(bytes[..].read(0).unwrap());
            assert!(ip.is_plain() && ip.total_len as usize == bytes.len());
            let words: Ipv4Words = bytes[..].read(0).unwrap();
            assert!(checksum::intact(&words));
            let segment = Segment::read(&bytes[..], &ip, 0).unwrap();
            assert_eq!((u16::from_be(segment.sport), u16::from_be(segment.dport)), (40_000, 80));
            assert_eq!(segment.is_syn(), is_syn);
        }
        let later = packet(&question(6), true);
        let ip = Ipv4::new(later[..].read(0).unwrap());
        assert!(!Segment::read(&later[..], &ip, 0).unwrap().is_syn());
    }

    #[test]
    fn a_ping_is_an_echo_request_with_its_checksum() {
        let bytes = packet(&question(PROTO_ICMP), false);
        let message: [u8; 8] = bytes[20..].try_into().unwrap();
        assert_eq!((message[0], checksum::finish(checksum::add(&message, 0))), (icmp::ECHO_REQUEST, [0, 0]));
    }
}
