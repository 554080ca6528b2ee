//! What the two ends of a flow through a VIP hear of the path between them, and of each other.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use fanlight_tests::{
    Agent, Site, eventually,
    fleet::{ELSEWHERE, Fleet, overlay},
    narrow::Narrow,
    server::{Greeted, Named, ask},
    services::{configure, service},
};
use nix::sys::socket::{getsockopt, sockopt::IpMtu};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const FAR: SocketAddrV4 = SocketAddrV4::new(VIP, 80);
/// Of another address: what is learnt of a path, a client keeps by that.
const BEYOND: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 11), 80);
const SOON: Duration = Duration::from_secs(5);

fn tcp_and_udp(vip: SocketAddrV4, backend: &str) -> [String; 2] {
    ["tcp", "udp"].map(|protocol| {
        service(
            &format!("{protocol}-{}-{}", vip.ip(), vip.port()),
            format!("{vip}/{protocol}"),
            &[backend.to_owned()],
        )
    })
}

/// Behind the smaller link a backend in the fan and one that has none; the first host serves both.
fn serve_over(narrow: &Narrow, in_fan: &Named, beyond: &Named) -> Agent {
    let tables = [tcp_and_udp(FAR, &in_fan.backend()), tcp_and_udp(BEYOND, &beyond.backend())].concat();
    narrow.hosts[0].write("/etc/fanlight/fanlight.toml", &tables.concat());
    narrow.hosts[0].agent()
}

/// Sends what the first hop takes until a connected socket knows that the path is of this size.
fn learns(client: &Site, to: SocketAddrV4, size: i32) {
    client.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        socket.connect(to).expect("a route");
        eventually(&format!("{} knows the path to {to} as one of {size}", client.name()), SOON, || {
            socket.send(&[7; 1452]).expect("sent, in fragments if need be");
            (getsockopt(&socket, IpMtu).expect("the path's size") == size).then_some(())
        });
    });
}

//@ guest: 6.1
#[test]
fn a_smaller_link_to_the_backend_is_crossed_through_a_vip_and_told_to_its_clients() {
    let narrow = Narrow::new();
    let (a, b) = narrow.containers();
    let (client, server) = (Site::bare("client"), Site::bare("server"));
    narrow.join(0, &client, 9);
    client.ip("route add 10.96.0.0/16 via 172.30.1.2");
    let address = narrow.join(1, &server, 9);
    let (in_fan, beyond) =
        (Named::start(&b, "in-fan", Narrow::B, 8080), Named::start(&server, "beyond", address, 8080));
    let _agent = serve_over(&narrow, &in_fan, &beyond);
    for (from, site) in [("container", &*a), ("host", &*narrow.hosts[0]), ("another host", &client)] {
        for vip in [FAR, BEYOND] {
            let mut greeted = Greeted::connect(site, vip).expect("the backend answers");
            greeted.echo(&[7; 300_000]).unwrap_or_else(|error| panic!("{from} to {vip}: {error}"));
        }
    }
    for site in [&*a, &client] {
        learns(site, FAR, Narrow::MTU as i32 - 20);
        learns(site, BEYOND, Narrow::MTU as i32);
    }
}

//@ guest
#[test]
fn an_exact_port_comes_before_any_port_of_the_same_address() {
    let fleet = Fleet::up(2);
    let outside = fleet.outside(VIP);
    let (here, there) = (fleet.endpoint(0, 9), fleet.endpoint(1, 9));
    let _servers = [
        Named::start(&here, "any", overlay(0, 9), 8080),
        Named::start(&here, "any", overlay(0, 9), 8081),
        Named::start(&there, "exact", overlay(1, 9), 8080),
    ];
    let tables = [
        tcp_and_udp(SocketAddrV4::new(VIP, 0), &format!("{}:0", overlay(0, 9))),
        tcp_and_udp(FAR, &format!("{}:8080", overlay(1, 9))),
    ];
    configure(&fleet[0], &tables.concat());
    let _agent = fleet[0].agent();
    let client = fleet.endpoint(0, 5);
    for (from, site) in [("container", &*client), ("host", &*fleet[0]), ("another host", &outside)] {
        for (port, name) in [(80, "exact"), (8080, "any"), (8081, "any")] {
            let to = SocketAddrV4::new(VIP, port);
            assert_eq!(Greeted::connect(site, to).expect("a server").name, name, "{from}, port {port}");
            assert_eq!(ask(site, to).expect("a server").0, name, "{from}, port {port}");
        }
    }
}

/// A question from a socket that is closed at once, and what the backend hears when it answers.
fn answered_too_late(client: &Site, server: &Site, address: Ipv4Addr) -> io::Error {
    let backend = server.bound(|| UdpSocket::bind((address, 8080)));
    backend.set_read_timeout(Some(SOON)).expect("a socket takes a time");
    client.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        socket.send_to(b"who", FAR).expect("sent");
    });
    let (_, from) = backend.recv_from(&mut [0; 16]).expect("a question");
    backend.connect(from).expect("a route");
    backend.send(b"me").expect("sent");
    backend.recv(&mut [0; 16]).expect_err("the client is gone")
}

//@ guest
#[test]
fn a_backend_that_answers_a_client_which_is_gone_is_told_so() {
    let fleet = Fleet::up(2);
    let outside = fleet.outside(VIP);
    let elsewhere = fleet.stranger("elsewhere", ELSEWHERE);
    let client = fleet.endpoint(0, 5);
    let (here, there) = (fleet.endpoint(0, 9), fleet.endpoint(1, 9));
    let servers: [(&Site, Ipv4Addr); 3] =
        [(&here, overlay(0, 9)), (&there, overlay(1, 9)), (&elsewhere, ELSEWHERE)];
    for (server, address) in servers {
        configure(&fleet[0], &[service("dns", format!("{FAR}/udp"), &[format!("{address}:8080")])]);
        let _agent = fleet[0].agent();
        for (from, site) in [("container", &*client), ("host", &*fleet[0]), ("another host", &outside)] {
            // Kernels answer only so many requests a second to one address.
            site.sysctl("net.ipv4.icmp_ratelimit", "0");
            let told = answered_too_late(site, server, address);
            assert_eq!(told.kind(), io::ErrorKind::ConnectionRefused, "{from} to {address}: {told}");
        }
    }
}
