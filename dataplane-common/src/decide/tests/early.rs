//! The hook in front of `uplink-ingress`: it refuses what that one would, and nothing else.

use super::*;

fn early_on(bytes: &[u8], meta: Meta) -> Early {
    early(bytes, &Meta { len: bytes.len() as u32, ..meta }, &world())
}

impl Frame {
    fn early(&self) -> Early {
        early_on(&self.bytes, self.meta)
    }

    /// With these tags behind the MAC addresses.
    fn tagged(&self, tags: &[[u8; 4]]) -> Early {
        let bytes = [&self.bytes[..12], tags.concat().as_slice(), &self.bytes[12..]].concat();
        early_on(&bytes, self.meta)
    }
}

fn right() -> Frame {
    Frame::udp(REMOTE, LOCAL).carried(THERE, HERE)
}

fn spoofed() -> Frame {
    Frame::udp(0xfa00_1a02, LOCAL).carried(THERE, HERE)
}

#[test]
fn what_is_spoofed_foreign_or_malformed_in_a_tunnel_packet_ends_here() {
    for (frame, outcome) in [
        (spoofed(), Outcome::DropSpoofedSource),
        (Frame::udp(REMOTE, 0xfa00_1d02).carried(THERE, HERE), Outcome::DropNotOurSlice),
        (right().with(20, &[0x20, 0]), Outcome::DropOuterFragment),
        (right().with(34, &[0x65]), Outcome::DropBadHeader),
        (right().with(16, &[9, 9]), Outcome::DropTruncated),
        (right().with(15, &[3]), Outcome::DropEcn),
        (right().meta(|_| ()).broken_sum(), Outcome::DropBadChecksum),
    ] {
        assert_eq!(frame.early(), Early::Refuse(outcome));
        assert_eq!(frame.sent_by_underlay(&world()), outcome.name());
    }
}

impl Frame {
    fn broken_sum(mut self) -> Self {
        self.bytes[24] ^= 0x55;
        self
    }
}

#[test]
fn everything_else_goes_on() {
    for frame in [
        right(),
        Frame::udp(THERE, HERE),
        Frame::udp(REMOTE, LOCAL).carried(0x0a00_0001, HERE),
        Frame::udp(1, 2).carried(THERE, HERE),
        right().with(14, &[0x46]),
        right().with(12, &[0x86, 0xdd]),
    ] {
        assert_eq!(frame.early(), Early::GoOn, "{}", frame.sent_by_underlay(&world()));
    }
    assert_eq!(early_on(&spoofed().bytes[..20], spoofed().meta), Early::GoOn, "no whole header");
}

#[test]
fn a_frame_to_another_mac_address_is_left_to_the_next_hook() {
    assert_eq!(spoofed().meta(|meta| meta.to_us = false).early(), Early::GoOn);
}

#[test]
fn a_priority_tag_is_no_tag_and_what_another_names_is_not_ours() {
    let refused = Early::Refuse(Outcome::DropSpoofedSource);
    assert_eq!(spoofed().tagged(&[[0x81, 0, 0xa0, 0]]), refused);
    assert_eq!(spoofed().tagged(&[[0x88, 0xa8, 0, 0]]), refused);
    assert_eq!(right().tagged(&[[0x81, 0, 0xa0, 0]]), Early::GoOn);
    assert_eq!(spoofed().tagged(&[[0x81, 0, 0xa0, 5]]), Early::GoOn);
    assert_eq!(spoofed().tagged(&[[0x81, 0, 0, 0], [0x81, 0, 0, 0]]), Early::GoOn, "one behind another");
    // The tag is no part of what may be truncated.
    assert_eq!(right().with(16, &[0, 113]).tagged(&[[0x81, 0, 0, 0]]), Early::Refuse(Outcome::DropTruncated));
}

proptest! {
    #[test]
    fn it_refuses_exactly_the_tunnel_packets_that_the_next_hook_drops(
        inner in (0_usize..4, 0_usize..4),
        changes in proptest::collection::vec((12_usize..60, any::<u8>()), 0..4),
        cut in 14_usize..200,
        is_tagged: bool,
    ) {
        let addresses = [LOCAL, REMOTE, GATEWAY, 0x0a00_0001];
        let mut frame = Frame::udp(addresses[inner.0], addresses[inner.1]).carried(THERE, HERE);
        for (place, value) in changes {
            frame.bytes[place] = value;
        }
        frame.bytes.truncate(cut);
        frame.meta.len = frame.bytes.len() as u32;
        // Behind XDP no tag stands in the frame, and one in the middle of this one is no first tag.
        let is_odd = Tag::of(frame.bytes.as_slice()) != Tag::None;
        let is_tunnel = frame.bytes.len() > 33 && frame.bytes[12..14] == [8, 0] && frame.bytes[23] == PROTO_IPIP;
        let decided = complete(Hook::UplinkIngress, frame.bytes.as_slice(), &frame.meta, &world());
        let refused = is_tunnel && decided.action == Action::Drop;
        let expected = if refused { Early::Refuse(decided.outcome) } else { Early::GoOn };
        let tags: &[[u8; 4]] = if is_tagged { &[[0x81, 0, 0x20, 0]] } else { &[] };
        if !is_odd {
            prop_assert_eq!(frame.tagged(tags), expected);
        }
    }
}
