//! Flows of services over an egress that is no uplink, or carries less than one.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    thread::{self, JoinHandle},
    time::Duration,
};

use fanlight_tests::{
    Agent, Host, Site, eventually,
    fleet::{ELSEWHERE, Fleet, OUTSIDE, overlay},
    narrow::Narrow,
    network::wire,
    server::{Greeted, Named},
    services::{configure, service},
};
use nix::sys::socket::{getsockopt, sockopt::IpMtu};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 80);
const SOON: Duration = Duration::from_secs(5);
/// What the smaller egress carries.
const SMALL: i32 = 1400;
/// Payload of a datagram that fits the uplink and not the smaller egress: 1,440 bytes with its headers.
const LARGE: usize = 1412;

/// Sends datagrams back as they came, until one is empty.
struct Reflector(JoinHandle<io::Result<()>>);

impl Reflector {
    fn start(site: &Site, address: Ipv4Addr) -> Self {
        let socket = site.bound(|| UdpSocket::bind((address, 8080)));
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes a time");
        Self(thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            loop {
                let (length, from) = socket.recv_from(&mut bytes)?;
                if length == 0 {
                    return Ok(());
                }
                // One that must not be fragmented is refused until the path is known, and comes again.
                let _ = socket.send_to(&bytes[..length], from);
            }
        }))
    }

    fn end(self, client: &Site) {
        client
            .inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|end| end.send_to(&[], WEB)))
            .expect("the end is sent");
        self.0.join().expect("it does not panic").expect("it is told to end");
    }
}

fn serve(fleet: &Fleet, backend: Ipv4Addr, protocol: &str) -> Agent {
    configure(&fleet[0], &[service("web", format!("{WEB}/{protocol}"), &[format!("{backend}:8080")])]);
    fleet[0].agent()
}

fn asking(client: &Site) -> UdpSocket {
    client.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        socket.connect(WEB).expect("a route");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket takes a time");
        socket
    })
}

/// Whether a datagram of this payload comes back.
fn comes_back(socket: &UdpSocket, length: usize) -> bool {
    let sent = vec![length as u8; length];
    let mut back = vec![0; 1 << 16];
    socket.send(&sent).is_ok() && socket.recv(&mut back).is_ok_and(|received| back[..received] == sent)
}

//@ guest: 6.1, 6.12
#[test]
fn what_an_egress_to_the_backend_does_not_carry_is_told_or_fragmented() {
    let fleet = Fleet::up(1);
    let outside = fleet.outside(VIP);
    let elsewhere = fleet.stranger("elsewhere", ELSEWHERE);
    fleet[0].ip(&format!("route add {ELSEWHERE} dev eth0 mtu lock {SMALL}"));
    let reflector = Reflector::start(&elsewhere, ELSEWHERE);
    let agent = serve(&fleet, ELSEWHERE, "udp");
    let container = fleet.endpoint(0, 5);
    let clients: [(&str, &Site); 3] =
        [("container", &container), ("host", &fleet[0]), ("another host", &outside)];
    for (who, client) in clients {
        let asked = asking(client);
        eventually(&format!("{who}: the path is known as one of {SMALL}"), SOON, || {
            let _ = asked.send(&[7; LARGE]);
            let _ = asked.recv(&mut [0; 1 << 11]);
            (getsockopt(&asked, IpMtu).expect("the path's size") == SMALL).then_some(())
        });
        assert!(comes_back(&asked, LARGE), "{who}: in fragments that the client makes");
        drop(asked);
        client.ip("route flush cache");
        client.sysctl("net.ipv4.ip_no_pmtu_disc", "1");
        let before = fleet[0].counters();
        let asked = asking(client);
        assert!(comes_back(&asked, LARGE), "{who}: in fragments made on the way, {}", fleet[0].counters());
        let counted = fleet[0].counters().since(&before);
        assert_eq!(counted.total("pass-slow-path"), 1, "{who}: {counted}");
        client.sysctl("net.ipv4.ip_no_pmtu_disc", "0");
    }
    reflector.end(&container);
    drop(agent);
    let _server = Named::start(&elsewhere, "elsewhere", ELSEWHERE, 8080);
    let _agent = serve(&fleet, ELSEWHERE, "tcp");
    for (who, client) in clients {
        let mut greeted = Greeted::connect(client, WEB).unwrap_or_else(|error| panic!("{who}: {error}"));
        greeted.echo(&[7; 300_000]).unwrap_or_else(|error| panic!("{who}: {error}"));
    }
}

//@ guest: 6.1, 6.12
#[test]
fn what_an_egress_to_the_client_does_not_carry_is_told_or_fragmented() {
    let fleet = Fleet::up(2);
    let outside = fleet.outside(VIP);
    let elsewhere = fleet.stranger("elsewhere", ELSEWHERE);
    let (here, there) = (fleet.endpoint(0, 9), fleet.endpoint(1, 9));
    fleet[0].ip(&format!("route add {OUTSIDE} dev eth0 mtu lock {SMALL}"));
    let backends: [(&Site, Ipv4Addr); 3] =
        [(&here, overlay(0, 9)), (&there, overlay(1, 9)), (&elsewhere, ELSEWHERE)];
    for (server, address) in backends {
        for (discovery, no_discovery) in [("told", "0"), ("fragmented", "1")] {
            server.sysctl("net.ipv4.ip_no_pmtu_disc", no_discovery);
            server.ip("route flush cache");
            let reflector = Reflector::start(server, address);
            let _agent = serve(&fleet, address, "udp");
            let before = fleet[0].counters();
            let asked = asking(&outside);
            eventually(&format!("{address}, {discovery}: the answer arrives"), SOON, || {
                comes_back(&asked, LARGE).then_some(())
            });
            let counted = fleet[0].counters().since(&before);
            let made = counted.total("answered-too-big") + counted.total("pass-slow-path");
            assert!(made > 0, "{address}, {discovery}: none leaves whole, {counted}");
            reflector.end(&outside);
        }
    }
}

//@ guest
#[test]
fn a_backend_behind_another_device_than_an_uplink_is_told_with_the_remedy_which_helps() {
    let fleet = Fleet::up(1);
    let server = Site::bare("server");
    let address = Ipv4Addr::new(192, 168, 7, 2);
    wire(1500, (&fleet[0], "eth1", "192.168.7.1/24"), (&server, "eth0", "192.168.7.2/24"));
    server.ip("route add default via 192.168.7.1");
    let named = Named::start(&server, "second", address, 8080);
    let container = fleet.endpoint(0, 5);
    let degraded = || fleet[0].json("status")["degraded"].to_string();
    let agent = serve(&fleet, address, "tcp");
    let reason = "backend-device web: backend 192.168.7.2 is reached by eth1, where no program sees its answers; \
                  add eth1 to `uplink` in [node]";
    eventually("the backend's device is told", SOON, || degraded().contains(reason).then_some(()));
    drop(agent);
    let uplinks = "[node]\nuplink = [\"eth0\", \"eth1\"]\n".to_owned();
    configure(&fleet[0], &[uplinks, service("web", format!("{WEB}/tcp"), &[named.backend()])]);
    let _agent = fleet[0].agent();
    eventually("nothing is degraded", SOON, || (degraded() == "[]").then_some(()));
    let mut greeted = Greeted::connect(&container, WEB).expect("the server answers");
    greeted.echo(&[7; 200_000]).expect("bytes come back");
}

/// Has clients send datagrams to a backend in another host's slice, in fragments of their own or to be fragmented on the way;
/// each has to come back, and to count once.
fn large_datagrams_count_once(host: &Host, clients: &[(&str, &Site)], lengths: &[usize]) {
    for (who, client) in clients {
        for length in lengths {
            let asked = asking(client);
            let port = asked.local_addr().expect("it is bound").port();
            const TIMES: u64 = 8;
            for time in 0..TIMES {
                assert!(comes_back(&asked, *length), "{who}: {length} bytes, {time}: {}", host.counters());
            }
            let flows = host.json("flow list");
            let own = |flow: &&serde_json::Value| {
                flow["client"].as_str().is_some_and(|client| client.ends_with(&format!(":{port}")))
            };
            let flow = flows.as_array().expect("a list").iter().find(own).expect("its flow");
            assert_eq!(flow["packets"], 2 * TIMES, "{who}: {length} bytes: {flow}");
        }
    }
}

#[test]
fn datagrams_larger_than_the_fan_carries_arrive_from_everywhere_and_count_once() {
    let fleet = Fleet::up(2);
    let (outside, backend) = (fleet.outside(VIP), fleet.endpoint(1, 9));
    let reflector = Reflector::start(&backend, overlay(1, 9));
    // As Docker has it.
    for rule in ["-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-P FORWARD DROP"] {
        fleet[0].sh(&format!("iptables-nft {rule}"));
    }
    let _agent = serve(&fleet, overlay(1, 9), "udp");
    let accepted = || fleet[0].sh("iptables-nft -S DOCKER-USER").contains("-i fanlight0 -o fanlight0");
    eventually("the slow path is accepted", SOON, || accepted().then_some(()));
    // Of the wire's MTU, not the fan's.
    let container = fleet.port(0, 6);
    container.ip("link set eth0 mtu 1500");
    let clients: [(&str, &Site); 3] =
        [("container", &container), ("host", &fleet[0]), ("another host", &outside)];
    for (_, client) in clients {
        client.sysctl("net.ipv4.ip_no_pmtu_disc", "1");
    }
    large_datagrams_count_once(&fleet[0], &clients, &[1_460, 1_472, 1_473, 4_000, 30_001]);
    reflector.end(&container);
}

//@ guest: 6.1
#[test]
fn datagrams_that_may_be_fragmented_cross_a_smaller_path_through_a_vip() {
    let narrow = Narrow::new();
    let (a, b) = narrow.containers();
    let client = Site::bare("client");
    narrow.join(0, &client, 9);
    client.ip(&format!("route add {VIP} via 172.30.1.2"));
    b.sysctl("net.ipv4.ip_no_pmtu_disc", "1");
    let reflector = Reflector::start(&b, Narrow::B);
    let [host, _] = &narrow.hosts;
    let backend = [format!("{}:8080", Narrow::B)];
    host.write("/etc/fanlight/fanlight.toml", &service("web", format!("{WEB}/udp"), &backend));
    let _agent = host.agent();
    let clients: [(&str, &Site); 3] = [("container", &a), ("host", host), ("another host", &client)];
    // The path is learnt from what is too large for it.
    eventually("the path is learnt", SOON, || comes_back(&asking(&a), 1_440).then_some(()));
    for (_, client) in clients {
        client.sysctl("net.ipv4.ip_no_pmtu_disc", "1");
    }
    large_datagrams_count_once(host, &clients, &[1_360, 1_440, 4_000]);
    reflector.end(&a);
}
