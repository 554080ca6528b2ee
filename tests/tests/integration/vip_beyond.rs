//! Services beyond the overlays: clients that route a VIP to a node, backends that no fan leads to, and packets that say
//! little of their flow.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{
    Agent,
    fleet::{ELSEWHERE, Fleet, OUTSIDE, overlay, underlay},
    server::{Greeted, Named, ask, ask_from},
    services::{configure, service},
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 80);

/// The usual fan on all hosts; the first has an agent with `web` over these backends, TCP and UDP.
fn serve(fleet: &Fleet, datapath: &str, backends: &[String]) -> Agent {
    let tables = [
        format!("[datapath]\n{datapath}\n"),
        service("web-tcp", format!("{WEB}/tcp"), backends),
        service("web-udp", format!("{WEB}/udp"), backends),
    ];
    configure(&fleet[0], &tables);
    fleet[0].agent()
}

//@ guest: 6.1
#[test]
fn a_server_without_a_fan_serves_containers_and_the_host_under_the_uplinks_address() {
    let fleet = Fleet::up(1);
    let outside = fleet.outside(VIP);
    let server = Named::start(&outside, "outside", OUTSIDE, 8080);
    let _agent = serve(&fleet, "nat-ports = \"62000-62099\"", &[server.backend()]);
    let reserved = fleet[0].sh("sysctl -n net.ipv4.ip_local_reserved_ports");
    assert_eq!(reserved.trim(), "62000-62099");
    let (routed, bridged) = (fleet.endpoint(0, 5), fleet.port(0, 6));
    for client in [&*routed, &*bridged, &*fleet[0]] {
        let mut greeted = Greeted::connect(client, WEB).expect("the server answers");
        assert_eq!(greeted.seen_as.ip(), underlay(0));
        assert!((62_000..=62_099).contains(&greeted.seen_as.port()), "{}", greeted.seen_as);
        greeted.echo(&[7; 200_000]).expect("bytes come back");
        let (name, seen_as) = ask(client, WEB).expect("the server answers");
        assert_eq!((name.as_str(), seen_as.ip()), ("outside", underlay(0).into()));
    }
}

//@ guest
#[test]
fn what_the_host_masquerades_keeps_off_the_ports_that_the_programs_give() {
    let fleet = Fleet::up(1);
    let outside = fleet.outside(VIP);
    let server = Named::start(&outside, "outside", OUTSIDE, 8080);
    let straight = SocketAddrV4::new(OUTSIDE, 8080);
    let client = fleet.port(0, 6);
    let seen = |port| {
        let greeted = Greeted::connect_from(&client, port, straight).expect("the server answers");
        let (_, asked_as) = ask_from(&client, port, straight).expect("the server answers");
        for seen_as in [greeted.seen_as, asked_as] {
            assert_eq!(seen_as.ip(), underlay(0));
        }
        (greeted.seen_as.port(), asked_as.port())
    };
    let kept = |port| assert_eq!(seen(port), (port, port));
    let changed = |port, given: std::ops::RangeInclusive<u16>| {
        let (tcp, udp) = seen(port);
        assert!(!given.contains(&tcp) && !given.contains(&udp), "{port} became {tcp} and {udp}");
    };
    kept(40_000);
    kept(600);
    changed(61_500, 61_000..=65_535);
    let mut agent = serve(&fleet, "nat-ports = \"20000-29999\"", &[server.backend()]);
    kept(40_001);
    kept(61_501);
    changed(20_500, 20_000..=29_999);
    let tables = ["[datapath]\nnat-ports = \"50000-60000\"\n".to_owned()];
    configure(&fleet[0], &tables);
    agent.reload();
    kept(20_501);
    changed(50_500, 50_000..=60_000);
}

//@ guest
#[test]
fn a_connection_that_finds_no_free_port_towards_one_backend_goes_to_another() {
    let fleet = Fleet::up(1);
    let (outside, elsewhere) = (fleet.outside(VIP), fleet.stranger("elsewhere", ELSEWHERE));
    let servers = [
        Named::start(&outside, "outside", OUTSIDE, 8080),
        Named::start(&elsewhere, "elsewhere", ELSEWHERE, 8080),
    ];
    let _agent = serve(&fleet, "nat-ports = \"62000-62000\"", &servers.each_ref().map(Named::backend));
    let client = fleet.endpoint(0, 5);
    let mut held: Vec<_> =
        (0..2).map(|_| Greeted::connect(&client, WEB).expect("a free port towards one of them")).collect();
    let met: BTreeSet<_> = held.iter().map(|greeted| greeted.name.clone()).collect();
    assert_eq!(met.len(), 2, "{met:?}");
    let refused = Greeted::connect(&client, WEB).map(|greeted| greeted.name).expect_err("no port is left");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
    assert_eq!(fleet[0].counters().total("refused-collision"), 1);
    for greeted in &mut held {
        greeted.echo(&[7; 3000]).expect("the others go on");
    }
}

//@ guest
#[test]
fn a_server_of_the_host_itself_is_a_backend_too() {
    let fleet = Fleet::up(1);
    let outside = fleet.outside(VIP);
    let server = Named::start(&fleet[0], "host", underlay(0), 8080);
    let _agent = serve(&fleet, "", &[server.backend()]);
    let container = fleet.endpoint(0, 5);
    for client in [&*container, &outside, &*fleet[0]] {
        let mut greeted = Greeted::connect(client, WEB).expect("the server answers");
        assert_eq!(greeted.seen_as.ip(), VIP);
        greeted.echo(&[7; 3000]).expect("bytes come back");
        ask(client, WEB).expect("the server answers");
    }
}

//@ guest: 6.1, 6.12
#[test]
fn a_client_without_a_fan_reaches_every_backend_through_the_node_it_routes_the_vip_to() {
    let fleet = Fleet::up(2);
    let (client, elsewhere) = (fleet.outside(VIP), fleet.stranger("elsewhere", ELSEWHERE));
    let containers: Vec<_> = (0..2).map(|host| fleet.endpoint(host, 9)).collect();
    let servers = [
        Named::start(&containers[0], "here", overlay(0, 9), 8080),
        Named::start(&containers[1], "there", overlay(1, 9), 8080),
        Named::start(&elsewhere, "elsewhere", ELSEWHERE, 8080),
    ];
    let _agent = serve(&fleet, "", &servers.each_ref().map(Named::backend));
    let mut met = BTreeMap::new();
    for _ in 0..40 {
        let mut greeted = Greeted::connect(&client, WEB).expect("a backend answers");
        greeted.echo(&[7; 30_000]).expect("bytes come back");
        met.insert(greeted.name, greeted.seen_as.ip());
        ask(&client, WEB).expect("a backend answers");
    }
    let seen = [("elsewhere", underlay(0)), ("here", OUTSIDE), ("there", overlay(0, 1))];
    let seen = seen.map(|(name, address)| (name.to_owned(), address.into()));
    assert_eq!(met, BTreeMap::from(seen));
    assert!(client.sh(&format!("ping -c 1 -W 2 {VIP}")).contains("1 received"));
}

//@ guest
#[test]
fn a_closed_port_of_a_backend_is_told_to_its_client_at_once() {
    let fleet = Fleet::up(2);
    let outside = fleet.outside(VIP);
    let remote = fleet.endpoint(1, 9);
    let local = fleet.endpoint(0, 9);
    let client = fleet.endpoint(0, 5);
    for (site, address) in [(&*remote, overlay(1, 9)), (&*local, overlay(0, 9)), (&outside, OUTSIDE)] {
        // Kernels answer only so many requests a second to one address.
        site.sysctl("net.ipv4.icmp_ratelimit", "0");
        let _agent = serve(&fleet, "", &[format!("{address}:8080")]);
        for client in [&*client, &*fleet[0]] {
            let start = Instant::now();
            let refused = ask(client, WEB).expect_err("nobody listens");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{address}: {refused}");
            assert!(start.elapsed() < Duration::from_secs(1));
        }
    }
}

//@ guest
#[test]
fn a_backend_that_nothing_routes_is_unreachable_at_once() {
    let fleet = Fleet::up(1);
    let outside = fleet.outside(VIP);
    let _agent = serve(&fleet, "", &["192.0.2.9:8080".to_owned()]);
    let (routed, bridged) = (fleet.endpoint(0, 5), fleet.port(0, 6));
    let clients = [&*routed, &*bridged, &outside, &*fleet[0]];
    for (client, who) in clients.into_iter().zip(["routed", "bridged", "outside", "host"]) {
        let start = Instant::now();
        let unreachable =
            Greeted::connect(client, WEB).map(|greeted| greeted.name).expect_err("there is no way");
        assert_eq!(unreachable.kind(), io::ErrorKind::HostUnreachable, "{who}: {unreachable}");
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    assert_eq!(fleet[0].counters().total("answered-unreachable"), 4);
    let told = fleet[0].json(&format!("explain 250.0.27.5 {VIP} --dport 80"));
    assert_eq!(told["outcome"], "answered-unreachable", "{told}");
}

/// Sends datagrams back as they came, until one is empty.
fn reflect(socket: &UdpSocket) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let (length, from) = socket.recv_from(&mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        socket.send_to(&bytes[..length], from)?;
    }
}

//@ guest: 6.1
#[test]
fn fragmented_datagrams_cross_a_vip_in_both_directions() {
    let fleet = Fleet::up(2);
    let outside = fleet.outside(VIP);
    let remote = fleet.endpoint(1, 9);
    let client = fleet.endpoint(0, 5);
    for (site, address) in [(&*remote, overlay(1, 9)), (&outside, OUTSIDE)] {
        let server = site.bound(|| UdpSocket::bind((address, 8080)));
        server.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes a time");
        let reflector = thread::spawn(move || reflect(&server));
        let _agent = serve(&fleet, "", &[format!("{address}:8080")]);
        for client in [&*client, &*fleet[0]] {
            client.inside(|| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
                socket.connect(WEB).expect("a route");
                socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a socket takes a time");
                for length in [10, 1_473, 4_000, 30_001] {
                    let sent = vec![length as u8; length];
                    socket.send(&sent).expect("a datagram is sent");
                    let mut back = vec![0; 1 << 16];
                    let received = socket.recv(&mut back);
                    let received = received.unwrap_or_else(|error| panic!("{address}, {length}: {error}"));
                    assert!(back[..received] == sent, "{address}, {length}: {received} bytes came back");
                }
            });
        }
        client
            .inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|end| end.send_to(&[], WEB)))
            .expect("the end is sent");
        reflector.join().expect("it does not panic").expect("it is told to end");
    }
}

//@ guest
#[test]
fn a_range_of_vips_is_one_route_and_an_address_that_none_has_is_unreachable() {
    let fleet = Fleet::up(1);
    let container = fleet.endpoint(0, 9);
    let server = Named::start(&container, "here", overlay(0, 9), 8080);
    let client = fleet.endpoint(0, 5);
    let _agent = serve(&fleet, "vip-range = \"10.96.0.0/16\"", &[server.backend()]);
    let route = fleet[0].ip("route show 10.96.0.0/16");
    assert!(route.contains("dev fanlight0"), "{route}{}", fleet[0].ip("route"));
    assert_eq!(fleet[0].ip("route show 10.96.0.10"), "");
    for site in [&*client, &*fleet[0]] {
        Greeted::connect(site, WEB).expect("the server answers");
        let nobody = SocketAddrV4::new(Ipv4Addr::new(10, 96, 7, 7), 80);
        let refused = Greeted::connect(site, nobody).err().expect("nobody is there");
        assert_eq!(refused.kind(), io::ErrorKind::HostUnreachable, "{refused}");
    }
}

//@ guest: 6.1
#[test]
fn options_are_removed_from_what_goes_to_a_vip() {
    let fleet = Fleet::up(2);
    let outside = fleet.outside(VIP);
    let (_containers, servers) = Named::on_each(&fleet);
    let _agent = serve(&fleet, "", &servers.iter().map(Named::backend).collect::<Vec<_>>());
    let (routed, bridged) = (fleet.endpoint(0, 5), fleet.port(0, 6));
    // No operation; record route with room for two (RFC 791); router alert (RFC 2113).
    let options: [&[u8]; 3] = [&[1, 1, 1, 0], &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[148, 4, 0, 0]];
    for client in [&*routed, &*bridged, &*fleet[0], &outside] {
        for options in options {
            let before = fleet[0].counters();
            let calls = (0..12).map(|_| {
                let mut greeted = Greeted::connect_with(client, options, WEB)?;
                greeted.echo(&[7; 200_000])?;
                Ok::<_, io::Error>(greeted.name)
            });
            let met: Result<BTreeSet<_>, _> = calls.collect();
            let met = met.unwrap_or_else(|error| panic!("{}, {options:?}: {error}", client.name()));
            assert_eq!(met, ["b0", "b1"].map(str::to_owned).into(), "{}, {options:?}", client.name());
            let counted = fleet[0].counters().since(&before);
            assert!(counted.of("host-egress", "options-removed") > 12 * 3, "{}: {counted}", client.name());
        }
    }
}
