//! What is on the wire, as others see it: tcpdump's decoder and the kernel's own tunnel device.

use std::time::Duration;

use fanlight_tests::{
    capture::Capture,
    fleet::{Fleet, overlay, underlay},
    load::{Echo, Iperf, IperfServer, assert_reaches},
    packet::{IPIP, Ipv4},
    site::Offload,
    socket::RawSocket,
    tools,
};

//@ guest: 6.1
#[test]
fn tunnel_packets_are_well_formed_in_every_field() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    for (site, device) in [(&*one, "eth0"), (&*other, "eth0"), (&fleet[0], "eth0")] {
        site.offload(device, Offload::TxChecksum, false);
    }
    let echo = Echo::start(&other, overlay(1, 2));
    let wires = [fleet[0].raw("eth0"), fleet[1].raw("eth0")];
    assert_reaches(&one, overlay(1, 2));
    one.inside(|| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect((overlay(1, 2), echo.port())).expect("a connection");
        stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut [0; 5])).expect("an echo");
    });
    let arrived = |wire: &RawSocket| wire.collect(Duration::from_millis(300), Ipv4::of_frame);
    let packets: Vec<_> = wires.iter().flat_map(arrived).filter(|packet| packet.protocol == IPIP).collect();
    assert!(packets.len() >= 10, "{packets:?}");
    for outer in packets {
        assert_eq!(outer.frags, Ipv4::DF, "{outer:?}");
        assert!(outer.options.is_empty() && outer.ttl > 32);
        let inner = outer.inner().unwrap_or_else(|| panic!("no right header inside {outer:?}"));
        assert!(inner.payload_intact(), "{inner:?}");
        let ends = if outer.dst == underlay(1) {
            (overlay(0, 2), overlay(1, 2))
        } else {
            (overlay(1, 2), overlay(0, 2))
        };
        assert_eq!((inner.src, inner.dst), ends);
    }
}

//@ guest
#[test]
fn tcpdump_finds_no_fault_with_the_packets() {
    if !tools::available(&["tcpdump"]) {
        return;
    }
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.port(0, 2), fleet.port(1, 2));
    for (site, device) in [(&*one, "eth0"), (&*other, "eth0"), (&fleet[0], "eth0"), (&fleet[1], "eth0")] {
        site.offload(device, Offload::TxChecksum, false);
    }
    let _server = IperfServer::start(&other);
    let capture = Capture::start(&fleet[1], "eth0", "ip proto 4 or icmp");
    assert_reaches(&one, overlay(1, 2));
    one.command("ping").args(["-c", "2", "-i", "0.1", "-s", "3000", &overlay(1, 2).to_string()]).ok();
    Iperf::run(&one, overlay(1, 2), &["-n", "1M"]);
    Iperf::run(&one, overlay(1, 2), &["-u", "-n", "100K", "-l", "1000"]);
    let decoded = capture.decode();
    for fault in ["bad cksum", "incorrect", "bad hdr", "truncated", "wrong"] {
        let line = decoded.lines().find(|line| line.contains(fault));
        assert!(line.is_none(), "{fault}: {line:?}");
    }
    for expected in ["IPIP (4)", "ICMP echo request", "ICMP echo reply", "Flags [S]", "UDP"] {
        assert!(decoded.contains(expected), "{expected} is not in\n{decoded}");
    }
}

//@ guest: 6.1, 6.12
#[test]
fn a_stock_ipip_device_exchanges_packets_with_the_fan_both_ways() {
    if !tools::kernel_has_device("ipip") {
        return;
    }
    let fleet = Fleet::bare(2);
    fleet[0].run("fan up 250.0.0.0/8 eth0");
    let one = fleet.endpoint(0, 2);
    // The other host knows nothing of Fanlight: a tunnel device with the first host as its other end.
    let stock = &fleet[1];
    stock.ip(&format!("link add stock type ipip local {} remote {} ttl 64", underlay(1), underlay(0)));
    stock.ip(&format!("address add {}/32 dev stock", overlay(1, 2)));
    stock.ip("link set stock up");
    stock.ip("route add 250.0.0.0/8 dev stock");
    assert_reaches(&one, overlay(1, 2));
    assert_reaches(stock, overlay(0, 2));
    assert_reaches(stock, overlay(0, 1));
    let _server = IperfServer::start(stock);
    for options in [&["-n", "8M"] as &[_], &["-n", "8M", "-R"]] {
        let run = Iperf::run(&one, overlay(1, 2), options);
        assert!(run.bits_per_second() > 1e6, "{run:?}");
    }
}
