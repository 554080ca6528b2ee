//! A flow through a VIP lives and ends as a whole: whichever side is silent, closes first, or is the only one to speak.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{
    Agent, Site, close, eventually,
    fleet::{Fleet, OUTSIDE, overlay},
    flows::age,
    server::{Named, ask},
    services::{configure, random, service},
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 80);
const SOON: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);
/// Twice what an entry of a side that has closed would last, were the sides apart.
const QUIET: Duration = Duration::from_secs(45);

fn listen(site: &Site, address: SocketAddrV4) -> TcpListener {
    site.bound(|| TcpListener::bind(address))
}

/// A connection through the VIP: the client's end and the server's.
fn connected(client: &Site, listener: &TcpListener) -> [TcpStream; 2] {
    let near = client.inside(|| TcpStream::connect_timeout(&WEB.into(), PATIENCE));
    let far = listener.accept().expect("the client has connected").0;
    let ends = [near.expect("the server answers"), far];
    for end in &ends {
        end.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time");
        end.set_write_timeout(Some(PATIENCE)).expect("a socket takes a time");
    }
    pass(&ends, b"hello");
    ends
}

/// The client speaks, and the server hears it.
fn pass(ends: &[TcpStream; 2], words: &[u8]) {
    (&ends[0]).write_all(words).expect("it is sent");
    let mut heard = vec![0; words.len()];
    (&ends[1]).read_exact(&mut heard).expect("it arrives");
    assert_eq!(heard, words);
}

fn serve(fleet: &Fleet, table: String) -> Agent {
    configure(&fleet[0], &[table]);
    fleet[0].agent()
}

//@ guest: 6.1
#[test]
fn a_client_that_writes_long_after_its_server_has_closed_hears_of_it_at_once() {
    let fleet = Fleet::up(2);
    let (near, far) = (fleet.endpoint(0, 9), fleet.endpoint(1, 9));
    let outside = fleet.outside(VIP);
    let client = fleet.endpoint(0, 5);
    for (site, address) in [(&*near, overlay(0, 9)), (&*far, overlay(1, 9)), (&outside, OUTSIDE)] {
        let address = SocketAddrV4::new(address, 8080);
        let listener = listen(site, address);
        let _agent = serve(&fleet, service("web", format!("{WEB}/tcp"), &[address.to_string()]));
        for client in [&*client, &*fleet[0]] {
            let [mut end, server] = connected(client, &listener);
            close(server);
            assert_eq!(end.read(&mut [0]).expect("it was not reset"), 0, "the server has closed");
            age(&fleet[0], QUIET);
            let start = Instant::now();
            let told = eventually("the client is told", SOON, || end.write_all(b"a record").err());
            let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(kinds.contains(&told.kind()), "{address}, {}: {told}", client.name());
            assert!(start.elapsed() < Duration::from_secs(1), "{address}: {:?}", start.elapsed());
        }
    }
}

/// Has one side close its direction and, after a long silence, the other one send a megabyte.
fn answered_late(fleet: &Fleet, ends: [TcpStream; 2], closes: usize, what: &str) {
    let sent = vec![7; 1 << 20];
    ends[closes].shutdown(Shutdown::Write).expect("a connection");
    let speaks = &ends[1 - closes];
    assert_eq!({ speaks }.read(&mut [0]).expect("it was not reset"), 0, "{what}");
    age(&fleet[0], QUIET);
    thread::scope(|scope| {
        scope.spawn(|| {
            let written = { speaks }.write_all(&sent);
            written.unwrap_or_else(|error| panic!("{what}: the late answer: {error}"));
            speaks.shutdown(Shutdown::Write).unwrap_or_else(|error| panic!("{what}: {error}"));
        });
        let mut heard = Vec::new();
        let read = { &ends[closes] }.read_to_end(&mut heard);
        read.unwrap_or_else(|error| panic!("{what}: after {} bytes: {error}", heard.len()));
        assert_eq!(heard.len(), sent.len(), "{what}");
    });
}

//@ guest: 6.1
#[test]
fn who_has_closed_its_direction_gets_all_that_the_other_side_sends_long_after() {
    let fleet = Fleet::up(2);
    let (near, far) = (fleet.endpoint(0, 9), fleet.endpoint(1, 9));
    let client = fleet.endpoint(0, 5);
    for (site, address) in [(&*near, overlay(0, 9)), (&*far, overlay(1, 9))] {
        let address = SocketAddrV4::new(address, 8080);
        let listener = listen(site, address);
        let own = [address.to_string()];
        for (way, table) in [("maglev", service as fn(_, _, &_) -> _), ("random", random)] {
            let web = |backends: &[String]| table("web", format!("{WEB}/tcp"), backends);
            let _agent = serve(&fleet, web(&own));
            for closes in [0, 1] {
                let ends = connected(&client, &listener);
                answered_late(&fleet, ends, closes, &format!("{address}, {way}, side {closes} closes"));
            }
        }
        let _agent = serve(&fleet, service("web", format!("{WEB}/tcp"), &own));
        for closes in [0, 1] {
            let ends = connected(&client, &listener);
            fleet[0].run(&format!("service drain web {address}"));
            answered_late(&fleet, ends, closes, &format!("{address}, drained, side {closes} closes"));
            fleet[0].run(&format!("service undrain web {address}"));
        }
    }
}

/// Sends between two datagram sockets, of which the second answers whom it hears first.
fn speak(from: &UdpSocket, to: &UdpSocket, what: &str) {
    from.send(b"still there").expect("it is sent");
    let mut heard = [0; 64];
    let length = to.recv(&mut heard).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(&heard[..length], b"still there", "{what}");
}

//@ guest: 6.1
#[test]
fn datagrams_of_either_side_keep_their_flow_however_long_the_other_is_silent() {
    let fleet = Fleet::up(2);
    let (near, far) = (fleet.endpoint(0, 9), fleet.endpoint(1, 9));
    let (outside, elsewhere) =
        (fleet.outside(VIP), fleet.stranger("elsewhere", fanlight_tests::fleet::ELSEWHERE));
    let container = fleet.endpoint(0, 5);
    for (site, address) in [(&*near, overlay(0, 9)), (&*far, overlay(1, 9)), (&outside, OUTSIDE)] {
        let address = SocketAddrV4::new(address, 8080);
        let _agent = serve(&fleet, service("web", format!("{WEB}/udp"), &[address.to_string()]));
        for client in [&*container, &*fleet[0], &elsewhere] {
            if client.name() == elsewhere.name() {
                client.sh(&format!("ip route replace {VIP} via {}", fanlight_tests::fleet::underlay(0)));
            }
            let what = format!("{} to {address}", client.name());
            let bound = |site: &Site, port| {
                let address = if port == 0 { Ipv4Addr::UNSPECIFIED } else { *address.ip() };
                let socket = site.bound(|| UdpSocket::bind((address, port)));
                socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket takes a time");
                socket
            };
            let (near, far) = (bound(client, 0), bound(site, 8080));
            client.inside(|| near.connect(WEB)).expect("a route");
            near.send(b"hello").expect("it is sent");
            let (_, seen_as) = far.recv_from(&mut [0; 64]).unwrap_or_else(|error| panic!("{what}: {error}"));
            far.connect(seen_as).expect("a route");
            speak(&far, &near, &what);
            for (speaks, hears, who) in [(&near, &far, "the server"), (&far, &near, "the client")] {
                for _ in 0..3 {
                    age(&fleet[0], Duration::from_secs(100));
                    speak(speaks, hears, &format!("{what}, while {who} is silent"));
                }
                speak(hears, speaks, &format!("{what}: {who} after 300 s of silence"));
            }
        }
    }
}

//@ guest
#[test]
fn datagrams_that_nobody_answers_stay_with_one_backend_of_a_random_choice() {
    let fleet = Fleet::up(3);
    let containers: Vec<_> = (0..3).map(|host| fleet.endpoint(host, 9)).collect();
    let address = |host| SocketAddrV4::new(overlay(host, 9), 8080);
    let sinks = containers.iter().enumerate().map(|(host, container)| {
        let sink = container.bound(|| UdpSocket::bind(address(host)));
        sink.set_nonblocking(true).expect("a socket can be asked");
        sink
    });
    let sinks: Vec<_> = sinks.collect();
    let listed: Vec<_> = (0..3).map(|host| address(host).to_string()).collect();
    let _agent = serve(&fleet, random("log", format!("{WEB}/udp"), &listed));
    let client = fleet.endpoint(0, 5);
    for site in [&*client, &*fleet[0]] {
        let sender = site.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
            socket.connect(WEB).expect("a route");
            socket
        });
        // By chance one backend would get them all in one of 6,500 runs.
        for _ in 0..9 {
            sender.send(b"a line").expect("it is sent");
            age(&fleet[0], Duration::from_secs(20));
        }
        thread::sleep(Duration::from_millis(100));
        let mut counts: Vec<_> =
            sinks.iter().map(|sink| std::iter::from_fn(|| sink.recv(&mut [0; 64]).ok()).count()).collect();
        counts.sort_unstable();
        assert_eq!(counts, [0, 0, 9], "{}", site.name());
    }
}

//@ guest
#[test]
fn datagram_flows_of_a_service_that_is_removed_are_listed_no_more() {
    let fleet = Fleet::up(2);
    let server = fleet.endpoint(1, 9);
    let server = Named::start(&server, "b1", overlay(1, 9), 8080);
    let other = service("other", "10.96.0.11:53/udp", &[server.backend()]);
    configure(&fleet[0], &[service("dns", format!("{WEB}/udp"), &[server.backend()]), other.clone()]);
    let mut agent = fleet[0].agent();
    let client = fleet.endpoint(0, 5);
    for site in [&*client, &*fleet[0]] {
        ask(site, WEB).expect("the server answers");
        ask(site, SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 11), 53)).expect("the server answers");
    }
    let names = || -> Vec<String> {
        let flows = fleet[0].json("flow list");
        let mut names: Vec<_> =
            flows.as_array().expect("a list").iter().map(|flow| flow["service"].to_string()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(), ["\"dns\"", "\"dns\"", "\"other\"", "\"other\""]);
    configure(&fleet[0], &[other]);
    agent.reload();
    eventually("those of the other service are left", Duration::from_secs(2), || {
        (names() == ["\"other\"", "\"other\""]).then_some(())
    });
}
