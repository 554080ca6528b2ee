//! Packets beyond the ordinary: UDP super-packets and jumbo frames.

use std::{net::UdpSocket, time::Duration};

use fanlight_tests::{
    Switch,
    fleet::{Fleet, bridge, overlay},
    load::{Iperf, IperfServer, assert_reaches, ping},
    site::Offload,
};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

//@ guest: 6.1
#[test]
fn udp_super_packets_arrive_as_all_their_datagrams() {
    const DATAGRAM: usize = 1200;
    const ROUNDS: usize = 20;
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    for tso in [true, false] {
        fleet[0].offload("eth0", Offload::Tso, tso);
        let receiver =
            other.inside(|| UdpSocket::bind((overlay(1, 2), 0))).expect("an address of the container");
        receiver.set_read_timeout(Some(Duration::from_secs(2))).expect("a limit that is not zero");
        let to = receiver.local_addr().expect("a bound socket");
        let sender = one.inside(|| UdpSocket::bind((overlay(0, 2), 0))).expect("an address of the container");
        setsockopt(&sender, UdpGsoSegment, &(DATAGRAM as i32)).expect("a kernel with UDP_SEGMENT");
        let mut arrived = 0;
        for round in 0..ROUNDS {
            // Ten datagrams, each filled with its own number.
            let datagrams: Vec<u8> = (0..10).flat_map(|number| [number; DATAGRAM]).collect();
            let sent = sender.send_to(&datagrams, to);
            assert_eq!(sent.ok(), Some(datagrams.len()), "round {round}");
            let mut buffer = [0; 2 * DATAGRAM];
            for number in 0..10 {
                let length = receiver.recv(&mut buffer);
                assert_eq!(
                    length.ok(),
                    Some(DATAGRAM),
                    "round {round}, datagram {number}, segmentation {tso}"
                );
                assert!(buffer[..DATAGRAM].iter().all(|&byte| byte == number));
                arrived += 1;
            }
        }
        assert_eq!(arrived, 10 * ROUNDS);
    }
}

//@ guest
#[test]
fn a_wire_of_jumbo_frames_carries_jumbo_packets() {
    let fleet = Fleet::on(Switch::with_mtu("wire", 9000), 2);
    for host in fleet.hosts() {
        host.run("fan up 250.0.0.0/8 eth0");
    }
    assert!(fleet[0].ip(&format!("-o link show {}", bridge(0))).contains("mtu 8980"));
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert!(one.ip("-o link show eth0").contains("mtu 8980"));
    assert_eq!(ping(&one, overlay(1, 2), 3, &["-M", "do", "-s", "8952"]).lost(), 0);
    let _server = IperfServer::start(&other);
    fleet[0].offload("eth0", Offload::Tso, false);
    let run = Iperf::run(&one, overlay(1, 2), &["-n", "64M"]);
    assert!(run.bits_per_second() > 1e8, "{run:?}");
}
