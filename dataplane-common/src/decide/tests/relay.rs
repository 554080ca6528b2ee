//! What errors about tunnel packets tell the senders of the packets inside.

use super::{
    service::{VIP, datagram, named, serving},
    *,
};
use crate::wire::{PROTO_ICMP, PROTO_UDP};

const ROUTER: u32 = 0xac1e_0001;
const OUTSIDE: u32 = 0x0a00_0005;

/// The error about the tunnel packet in which `inner` went to `host`, as this many bytes of it are quoted.
fn refused(kind: [u8; 2], inner: Frame, host: u32, quoted: usize) -> Frame {
    let tunnel = inner.carried(HERE, host).with(20, &[0x40, 0]);
    let [kind, code] = kind;
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(&tunnel.bytes[ETH_LEN..ETH_LEN + quoted]);
    Frame::new(ROUTER, HERE, PROTO_ICMP, &message)
}

/// Who is told what by whom.
fn told(world: &Memory, frame: &Frame) -> Option<String> {
    assert_eq!(frame.sent_by_underlay(world), "relay");
    let Relayed { source, answer, out } = relayed(frame.bytes.as_slice(), world)?;
    let answer = if answer.is_kept() { String::new() } else { format!("{}, ", describe_rewrite(answer)) };
    Some(named(&format!("{answer}{} by {source:08x}", describe_out(out))))
}

#[test]
fn whoever_sent_what_a_tunnel_packet_held_is_told() {
    let world = world();
    for kind in [[3, 0], [3, 1], [3, 2], [3, 3], [3, 13], [11, 0]] {
        let about = |src| refused(kind, Frame::udp(src, REMOTE), THERE, 48);
        assert_eq!(told(&world, &about(LOCAL)).as_deref(), Some("deliver to 7 by GATEWAY"));
        assert_eq!(told(&world, &about(GATEWAY)).as_deref(), Some("deliver to the host by REMOTE"));
        let not_learnt = about(0xfa00_1c63);
        assert_eq!(told(&world, &not_learnt).as_deref(), Some("deliver to the host by REMOTE"));
    }
}

#[test]
fn what_this_host_has_not_sent_or_may_not_be_answered_is_told_nobody() {
    let world = world();
    let unreachable = |inner, host| refused([3, 1], inner, host, 48);
    let error = Frame::new(LOCAL, REMOTE, PROTO_ICMP, &[3, 1, 0, 0, 0, 0, 0, 0]);
    let later = Frame::udp(LOCAL, REMOTE).with(20, &[0, 1]);
    let cases = [
        (refused([3, 1], Frame::udp(LOCAL, REMOTE), THERE, 47), "quotes too little"),
        (unreachable(Frame::udp(0xfa00_1a02, REMOTE), THERE), "another host's source"),
        (unreachable(Frame::udp(LOCAL, REMOTE), THERE - 1), "to another host than it computes to"),
        (unreachable(Frame::udp(LOCAL, OUTSIDE), THERE), "to no overlay"),
        (unreachable(error, THERE), "about an error"),
        (unreachable(later, THERE), "about a later fragment"),
    ];
    for (frame, what) in cases {
        assert_eq!(told(&world, &frame), None, "{what}");
    }
    let foreign = refused([3, 1], Frame::udp(LOCAL, REMOTE), 0x0a00_0001, 48);
    assert_eq!(foreign.sent_by_underlay(&world), Outcome::PassNotOurs.name(), "no fan host");
}

#[test]
fn a_client_is_told_of_its_vip() {
    let world = serving(REMOTE);
    let sent = datagram(LOCAL, VIP);
    let rewrite = complete(Hook::EndpointIngress, sent.bytes.as_slice(), &sent.meta, &world).rewrite;
    let mut inner = Frame::new(u32::from_be(rewrite.src), u32::from_be(rewrite.dst), PROTO_UDP, &[0; 64]);
    inner.bytes[34..36].copy_from_slice(&rewrite.sport.to_ne_bytes());
    inner.bytes[36..38].copy_from_slice(&rewrite.dport.to_ne_bytes());
    let error = refused([3, 1], inner, THERE, 48);
    let expected = "from VIP to LOCAL, deliver to 7 by GATEWAY";
    assert_eq!(told(&world, &error).as_deref(), Some(expected));
}
